#!/bin/sh
# t8-streams.sh: models with hyper-connections in and out: a plain one gains streams and writes what it wrote, an export comes
# back as it was, adapters and 4 bits beside them, and what does not fit is named.
. tests/lib/layouts.sh
golden=tests/golden checkpoint=$MOAI_BIN/moai_checkpoint
run() { "$@" > "$runs/out" 2> "$runs/err"; }
greedy() { "$MOAI_BIN/moai_generate" "$1" --input_ids 5,9,11,3,50 --temperature 0 --max_new_tokens 24 --num_threads 1 2> "$runs/err"; }
run "$checkpoint" import $golden/blocks "$runs/plain"
for more in sinkhorn permutation; do
    run "$checkpoint" import --hc_mult 4 --hc_mixing $more $golden/blocks "$runs/$more" &&
        [ "$(greedy "$runs/$more")" = "$(greedy "$runs/plain")" ] && [ "$(greedy "$runs/plain" | wc -w)" -ge 24 ]
    check $? "a model that gains four streams ($more) writes what it wrote"
done
for m in streams streams-lite; do
    run "$checkpoint" export $golden/$m "$runs/$m" && cmp -s io/hf/modeling_moai.py "$runs/$m/modeling_moai.py" &&
        grep -q '"model_type": *"moai"' "$runs/$m/config.json" && run "$checkpoint" import "$runs/$m" "$runs/$m-in" &&
        run "$checkpoint" export "$runs/$m-in/checkpoint-0" "$runs/$m-again" && cmp -s "$runs/$m/model.safetensors" "$runs/$m-again/model.safetensors" &&
        cmp -s "$runs/$m/config.json" "$runs/$m-again/config.json"
    check $? "$m: exported with the code that loads it, imported and exported again"
    run "$checkpoint" export --overwrite $golden/$m "$runs/$m"
    check $? "$m: and replaced"
done

mkdir "$runs/data" && "$MOAI_BIN/tests/tools/make_tokens" "$runs/data" 53 400 32
tune() {
    run "$MOAI_BIN/moai_train" --data "$runs/data" --seq_length 32 --num_threads 1 --max_steps 5 --learning_rate 1e-2 --no_tensorboard \
        --batch_size 4 "$@"
}
tune --model_name_or_path "$runs/sinkhorn/checkpoint-0" --output_dir "$runs/lora" --lora_rank 4 && ! grep -q _hc "$runs/lora/checkpoint-5/manifest.json"
check $? "adapters are trained beside frozen streams"
tune --model_name_or_path "$runs/sinkhorn/checkpoint-0" --output_dir "$runs/qlora" --lora_rank 4 --quantization nf4
check $? "and beside a base in 4 bits"
for mode in none streams selective keep_attention full; do
    tune --model_name_or_path "$runs/sinkhorn/checkpoint-0" --output_dir "$runs/lora-$mode" --lora_rank 4 --lora_dropout 0.1 --gradient_checkpointing $mode
done
for mode in streams selective keep_attention full; do same_bits lora-$mode lora-none; done
greedy "$runs/plain" > "$runs/one"
"$MOAI_BIN/moai_generate" "$runs/sinkhorn" --adapter "$runs/lora" --input_ids 5,9,11,3,50 --temperature 0 --max_new_tokens 24 --num_threads 1 \
    > "$runs/two" 2> "$runs/err" && ! cmp -s "$runs/one" "$runs/two"
check $? "and used"
run "$checkpoint" merge "$runs/sinkhorn/checkpoint-0" "$runs/lora/checkpoint-5" "$runs/merged" && [ "$(greedy "$runs/merged")" = "$(cat "$runs/two")" ]
check $? "and folded in"

refused 2 "has 4 residual streams already" "$checkpoint" import --hc_mult 2 "$runs/sinkhorn/checkpoint-0" "$runs/no"
refused 2 "hc_mult is 1, must be from 2 to 8" "$checkpoint" import --hc_mult 1 $golden/blocks "$runs/no"
refused 2 "hc_mult is 9" "$checkpoint" import --hc_mult 9 $golden/blocks "$runs/no"
refused 2 "are of another base than this one: hc_mult" "$MOAI_BIN/moai_generate" "$runs/plain" --adapter "$runs/lora" --input_ids 1
config() { sed "$1" "$runs/streams/config.json" > "$runs/model.json"; }
train_new() { "$MOAI_BIN/moai_train" --model "$runs/model.json" --data "$runs/data" --output_dir "$runs/none" --seq_length 16 --max_steps 1 --num_threads 1; }
for wrong in '"hc_mult": 4/"hc_mult": 0/hc_mult is 0' '"hc_mult": 4/"hc_mult": 9/hc_mult is 9' '"hc_sinkhorn_iters": 3/"hc_sinkhorn_iters": 0/hc_sinkhorn_iters is 0' \
    '"sinkhorn"/"softmax"/hc_mixing is' '"hc_eps": [0-9.e-]*/"hc_eps": 0/hc_eps is 0'; do
    config "s/$(echo "$wrong" | cut -d / -f 1,2)/"
    refused 2 "$(echo "$wrong" | cut -d / -f 3)" train_new
done
cp -r "$runs/streams" "$runs/three" && sed 's/"hc_mult": 4/"hc_mult": 3/' "$runs/streams/config.json" > "$runs/three/config.json"
run "$checkpoint" import "$runs/three" "$runs/no"
[ $? != 0 ] && grep -q "attn_hc.fn is 24 x 96, config.json asks for 15 x 72" "$runs/err"
check $? "tensors of another hc_mult: $(tail -n 1 "$runs/err" | cut -c 1-150)"
cp -r $golden/blocks "$runs/bare" && sed 's/"head_dim"/"hc_mult": 2, "head_dim"/' $golden/blocks/config.json > "$runs/bare/config.json"
run "$checkpoint" import "$runs/bare" "$runs/no"
[ $? != 0 ] && grep -q "attn_hc" "$runs/err"
check $? "or none: $(tail -n 1 "$runs/err" | cut -c 1-150)"
model small 2 4 2
sed 's/"rms_norm_eps"/"hc_mult": 2, &/' "$runs/small.json" > "$runs/two.json"
data corpus 60
steps=5 layout first 1 --batch_size 8
run "$MOAI_BIN/moai_train" --model "$runs/two.json" --data "$runs/corpus" --output_dir "$runs/first" --seq_length 29 --global_batch_size 8 \
    --max_steps 9 --num_threads 1 --resume_from_checkpoint auto
[ $? = 2 ] && grep -q "hc_mult is" "$runs/err"
check $? "a checkpoint of another hc_mult: $(grep hc_mult "$runs/err" | cut -c 1-150)"
done_testing
