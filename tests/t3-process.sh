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
done_testing
