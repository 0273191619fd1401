#!/bin/sh
# What fits into how much memory: the plan's figures against the choice of recomputation, the refusal and the way out.
set -u
. tests/check.sh
shown="$TMPDIR/out"
plan() { "$MOAI_BIN/moai_train" --plan --model configs/moai-3b.json --bf16 --device cuda "$@" > "$TMPDIR/out" 2>&1; }
# the GiB that a rank takes
need() { plan --device_memory 10000 "$@" && sed -n 's/^fit .* takes \([0-9.]*\) GiB.*/\1/p' "$TMPDIR/out"; }

none=$(need --gradient_checkpointing none)
selective=$(need --gradient_checkpointing selective)
full=$(need --gradient_checkpointing full)
echo "$none $selective $full" | awk '{ exit !(NF == 3 && $1 > $2 + 1 && $2 > $3 + 1) }'
check $? "none, selective, full take less and less: $none, $selective, $full GiB"
echo "$full" | awk '{ exit !($1 > 16 * 5167084288 / 2^30) }'
check $? "never less than the state: $full GiB"

# just enough for a mode is what auto finds
for mode in none selective full; do
    eval "enough=\$$mode"
    plan --device_memory "$(echo "$enough" | awk '{ print $1 + 0.001 }')" && grep -q "recomputation $mode\$" "$TMPDIR/out"
    check $? "auto with $enough GiB is $mode"
done
plan --device_memory "$(echo "$selective" | awk '{ print $1 - 0.001 }')" --gradient_checkpointing selective &&
    grep -q 'it does not fit: .* would fit with --gradient_checkpointing full (' "$TMPDIR/out"
check $? "a MiB less: the way out is more recomputation"

# the way out that is named is one
way=$(plan --device_memory 60 --batch_size 4; sed -n 's/.*would fit with \(.*\) on \([0-9]*\) ranks with as much each.*/\1 --plan_ranks \2/p' "$TMPDIR/out")
# shellcheck disable=SC2086
[ -n "$way" ] && plan --device_memory 60 --batch_size 4 $way && ! grep -q 'does not fit' "$TMPDIR/out"
check $? "60 GiB: $way fits"

"$MOAI_BIN/moai_train" --model configs/moai-3b.json --data nowhere --device cpu --device_memory 1 --output_dir "$TMPDIR/none" > "$TMPDIR/out" 2>&1
[ $? = 2 ] && grep -q 'moai: a rank needs [0-9.]* GiB and may take 1; ' "$TMPDIR/out" && grep -q 'memory per rank' "$TMPDIR/out" && [ ! -e "$TMPDIR/none" ]
check $? "a start that does not fit: the plan, both figures, status 2, nothing made"
plan --device_memory 0.0001 && grep -q 'GiB of the 0.0001 that device_memory gives it$' "$TMPDIR/out" &&
    grep -q 'GiB and may take 0.0001; ' "$TMPDIR/out"
check $? "device_memory is said as it was given"
done_testing
