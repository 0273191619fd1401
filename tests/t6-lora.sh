#!/bin/sh
# t6-lora.sh: adapters on a frozen base, in 4 bits too, trained on layouts of 1 to 8 ranks, agree with one rank; a run that is resumed,
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
one lora-keep_attention 1 --gradient_checkpointing keep_attention
one lora-full 1 --gradient_checkpointing full
for mode in none selective keep_attention full; do same_bits lora-$mode lora; done
one lora-tp2 2 --tensor_parallel 2
one lora-tp4 4 --tensor_parallel 4 --gradient_checkpointing selective
one lora-pp2 2 --pipeline_parallel 2
one lora-pp3 3 --pipeline_parallel 3 --gradient_checkpointing full
one lora-dp2 2
one lora-dp4-1 4 --per_device_train_batch_size 1
one lora-222 8 --tensor_parallel 2 --pipeline_parallel 2 --gradient_checkpointing full
for layout in tp2 tp4 pp2 pp3 dp2 dp4-1 222; do agree lora-$layout lora; done

lora="$lora --lora_dropout 0.3"
one drop 1
one drop-again 1 --gradient_checkpointing full
one drop-tp2 2 --tensor_parallel 2
one drop-pp3 3 --pipeline_parallel 3
one drop-222 8 --tensor_parallel 2 --pipeline_parallel 2
same_bits drop-again drop
for layout in tp2 pp3 222; do agree drop-$layout drop; done
learns drop
[ "$(first drop)" = "$(first lora)" ]
check $? "B is zero at the start, whatever is dropped: $(first drop)"
second() { sed -n 's/.*"step":2,"loss":\([0-9.]*\).*/\1/p' "$runs/$1/metrics.jsonl"; }
[ "$(second drop)" != "$(second lora)" ]
check $? "then it is another run: $(second drop) against $(second lora)"

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

# a base in 4 bits, whose blocks are whole on two ranks
cat > "$runs/blocks.json" <<EOF
{"model_type": "qwen3", "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 1,
 "head_dim": 16, "vocab_size": 331, "max_position_embeddings": 64, "initializer_range": 0.05}
EOF
use_model=blocks
steps=5 learning_rate=1e-6 layout blocks-base 1
lora="--model_name_or_path $runs/blocks-base/checkpoint-5 --lora_rank 4 --quantization nf4"
one qlora 1
learns qlora
one qlora-plain 1 --no_double_quantization
one qlora-full 1 --gradient_checkpointing full
one qlora-tp2 2 --tensor_parallel 2
one qlora-pp2 2 --pipeline_parallel 2 --gradient_checkpointing selective
one qlora-222 8 --tensor_parallel 2 --pipeline_parallel 2
same_bits qlora-full qlora
for layout in tp2 pp2 222; do agree qlora-$layout qlora; done
[ "$(first qlora)" != "$(first qlora-plain)" ]
check $? "double quantization is another base: $(first qlora) against $(first qlora-plain)"
# shellcheck disable=SC2086
halves qlora-moved 2 $lora --tensor_parallel 2 -- 2 $lora --pipeline_parallel 2
agree qlora-moved qlora
one qlora-tp4 4 --tensor_parallel 4 > "$runs/tp4"
grep -q "num_attention_heads x head_dim 128 over tensor_parallel 4 cuts one" "$runs/tp4"
check $? "a layout that cuts a block is refused: $(grep -o 'quantization nf4 keeps.*' "$runs/tp4" | head -n 1)"

[ "$before" = "$(cat "$base"/* | cksum)" ]
check $? "the base is as it was"
"$MOAI_BIN/moai_checkpoint" verify "$runs/lora-222/checkpoint-20" > "$runs/verify.log" 2>&1
check $? "a checkpoint of adapters: $(tail -n 1 "$runs/verify.log")"
size=$(cat "$runs"/lora/checkpoint-20/rank-*.h5 | wc -c) whole=$(cat "$base"/rank-*.h5 | wc -c)
[ "$size" -lt $((whole / 3)) ]
check $? "it holds adapters alone: $size bytes, the whole model's is $whole"

done_testing
