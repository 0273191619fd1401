#!/bin/sh
# Against PyTorch on the same GPU: 50 steps in bf16 from the same weights on the same samples, and the logits of the trained weights.
. tests/gpu/gpus.sh

"$PYTHON" -c 'import torch, transformers, h5py' > /dev/null 2>&1 || skip_all "$PYTHON has no torch and transformers: PYTHON=... names one that has"
torch() {
    story=$("$PYTHON" -W ignore tests/gpu/torch_run.py "$@" 2> "$runs/err")
    status=$?
    [ $status = 0 ] || tail -n 5 "$runs/err" | sed 's/^/# /'
    check $status "$1: $story"
}

# A checkpoint before any training: one step at a rate of 0 leaves the initial weights.
steps=1 learning_rate=0
even start 1 --bf16 --batch_size 8 --warmup_steps 0
"$MOAI_BIN/moai_checkpoint" export "$runs/start/checkpoint-1" "$runs/initial" > "$runs/log" 2>&1; check $? "export the initial weights"
steps=50 learning_rate=3e-3
even run 1 --bf16 --batch_size 2 --deterministic
torch curve "$runs/initial" "$runs/even-corpus" "$runs/run" "$device"

"$MOAI_BIN/moai_checkpoint" export "$runs/run/checkpoint-50" "$runs/trained" > "$runs/log" 2>&1; check $? "export the trained weights"
ids=7,21,3,40,900,12,12,5,44,321,8,19,77,2,2,640,33,18,250,6,41
for dtype in fp32 bf16; do
    "$MOAI_BIN/moai_generate" "$runs/run" --device "$device" --dtype $dtype --input_ids $ids --logits_out "$runs/$dtype" --num_threads 1 > "$runs/log" 2>&1
    check $? "$dtype logits of $(echo $ids | tr ',' '\n' | wc -l) tokens"
done
torch logits "$runs/trained" $ids "$runs/fp32" "$runs/bf16" "$device"
done_testing
