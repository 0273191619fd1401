#!/bin/sh
# t8-damage with 1,000 flipped bytes and 5,000 mutated manifests, t8-safetensors with 50,000 mutated headers.
set -u
n=0 failed=0
for run in "mpirun -np 4 $MOAI_BIN/tests/t8-damage 1000 5000" "$MOAI_BIN/tests/t8-safetensors 50000"; do
    n=$((n + 1))
    if $run > "$TMPDIR/out" 2>&1; then
        echo "ok $n - $(grep -e mutated "$TMPDIR/out" | sed 's/^ok [0-9]* - //')"
    else
        failed=1
        echo "not ok $n - ${run##*/}"
        grep -v '^ok' "$TMPDIR/out" | sed 's/^/# /'
    fi
done
echo "1..$n"
exit $failed
