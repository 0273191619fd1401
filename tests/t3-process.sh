#!/bin/sh
# The ways out: one broken rank ends all; a configuration error is said once; a program needs no mpirun.
set -u
program=$MOAI_BIN/tests/t3-leave
. tests/lib/check.sh
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

run 4 thread
[ $status -ne 0 ] && [ $status -ne 124 ]; check $? "die in another thread, while the main one is inside MPI, ends all ranks, status $status"
[ "$(grep -c 'rank 2 .* step 42\] tests/t3-leave.c:[0-9]*: a thread found the pump of 3 bar broken' "$TMPDIR/out")" = 1 ]; check $? "and says why"

mkfifo "$TMPDIR/pipe"
sleep 60 < "$TMPDIR/pipe" &
reader=$!
timeout -s KILL 30 "$program" clogged > "$TMPDIR/pipe" 2> "$TMPDIR/out"
status=$?
[ $status != 0 ] && [ $status != 137 ] && grep -q 'the pump of 3 bar failed' "$TMPDIR/out"
check $? "die where stdout leads to a full pipe: says why, and ends (status $status)"
kill $reader 2> /dev/null

${MPICC:-mpicc} -shared -fPIC -o "$TMPDIR/mpi_fails.so" tests/faults/mpi_fails.c; check $? "an MPI that fails is built"
# failing RANK FUNCTION CALL PROGRAM...: the job ends, and names the function (mpirun 4.1 itself may crash in its own end)
failing() {
    rank=$1 function=$2 at=$3
    shift 3
    timeout -k 5 60 mpirun -np 4 -x LD_PRELOAD="$TMPDIR/mpi_fails.so" -x FAIL_RANK="$rank" -x FAIL_CALL="$function" -x FAIL_AT="$at" \
        -x ASAN_OPTIONS=verify_asan_link_order=0 "$@" > "$TMPDIR/out" 2>&1
    status=$?
    [ $status -ne 0 ] && [ $status -ne 124 ] && grep -q "^\[rank $rank .*\] parallel/[a-z_/]*.c:[0-9]*: MPI_$function(.*): MPI_ERR_OTHER: known error not in list" "$TMPDIR/out"
    check $? "MPI_$function fails on rank $rank: the job ends with status $status, and says so"
}
failing 2 Allgather 1 "$program" on
failing 2 Allreduce 1 "$program" on
failing 1 Comm_free 1 "$program" on
train="$MOAI_BIN/moai_train --model $TMPDIR/nowhere.json"
# shellcheck disable=SC2086
{
failing 1 Allreduce 2 $train
failing 3 Bcast 1 $train
}
timeout 60 "$program" > "$TMPDIR/out" 2>&1
check $? "a program without mpirun is a world of one"
timeout 60 "$program" die > "$TMPDIR/out" 2>&1
[ $? = 1 ] && grep -q '^moai: tests/t3-leave.c:[0-9]*: the pump' "$TMPDIR/out"; check $? "and dies with status 1 under its plain name"

# foreign STATUS TEXT NAME=VALUE...: what a program says that an unknown launcher has started
foreign() {
    status=$1 text=$2
    shift 2
    env "$@" timeout 60 "$program" on > "$TMPDIR/out" 2>&1
    got=$?
    [ $got = "$status" ] && grep -q "$text" "$TMPDIR/out"; check $? "$*: \"$text\", status $status (is $got)"
}
for name in PMI_SIZE MPI_LOCALNRANKS PALS_SIZE MV2_COMM_WORLD_SIZE OMPI_COMM_WORLD_SIZE SLURM_STEP_NUM_TASKS; do
    foreign 2 "^moai: started as 1 of 4 tasks by a launcher that this Open MPI does not know ($name is 4, " $name=4
done
foreign 2 '(SLURM_NTASKS is 2, ' SLURM_NTASKS=2 SLURM_STEP_ID=0
foreign 0 'still here' SLURM_NTASKS=8 SLURM_NPROCS=8 SLURM_PROCID=0    # a batch script
foreign 0 'still here' SLURM_NTASKS=8 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1    # an interactive step
foreign 0 'still here' PMI_SIZE=1 PMI_RANK=0
PMI_SIZE=4 PMI_RANK=0 timeout 60 mpirun -np 1 "$program" on > "$TMPDIR/out" 2>&1; check $? "mpirun -np 1 is one rank wherever it is started"
PMI_SIZE=4 PMI_RANK=1 timeout 60 mpirun -np 4 "$program" on > "$TMPDIR/out" 2>&1; check $? "mpirun -np 4 is four"
"$MOAI_BIN/tests/tools/make_tokens" "$TMPDIR" 97 40 16 || exit 1
PMI_SIZE=4 PMI_RANK=0 "$MOAI_BIN/moai_tokenize" audit "$TMPDIR" > "$TMPDIR/out" 2>&1; check $? "one task of four does what is the work of one"
PMI_SIZE=4 PMI_RANK=3 "$MOAI_BIN/moai_tokenize" audit "$TMPDIR" > "$TMPDIR/out" 2>&1
[ $? = 2 ] && grep -q '^moai: audit is the work of one process, and this is task 3 of 4 (PMI_RANK)$' "$TMPDIR/out"; check $? "the others say why they do not"
OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 "$MOAI_BIN/moai_checkpoint" import "$TMPDIR" "$TMPDIR/run" > "$TMPDIR/out" 2>&1
[ $? = 2 ] && grep -q '^moai: import is the work of one process, and this is task 1 of 2 ' "$TMPDIR/out"; check $? "likewise moai_checkpoint"

# shellcheck disable=SC2046
"$program" on $(seq 1 60000) > "$TMPDIR/out" 2>&1; check $? "a command line of 350 KB is no matter for MPI"

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
