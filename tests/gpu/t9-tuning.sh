#!/bin/sh
# Tuning on examples on GPUs (--mode sft): the CPU's model, whole, with adapters and beside a base in 4 bits; the same bits
# twice and in every recomputation mode; two GPUs tune what one does.
. tests/gpu/gpus.sh

even_data
mkdir "$runs/examples"
"$MOAI_BIN/tests/tools/make_examples" "$runs/examples" 1000 300 120 || exit 1
steps=5 learning_rate=1e-6 even base 1
use_model=even use_data=examples learning_rate=2e-3
sft="--mode sft --seq_length 128 --batch_size 2 --eval_steps 10"
lora="--model_name_or_path $runs/base/checkpoint-5 --lora_rank 8 --lora_dropout 0.1"
qlora="--model_name_or_path $runs/base/checkpoint-5 --lora_rank 16 --quantization nf4"
# shellcheck disable=SC2086
for kind in sft lora qlora; do
    more=
    [ $kind = sft ] || eval more="\$$kind"
    layout $kind 1 $sft $more --deterministic
    layout $kind-again 1 $sft $more --deterministic
    layout $kind-full 1 $sft $more --deterministic --gradient_checkpointing full
    layout $kind-selective 1 $sft $more --deterministic --gradient_checkpointing selective
    layout $kind-fastest 1 $sft $more
    layout $kind-cpu 1 $sft $more --device cpu
    for other in again full selective; do same_bits $kind-$other $kind; done
    agree $kind $kind-cpu
    agree $kind-fastest $kind-cpu
    layout $kind-bf16 1 $sft $more --bf16 --deterministic
    layout $kind-bf16-again 1 $sft $more --bf16 --deterministic --gradient_checkpointing full
    layout $kind-bf16-cpu 1 $sft $more --bf16 --device cpu
    same_bits $kind-bf16-again $kind-bf16
    agree $kind-bf16 $kind-bf16-cpu 3e-2
    [ "$gpus" -ge 2 ] || continue
    layout $kind-tp2 2 $sft $more --tensor_parallel 2
    layout $kind-pp2 2 $sft $more --pipeline_parallel 2
    layout $kind-dp2 2 $sft $more
    for other in tp2 pp2 dp2; do agree $kind-$other $kind; done
done
learns sft
done_testing
