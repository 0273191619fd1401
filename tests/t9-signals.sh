#!/bin/sh
# A signal of a batch system or a terminal: finish the step, save, leave with status 0; the run that goes on ends as if nothing had happened.
# slurm/pretrain.sh outside Slurm: starts local ranks, passes the signal on, resumes from the newest checkpoint.
# needs: perl
. tests/lib/small.sh
# a shell's background jobs ignore SIGINT, and what is ignored at the start stays ignored: as_usual COMMAND... has the defaults of a terminal's
as_usual() { exec perl -e '$SIG{$_} = "DEFAULT" for qw(INT HUP USR2 XCPU PIPE); exec @ARGV' "$@"; }
# run_file OUTPUT STEPS
run_file() {
    cat > "$dir/$1.json" <<END
{"model": "$dir/model.json", "data": "$dir/data", "output_dir": "$dir/$1", "device": "cpu", "num_threads": 1, "seq_length": 32,
 "global_batch_size": 4, "max_steps": $2, "lr_scheduler_type": "constant", "save_steps": 0, "tensorboard": false}
END
}
# signalled OUTPUT SIGNAL WHO COMMAND...: starts it, sends the signal after three steps to the command or to "rank", one of its children
wanted=0
signalled() {
    output=$1 signal=$2 who=$3
    shift 3
    as_usual "$@" > "$dir/out" 2>&1 &
    pid=$! n=0
    until grep -q '"step":3,' "$dir/$output/metrics.jsonl" 2> /dev/null || [ $n -ge 300 ]; do sleep 0.1; n=$((n + 1)); done
    to=$pid
    [ "$who" = command ] || to=$(cat /proc/[0-9]*/stat 2> /dev/null | awk -v parent="$pid" '$4 == parent { print $1 }' | tail -n 1)
    kill -s "$signal" "$to"
    n=0
    while kill -0 $pid 2> /dev/null && [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done
    kill -9 $pid 2> /dev/null
    wait $pid
    status=$?
    step=$(sed -n 's/^{"step":\([0-9]*\),"event":"stop","text":"SIG'"${noted:-$signal}"'".*/\1/p' "$dir/$output/metrics.jsonl")
    [ $status = $wanted ] && [ -n "$step" ] && [ -e "$dir/$output/checkpoint-$step/manifest.json" ]
    check $? "SIG$signal to the $who of \"$1\": status $wanted (is $status), checkpoint of step ${step:-?} complete"
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
for signal in HUP INT USR2 XCPU; do
    run_file $signal 1000000
    signalled $signal $signal command "$MOAI_BIN/moai_train" --config "$dir/$signal.json"
done
run_file usr1 1000000
signalled usr1 USR1 command mpirun -np 2 "$MOAI_BIN/moai_train" --config "$dir/usr1.json"
run_file one 1000000
signalled one TERM rank mpirun -np 2 "$MOAI_BIN/moai_train" --config "$dir/one.json" --tensor_parallel 2

# Open MPI ends its ranks itself: SIGTERM after a while (a second, here 3) in which it reads nothing of theirs, and as much later without mercy
run_file ctrl-c 1000000
wanted=1 noted=TERM
signalled ctrl-c INT command mpirun --mca odls_base_sigkill_timeout 3 -np 2 "$MOAI_BIN/moai_train" --config "$dir/ctrl-c.json"
wanted=0 noted=

# the second SIGINT, in a step that takes long: the run is over at once, unsaved
run_file twice 1000000
cat > "$dir/large.json" <<JSON
{"model_type": "qwen3", "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 8,
 "head_dim": 64, "vocab_size": 97, "max_position_embeddings": 64, "rope_theta": 10000}
JSON
as_usual "$MOAI_BIN/moai_train" --config "$dir/twice.json" --model "$dir/large.json" --global_batch_size 4096 > "$dir/out" 2>&1 &
pid=$! n=0
until grep -q '^device ' "$dir/out" || [ $n -ge 300 ]; do sleep 0.1; n=$((n + 1)); done
until [ -e "$dir/twice/metrics.jsonl" ] || [ $n -ge 300 ]; do sleep 0.1; n=$((n + 1)); done
ticks() { awk '{ print $14 }' "/proc/$pid/stat" 2> /dev/null || echo 0; }
began=$(ticks)
until [ "$(ticks)" -gt $((began + 200)) ] || [ $n -ge 600 ]; do sleep 0.1; n=$((n + 1)); done         # two seconds of its step
kill -s INT $pid; sleep 0.5; kill -0 $pid; check $? "a first SIGINT waits for the step"
kill -s INT $pid; n=0
while kill -0 $pid 2> /dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
kill -9 $pid 2> /dev/null
wait $pid
[ $? = 130 ] && grep -q '^SIGINT: the step is finished and saved; a second SIGINT ends the run at once' "$dir/out"
check $? "a second ends it, as the first has said"

# ignored at the start (nohup): stays ignored
run_file nohup 1000000
(trap '' HUP; exec "$MOAI_BIN/moai_train" --config "$dir/nohup.json" > "$dir/out" 2>&1) &
pid=$! n=0
until grep -q '"step":3,' "$dir/nohup/metrics.jsonl" 2> /dev/null || [ $n -ge 300 ]; do sleep 0.1; n=$((n + 1)); done
kill -s HUP $pid
steps=$(grep -c '"loss"' "$dir/nohup/metrics.jsonl") n=0
until [ "$(grep -c '"loss"' "$dir/nohup/metrics.jsonl")" -gt $((steps + 50)) ] || [ $n -ge 100 ]; do sleep 0.1; n=$((n + 1)); done
kill -0 $pid && ! grep -q '"event":"stop"' "$dir/nohup/metrics.jsonl"; check $? "under nohup SIGHUP is nothing"
kill -s TERM $pid; wait $pid; check $? "and SIGTERM what it was"

# the reader of its lines ends: they are lost, with a warning, and the run is not
run_file head 300
{ "$MOAI_BIN/moai_train" --config "$dir/head.json" 2> "$dir/err"; echo $? > "$dir/status"; } | head -n 2 > "$dir/out"
[ "$(cat "$dir/status")" = 0 ] && [ -e "$dir/head/checkpoint-300/manifest.json" ] && [ "$(grep -c '"loss"' "$dir/head/metrics.jsonl")" = 300 ] &&
    [ "$(grep -c '^warning: standard output: Broken pipe; training goes on' "$dir/err")" = 1 ]
check $? "| head: 300 steps, one warning, status $(cat "$dir/status")"

run_file slurm 1000000
export NP=4
noted=USR1
for signal in INT HUP; do
    run_file local-$signal 1000000
    signalled local-$signal $signal command bash slurm/pretrain.sh "$dir/local-$signal.json" --tensor_parallel 2
done
noted=
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
