#!/bin/sh
# hang_timeout where the ranks wait in NCCL: of two ranks one is stopped, in TP2, PP2 and DP2; the other says so and ends the job.
. tests/gpu/gpus.sh

[ "$gpus" -ge 2 ] || skip_all "$gpus GPU here"
model small 4 28 4
data corpus 100
for axis in tensor_parallel pipeline_parallel data_parallel; do
    run=$runs/$axis
    mpirun -np 2 "$MOAI_BIN/moai_train" --model "$runs/small.json" --data "$runs/corpus" --output_dir "$run" --device "$device" --num_threads 1 \
        --seq_length 29 --global_batch_size 8 --batch_size 1 --$axis 2 --max_steps 1000000 --save_steps 0 --no_save_on_exit --no_tensorboard \
        --hang_timeout 3 > "$run.log" 2>&1 &
    job=$! n=0
    until grep -q '"step":3,' "$run/metrics.jsonl" 2> /dev/null || [ $n -ge 600 ]; do sleep 0.1; n=$((n + 1)); done
    for p in $(cat /proc/[0-9]*/stat 2> /dev/null | awk -v parent=$job '$4 == parent { print $1 }'); do
        tr '\0' '\n' < "/proc/$p/environ" | grep -q '^OMPI_COMM_WORLD_RANK=1$' && kill -STOP "$p" && victim=$p
    done
    n=0
    while kill -0 $job 2> /dev/null && [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done
    kill -9 $job 2> /dev/null
    wait $job
    [ $? = 1 ] && [ $n -lt 300 ]; check $? "$axis: the job ends by itself, with status 1"
    grep -q '^moai: hang: rank 1 is late; 1 of 2 ranks wait' "$run.log"; check $? "$axis: rank 1 is late"
    grep -q "^  late   rank 1 .* pid $victim: does not answer, .* its last operation: [a-z_]* [0-9]* over " "$run.log"; check $? "$axis: it did something last"
    story=$(sed -n 's/^  waits  rank 0 .* pid [0-9]*: //p' "$run.log")
    echo "$story" | grep -q '^for rank 1, [0-9.]* s in [a-z_]* [0-9]* over [a-z]* of [0-9]* elements.* in step [0-9]'; check $? "$axis: rank 0 waits $story"
done
done_testing
