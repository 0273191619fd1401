#!/bin/sh
# SIGTERM and SIGUSR1: finish the step, save, leave with status 0; the run that goes on ends as if nothing had happened.
# slurm/pretrain.sh outside Slurm: starts local ranks, passes the signal on, resumes from the newest checkpoint.
. tests/small.sh
# run_file OUTPUT STEPS
run_file() {
    cat > "$dir/$1.json" <<END
{"model": "$dir/model.json", "data": "$dir/data", "output_dir": "$dir/$1", "device": "cpu", "num_threads": 1, "seq_length": 32,
 "global_batch_size": 4, "max_steps": $2, "lr_scheduler_type": "constant", "save_steps": 0, "tensorboard": false}
END
}
# signalled OUTPUT SIGNAL WHO COMMAND...: starts it, sends the signal after three steps to the command or to "rank", one of its children
signalled() {
    output=$1 signal=$2 who=$3
    shift 3
    "$@" > "$dir/out" 2>&1 &
    pid=$! n=0
    until grep -q '"step":3,' "$dir/$output/metrics.jsonl" 2> /dev/null || [ $n -ge 300 ]; do sleep 0.1; n=$((n + 1)); done
    to=$pid
    [ "$who" = command ] || to=$(awk -v parent="$pid" '$4 == parent { print $1 }' /proc/[0-9]*/stat 2> /dev/null | tail -n 1)
    kill -s "$signal" "$to"
    n=0
    while kill -0 $pid 2> /dev/null && [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done
    kill -9 $pid 2> /dev/null
    wait $pid
    status=$?
    step=$(sed -n 's/^{"step":\([0-9]*\),"event":"stop","text":"SIG'"$signal"'".*/\1/p' "$dir/$output/metrics.jsonl")
    [ $status = 0 ] && [ -n "$step" ] && [ -e "$dir/$output/checkpoint-$step/manifest.json" ]
    check $? "SIG$signal to the $who of \"$1\": status 0 (is $status), checkpoint of step ${step:-?} complete"
}
losses() { sed -n 's/^\({"step":[0-9]*,"loss":[^,]*\),.*\(,"grad_norm":[^,]*\),.*/\1\2/p' "$1/metrics.jsonl"; }
# same A B: B's first losses and norms are A's, bit for bit
same() {
    losses "$dir/$1" > "$dir/a"
    losses "$dir/$2" | head -n "$(wc -l < "$dir/a")" > "$dir/b"
    [ "$(wc -l < "$dir/a")" -gt 3 ] && cmp -s "$dir/a" "$dir/b"
}

run_file term 1000000
signalled term TERM command "$MOAI_BIN/moai_train" --config "$dir/term.json"
run_file usr1 1000000
signalled usr1 USR1 command mpirun -np 2 "$MOAI_BIN/moai_train" --config "$dir/usr1.json"
run_file one 1000000
signalled one TERM rank mpirun -np 2 "$MOAI_BIN/moai_train" --config "$dir/one.json" --tensor_parallel 2

run_file slurm 1000000
export NP=4
signalled slurm USR1 command bash slurm/pretrain.sh "$dir/slurm.json" --tensor_parallel 2
more=$((step + 5))
bash slurm/pretrain.sh "$dir/slurm.json" --tensor_parallel 2 --max_steps $more > "$dir/out" 2>&1
check $? "slurm/pretrain.sh goes on to step $more"
grep -q "^resumed .*checkpoint-$step: step $step, $((4 * step)) samples" "$dir/out"; check $? "from checkpoint-$step, not from the start"
run_file straight $more
bash slurm/pretrain.sh "$dir/straight.json" --tensor_parallel 2 > "$dir/out" 2>&1
check $? "the same run, straight"
same slurm straight; check $? "losses and norms of both are the same bits over $more steps"
bash slurm/pretrain.sh "$dir/straight.json" --tensor_parallel 3 > "$dir/out" 2>&1
[ $? = 2 ] && grep -q 'world size 4 is not tensor_parallel 3' "$dir/out"; check $? "a layout that does not fit 4 ranks: status 2"
done_testing
