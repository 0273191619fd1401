#!/bin/sh
# More ranks than GPUs, a model beyond the GPU's operations, and no GPU at all: said once, nothing is allocated, everybody leaves.
. tests/gpu/gpus.sh

[ "$device" = cuda ] || skip_all "nothing to refuse with -d $device"
model small 4 28 4
data corpus 40
# refused RANKS TEXT
refused() {
    timeout 120 mpirun -np "$1" "$MOAI_BIN/moai_train" --model "$runs/$use_model.json" --data "$runs/corpus" --output_dir "$runs/out" --device cuda \
        --seq_length 29 --max_steps 2 --no_tensorboard --no_progress > "$runs/log" 2>&1
    status=$?
    said=$(grep -c -F -- "$2" "$runs/log")
    [ $status != 0 ] && [ $status != 124 ] && [ "$said" = 1 ] && [ ! -e "$runs/out/metrics.jsonl" ]
    verdict=$?
    check $verdict "$1 ranks: \"$2\" once (is $said times), status $status"
    [ $verdict = 0 ] || tail -n 15 "$runs/log" | sed 's/^/# /'
}
refused $((gpus + 1)) "$((gpus + 1)) ranks on this host and $gpus GPUs: one rank a GPU"
sed 's/"head_dim": 8/"head_dim": 264/' "$runs/small.json" > "$runs/wide.json"
use_model=wide
refused 1 'head_dim 264: attention on a GPU takes at most 256'
sed 's/"hidden_size": 60/"hidden_size": 4100/' "$runs/small.json" > "$runs/odd.json"
use_model=odd
refused 1 'hidden_size 4100: norms on a GPU take at most 4096 columns of such a width'
use_model=small
CUDA_VISIBLE_DEVICES=
export CUDA_VISIBLE_DEVICES
refused 1 'no GPU is visible to this process (CUDA_VISIBLE_DEVICES is )'
done_testing
