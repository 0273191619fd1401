#!/bin/sh
# The ways out: one broken rank ends all; a configuration error is said once; a program needs no mpirun.
set -u
program=$MOAI_BIN/tests/t3-leave
. tests/check.sh
shown="$TMPDIR/out"
# run RANKS HOW: output to $TMPDIR/out, status to $status; a hang is cut off and fails
run() {
    timeout 60 mpirun -np "$1" "$program" "$2" > "$TMPDIR/out" 2>&1
    status=$?
}

run 4 die
[ $status -ne 0 ] && [ $status -ne 124 ]; check $? "die on rank 2 ends all four ranks, status $status"
[ "$(grep -c 'rank 2 tp0 cp0 pp1 dp0 host .* step 42\] tests/t3-leave.c:[0-9]*: the pump of 3 bar failed' "$TMPDIR/out")" = 1 ]
check $? "one line names rank, coordinates, host, step, place and values"
! grep -q 'still here' "$TMPDIR/out"; check $? "nobody goes on"

run 4 config
[ $status = 2 ]; check $? "a configuration error leaves with status 2, here $status"
[ "$(grep -c '^moai: tensor_parallel 3 is not for us$' "$TMPDIR/out")" = 1 ]; check $? "and is said once"

run 4 truncate
[ $status -ne 0 ] && [ $status -ne 124 ]; check $? "a failing transport ends all ranks, status $status"
grep -q 'recv of 10 elements over axis pp (rank 1 of 2): .*TRUNCATE' "$TMPDIR/out"; check $? "and names operation, axis and MPI's reason"

timeout 60 "$program" > "$TMPDIR/out" 2>&1
check $? "a program without mpirun is a world of one"
timeout 60 "$program" die > "$TMPDIR/out" 2>&1
[ $? = 1 ] && grep -q '^moai: tests/t3-leave.c:[0-9]*: the pump' "$TMPDIR/out"; check $? "and dies with status 1 under its plain name"

${MPICC:-mpicc} -D_GNU_SOURCE -shared -fPIC -o "$TMPDIR/many_cpus.so" tests/faults/many_cpus.c; check $? "a host of 4096 CPUs is built"
for start in "" "mpirun -np 4"; do
    timeout 60 $start env LD_PRELOAD="$TMPDIR/many_cpus.so" ASAN_OPTIONS=verify_asan_link_order=0 "$program" on > "$TMPDIR/out" 2>&1
    check $? "a program finds its cores there${start:+, by $start}"
done

# device NAME=VALUE FLAGS: the device line of a run that has nothing to train on
device() {
    variable=$1
    shift
    env "$variable" timeout 60 "$MOAI_BIN/moai_train" --model configs/tiny.json --data /dev/null --output_dir "$TMPDIR/run" --device cpu \
        --seq_length 64 --device_memory 1 "$@" > "$TMPDIR/out" 2>&1
    status=$?
}
device OMP_NUM_THREADS=3,2
grep -q '^device  *cpu, 3 threads a rank (OMP_NUM_THREADS), ' "$TMPDIR/out"; check $? "num_threads 0 is OMP_NUM_THREADS where that is set, and says so"
device OMP_NUM_THREADS=3 --num_threads 2
grep -q '^device  *cpu, 2 threads a rank, ' "$TMPDIR/out"; check $? "--num_threads goes before it"
device OMP_NUM_THREADS=3x
[ $status = 2 ] && grep -q '^moai: OMP_NUM_THREADS is "3x", must be a number from 1 to' "$TMPDIR/out"; check $? "what is no number is named, status 2 (is $status)"
echo text > "$TMPDIR/text.txt"
OMP_NUM_THREADS=two "$MOAI_BIN/moai_tokenize" train --input "$TMPDIR/text.txt" --output "$TMPDIR/tok" --vocab_size 300 > "$TMPDIR/out" 2>&1
[ $? = 2 ] && grep -q 'OMP_NUM_THREADS is "two"' "$TMPDIR/out"; check $? "moai_tokenize says so too"
done_testing
