# shellcheck shell=sh
# kill.sh: sourced by tests/t8-kill.sh and tests/slow/t8-kill.sh: a tiny model's jobs are killed over and over, resume by themselves, and in
# the end are the run that was never disturbed, bit for bit.
#
#   KILLS=1000 AIMED=300 JOBS=4 SEED=7 make test-slow T=t8-kill      on this machine, so many jobs side by side
#   KILLS=100 RANKS=8 LAUNCH="mpirun --host a,b" ...                 elsewhere; the killed ranks are those of the launcher's host
. tests/lib/layouts.sh
export OMPI_MCA_odls_base_sigkill_timeout=0    # mpirun does not wait for the survivors of a killed rank

# train NAME FLAGS: the job of `kill_test` with the output directory NAME
train() {
    name=$1
    shift
    # shellcheck disable=SC2086
    $launch "$MOAI_BIN/moai_train" $job --output_dir "$runs/$name" "$@" > "$runs/log" 2>&1
}

# kill_test RANKS KILLS AIMED FLAGS
kill_test() {
    launch="${LAUNCH:-mpirun} -np $1" kills=$2 aimed=$3 jobs=${JOBS:-1} last=0
    shift 3
    model small 2 4 2
    data corpus 400
    job="--model $runs/small.json --data $runs/corpus --device cpu --num_threads 1 --seq_length 29 --global_batch_size 4
        --max_steps 1000000 --lr_scheduler_type constant --learning_rate 5e-4 --save_steps 10 --no_tensorboard --no_progress --log_samples $*"
    for j in $(seq "$jobs"); do
        # shellcheck disable=SC2086
        SEED=$((${SEED:-7} + j - 1)) perl tests/lib/kill.pl $(((kills + jobs - 1) / jobs)) $(((aimed + jobs - 1) / jobs)) "$runs/killed$j" -- \
            $launch "$MOAI_BIN/moai_train" $job --output_dir "$runs/killed$j" --resume_from_checkpoint auto > "$runs/tap$j" &
    done
    wait
    for j in $(seq "$jobs"); do
        cat "$runs/tap$j"
        tests_run=$((tests_run + $(grep -c -E '^(not )?ok' "$runs/tap$j"))) tests_failed=$((tests_failed + $(grep -c '^not ok' "$runs/tap$j")))
        newest=$(sed -n 's/^# newest checkpoint: //p' "$runs/tap$j")
        [ "${newest:-0}" -lt $last ] || last=$((newest + 15))
    done
    train straight --save_steps 0 --stop_at_step $last
    check $? "a run that is not disturbed, $last steps"
    for j in $(seq "$jobs"); do
        train "killed$j" --resume_from_checkpoint auto --stop_at_step $last
        check $? "left alone, a killed one goes on to there"
        same_bits "killed$j" straight
        "$MOAI_BIN/moai_checkpoint" verify "$runs/killed$j" > "$runs/log" 2>&1
        check $? "every checkpoint that remains verifies: $(grep -c 'complete and undamaged' "$runs/log")"
    done
    done_testing
}
