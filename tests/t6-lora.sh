#!/bin/sh
# t6-lora.sh: adapters on a frozen base, trained on layouts of 1 to 8 ranks, agree with one rank; a run that is resumed,
# also on another layout, and one from a Hugging Face directory do likewise.  The base is as it was.
# needs: mpirun
. tests/lib/layouts.sh

model small 4 28 4
model above 2 8 2
data corpus 200
steps=5 learning_rate=1e-6 layout base 1
steps=4 use_model=above layout above-base 1
base="$runs/base/checkpoint-5"
before=$(cat "$base"/* | cksum)
lora="--model_name_or_path $base --lora_rank 3 --lora_alpha 4"
learning_rate=4e-3

# shellcheck disable=SC2086
one() { layout "$@" $lora; }
one lora 1
learns lora
layout whole 1 --model_name_or_path "$base" --stop_at_step 1
first() { sed -n 's/.*"step":1,"loss":\([0-9.]*\).*/\1/p' "$runs/$1/metrics.jsonl"; }
[ -n "$(first lora)" ] && [ "$(first lora)" = "$(first whole)" ]
check $? "adapters begin with the base's function: loss $(first lora) against $(first whole)"
one lora-none 1 --gradient_checkpointing none
one lora-selective 1 --gradient_checkpointing selective
one lora-full 1 --gradient_checkpointing full
for mode in none selective full; do same_bits lora-$mode lora; done
one lora-tp2 2 --tensor_parallel 2
one lora-tp4 4 --tensor_parallel 4 --gradient_checkpointing selective
one lora-pp2 2 --pipeline_parallel 2
one lora-pp3 3 --pipeline_parallel 3 --gradient_checkpointing full
one lora-dp2 2
one lora-dp4-1 4 --per_device_train_batch_size 1
one lora-222 8 --tensor_parallel 2 --pipeline_parallel 2 --gradient_checkpointing full
for layout in tp2 tp4 pp2 pp3 dp2 dp4-1 222; do agree lora-$layout lora; done

# each KV head on two ranks; adapters of some maps, the head and the embedding trained as they are
lora="--model_name_or_path $runs/above-base/checkpoint-4 --lora_rank 5 --use_rslora --lora_target_modules k_proj,o_proj
      --modules_to_save embed_tokens,lm_head"
use_model=above
one some 1
one some-tp4 4 --tensor_parallel 4
one some-222 8 --tensor_parallel 2 --pipeline_parallel 2
agree some-tp4 some
agree some-222 some

use_model=small lora="--model_name_or_path $base --lora_rank 3 --lora_alpha 4"
# shellcheck disable=SC2086
halves lora-again 1 $lora -- 1 $lora
same_bits lora-again lora
# shellcheck disable=SC2086
halves lora-moved 2 $lora --tensor_parallel 2 -- 2 $lora --pipeline_parallel 2
agree lora-moved lora

"$MOAI_BIN/moai_checkpoint" export "$base" "$runs/hf" > "$runs/export.log" 2>&1
lora="--model_name_or_path $runs/hf --lora_rank 3 --lora_alpha 4"
one lora-hf 1
same_bits lora-hf lora

[ "$before" = "$(cat "$base"/* | cksum)" ]
check $? "the base is as it was"
"$MOAI_BIN/moai_checkpoint" verify "$runs/lora-222/checkpoint-20" > "$runs/verify.log" 2>&1
check $? "a checkpoint of adapters: $(tail -n 1 "$runs/verify.log")"
size=$(cat "$runs"/lora/checkpoint-20/rank-*.h5 | wc -c) whole=$(cat "$base"/rank-*.h5 | wc -c)
[ "$size" -lt $((whole / 3)) ]
check $? "it holds adapters alone: $size bytes, the whole model's is $whole"

done_testing
