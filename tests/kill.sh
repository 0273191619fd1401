# shellcheck shell=sh
# kill.sh: sourced by tests/t8-kill.sh and tests/slow/t8-kill.sh: a tiny model's job is killed over and over, resumes by itself, and in
# the end is the run that was never disturbed, bit for bit.
#
#   KILLS=100 AIMED=30 SEED=7 make test-slow T=t8-kill         on this machine
#   KILLS=100 RANKS=8 LAUNCH="mpirun --host a,b" ...           elsewhere; the killed ranks are those of the launcher's host
. tests/layouts.sh
export OMPI_MCA_odls_base_sigkill_timeout=0    # mpirun does not wait for the survivors of a killed rank

# kill_test RANKS KILLS AIMED FLAGS
kill_test() {
    ranks=$1 kills=$2 aimed=$3
    shift 3
    model small 2 4 2
    data corpus 400
    set -- --model "$runs/small.json" --data "$runs/corpus" --device cpu --num_threads 1 --seq_length 29 --global_batch_size 4 \
        --max_steps 1000000 --lr_scheduler_type constant --learning_rate 5e-4 --save_steps 10 --no_tensorboard --no_progress --log_samples "$@"
    launch="${LAUNCH:-mpirun} -np $ranks"
    # shellcheck disable=SC2086
    perl tests/kill.pl "$kills" "$aimed" "$runs/killed" -- $launch "$MOAI_BIN/moai_train" "$@" --output_dir "$runs/killed" \
        --resume_from_checkpoint auto > "$runs/tap"
    cat "$runs/tap"
    tests_run=$(grep -c -E '^(not )?ok' "$runs/tap") tests_failed=$(grep -c '^not ok' "$runs/tap")
    last=$(($(sed -n 's/^# newest checkpoint: //p' "$runs/tap") + 15))
    # shellcheck disable=SC2086
    $launch "$MOAI_BIN/moai_train" "$@" --output_dir "$runs/killed" --resume_from_checkpoint auto --stop_at_step $last > "$runs/log" 2>&1
    check $? "left alone it goes on to step $last"
    # shellcheck disable=SC2086
    $launch "$MOAI_BIN/moai_train" "$@" --output_dir "$runs/straight" --save_steps 0 --stop_at_step $last > "$runs/log" 2>&1
    check $? "the same run, never disturbed"
    same_bits killed straight
    "$MOAI_BIN/moai_checkpoint" verify "$runs/killed" > "$runs/log" 2>&1
    check $? "every checkpoint that remains verifies: $(grep -c 'complete and undamaged' "$runs/log")"
    done_testing
}
