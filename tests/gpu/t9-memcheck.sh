#!/bin/sh
# compute-sanitizer sees no bad access in three training steps, an evaluation and some decoding, in fp32 and in bf16 with recomputation.
. tests/gpu/gpus.sh

[ "$device" = cuda ] || skip_all "there is no GPU to watch with -d $device"
command -v compute-sanitizer > /dev/null || skip_all "compute-sanitizer is not found: it comes with the CUDA toolkit"

# watched NAME COMMAND...: the command's output is left in $runs/log
watched() {
    name=$1
    shift
    timeout 240 compute-sanitizer --tool memcheck --error-exitcode 99 "$@" > "$runs/log" 2>&1
    status=$?
    ! grep -q 'Device not supported' "$runs/log" || [ $tests_run -gt 0 ] || skip_all "compute-sanitizer: Device not supported"
    [ $status = 0 ] && grep -q 'ERROR SUMMARY: 0 errors' "$runs/log"
    verdict=$?
    check $verdict "$name: $(grep 'ERROR SUMMARY' "$runs/log" || echo "status $status")"
    [ $verdict = 0 ] || tail -n 30 "$runs/log" | sed 's/^/# /'
}

mkdir -p "$runs/corpus"
"$MOAI_BIN/tests/tools/make_tokens" "$runs/corpus" 1000 40 64 || exit 1
flags="--model $runs/even.json --data $runs/corpus --device cuda --num_threads 1 --seq_length 64 --batch_size 2 --global_batch_size 4 --max_steps 3
       --eval_steps 3 --eval_batches 1 --deterministic --no_tensorboard --no_progress"
# shellcheck disable=SC2086
watched "fp32" "$MOAI_BIN/moai_train" $flags --output_dir "$runs/fp32"
# shellcheck disable=SC2086
watched "bf16, recomputing" "$MOAI_BIN/moai_train" $flags --bf16 --gradient_checkpointing selective --output_dir "$runs/bf16"
watched "decoding" "$MOAI_BIN/moai_generate" "$runs/fp32" --device cuda --dtype bf16 --input_ids 7,21,3,40 --max_new_tokens 8 --temperature 0 --ignore_eos
done_testing
