#!/bin/sh
# t8-adapter.sh: PEFT's adapters in and out: generated from beside their base, imported, trained on, exported, merged; and
# what cannot be taken is refused by its name.
# needs: perl:JSON::PP
set -u
export OMP_NUM_THREADS=1
dir=$TMPDIR golden=tests/golden
. tests/lib/check.sh
shown="$dir/out $dir/err"
checkpoint() { timeout 60 "$MOAI_BIN/moai_checkpoint" "$@" > "$dir/out" 2> "$dir/err"; }
# logits NAME RANKS WORDS: of the first golden sequence, into NAME
logits() {
    to=$1 ranks=$2
    shift 2
    start=
    [ "$ranks" = 1 ] || start="mpirun -np $ranks"
    # shellcheck disable=SC2086
    timeout 60 $start "$MOAI_BIN/moai_generate" "$@" --input_ids "$ids" --logits_out "$dir/$to" --num_threads 1 > "$dir/out" 2> "$dir/err"
}
near() { perl tests/lib/logits.pl compare "$results" "$dir/$1"; }

for name in lora-all lora-some; do
    [ $name = lora-all ] && base=$golden/gqa7 || base=$golden/linear
    results=$golden/$name/results.safetensors
    ids=$(perl tests/lib/logits.pl ids "$results")
    logits $name 1 $base --adapter $golden/$name
    check $? "$name: logits beside the base: $(tail -n 1 "$dir/err")"
    apart=$(near $name)
    check "$(awk -v x="$apart" 'BEGIN { print !(x != "" && x < 1e-4) }')" "$name: they are PEFT's: $apart apart"
    if [ $name = lora-all ]; then
        logits $name-2 2 $base --adapter $golden/$name
        apart=$(near $name-2)
        check "$(awk -v x="$apart" 'BEGIN { print !(x != "" && x < 1e-4) }')" "$name: on two ranks: $apart apart"
    fi
    checkpoint import --base $base $golden/$name "$dir/$name-run"
    check $? "$name: imported: $(cat "$dir/out")"
    logits $name-imported 1 $base --adapter "$dir/$name-run"
    cmp -s "$dir/$name" "$dir/$name-imported"
    check $? "$name: the imported ones' logits are the same"
    checkpoint export --adapter "$dir/$name-run/checkpoint-0" "$dir/$name-peft"
    check $? "$name: exported: $(cat "$dir/out")"
    logits $name-exported 1 $base --adapter "$dir/$name-peft"
    cmp -s "$dir/$name" "$dir/$name-exported"
    check $? "$name: the exported ones' logits are the same"
    checkpoint merge $base $golden/$name "$dir/$name-merged"
    check $? "$name: merged: $(cat "$dir/out")"
    logits $name-whole 1 "$dir/$name-merged"
    apart=$(near $name-whole)
    check "$(awk -v x="$apart" 'BEGIN { print !(x != "" && x < 1e-4) }')" "$name: the merged model's logits: $apart apart"
done

results=$golden/qlora-all/results.safetensors
ids=$(perl tests/lib/logits.pl ids "$results")
for ranks in 1 2; do
    logits nf4-$ranks $ranks $golden/blocks --adapter $golden/qlora-all --quantization nf4
    apart=$(near nf4-$ranks)
    check "$(awk -v x="$apart" 'BEGIN { print !(x != "" && x < 1e-4) }')" "beside a base in 4 bits, on $ranks ranks: PEFT's and bitsandbytes' logits: $apart apart"
done

# weights that are in 4 bits in the files, as Transformers saves them, are what is quantized here
cp "$dir/nf4-1" "$dir/quantized-here"
for words in "$golden/blocks-nf4" "$golden/blocks-nf4 --quantization nf4"; do
    # shellcheck disable=SC2086
    logits stored 1 $words --adapter $golden/qlora-all
    cmp -s "$dir/stored" "$dir/quantized-here"
    check $? "$words: the same logits"
done
checkpoint export --quantization nf4 $golden/blocks "$dir/made-nf4"
check $? "a model is exported in 4 bits: $(cat "$dir/out")"
logits made 1 "$dir/made-nf4" --adapter $golden/qlora-all
cmp -s "$dir/made" "$dir/quantized-here"
check $? "with the same logits"
checkpoint export --quantization nf4 --no_double_quantization --max_shard_size 60KB $golden/blocks "$dir/split-nf4"
logits made-plain 1 "$dir/split-nf4"
logits plain 1 $golden/blocks-nf4-plain
cmp -s "$dir/made-plain" "$dir/plain" && [ -e "$dir/split-nf4/model.safetensors.index.json" ]
check $? "in several files, too, with scales in fp32"
checkpoint export --quantization nf4 "$dir/made-nf4" "$dir/twice"
[ $? = 2 ] && grep -q "in 4 bits already" "$dir/err" && [ ! -e "$dir/twice" ]
check $? "what is quantized is not quantized again: $(tail -n 1 "$dir/err")"
checkpoint export --quantization nf4 $golden/gqa7 "$dir/odd"
[ $? = 2 ] && grep -q "nf4 has blocks of 64 elements: model.layers.0" "$dir/err" && [ ! -e "$dir/odd" ]
check $? "columns that are no whole blocks are refused: $(tail -n 1 "$dir/err")"
checkpoint merge --quantization nf4 $golden/blocks $golden/qlora-all "$dir/merged-nf4" && grep -q "rounded to 4 bits anew" "$dir/err"
check $? "a merge may go to 4 bits, and says so"
checkpoint merge $golden/blocks $golden/qlora-all "$dir/merged"
checkpoint export --quantization nf4 "$dir/merged" "$dir/merged-after"
logits merged-a 1 "$dir/merged-nf4" && logits merged-b 1 "$dir/merged-after"
cmp -s "$dir/merged-a" "$dir/merged-b" && ! cmp -s "$dir/merged-a" "$dir/made"
check $? "as what is merged and then exported so"
logits plain 1 $golden/blocks-nf4-plain
logits plain-here 1 $golden/blocks --quantization nf4 --no_double_quantization
cmp -s "$dir/plain" "$dir/plain-here"
check $? "without double quantization likewise"

# an import is a run's first checkpoint
mkdir "$dir/data" && "$MOAI_BIN/tests/tools/make_tokens" "$dir/data" 67 2000 32 > /dev/null
train() {
    timeout 60 "$MOAI_BIN/moai_train" --data "$dir/data" --seq_length 32 --max_steps 2 --warmup_steps 0 --num_threads 1 --no_tensorboard \
        --global_batch_size 2 "$@" > "$dir/out" 2> "$dir/err"
}
lora="--model_name_or_path $golden/gqa7 --lora_rank 4 --lora_alpha 6"
# shellcheck disable=SC2086
train $lora --output_dir "$dir/lora-all-run" --resume_from_checkpoint auto
check $? "training goes on from it: $(grep resumed "$dir/err")"

# refused WHAT WORDS COMMAND: status 2 and the words
refused() {
    what=$1 words=$2
    shift 2
    "$@"
    status=$?
    [ $status = 2 ] && grep -q -- "$words" "$dir/err"
    check $? "$what: $(tail -n 1 "$dir/err" | cut -c1-150)"
}
cp -r $golden/blocks-nf4 "$dir/int8" && chmod -R u+w "$dir/int8"
sed -i 's/"load_in_4bit": true/"load_in_4bit": false/; s/"load_in_8bit": false/"load_in_8bit": true/' "$dir/int8/config.json"
# shellcheck disable=SC2086
refused "another rank" "lora_rank is 4 in one and 5 in the other" \
    train --model_name_or_path $golden/gqa7 --lora_rank 5 --output_dir "$dir/lora-all-run" --resume_from_checkpoint auto
cp -r $golden/gqa7 "$dir/other" && chmod -R u+w "$dir/other"
printf '\377' | dd of="$dir/other/model.safetensors" bs=1 seek=20000 conv=notrunc 2> /dev/null
refused "another base" "were trained on another base" \
    train --model_name_or_path "$dir/other" --lora_rank 4 --lora_alpha 6 --output_dir "$dir/lora-all-run" --resume_from_checkpoint auto
refused "a base of another shape" "on this base asks for" logits x 1 $golden/tied --adapter $golden/lora-all
refused "adapters alone" "moai_checkpoint merge" logits x 1 $golden/lora-all
refused "a checkpoint of adapters alone" "they need the model" logits x 1 "$dir/lora-all-run/checkpoint-2"
refused "no adapters" "holds no adapters" logits x 1 $golden/gqa7 --adapter $golden/gqa7
refused "an unknown target" 'did you mean "q_proj"' train --model_name_or_path $golden/gqa7 --lora_rank 4 --lora_target_modules q_prok --output_dir "$dir/x"
refused "no rank" "lora_rank is 0" train --model_name_or_path $golden/gqa7 --lora_alpha 4 --output_dir "$dir/x"
refused "a negative alpha" "lora_alpha" train --model_name_or_path $golden/gqa7 --lora_rank 4 --lora_alpha -1 --output_dir "$dir/x"
refused "a quantized model without adapters" "what is quantized cannot be trained" \
    train --model_name_or_path $golden/blocks --quantization nf4 --output_dir "$dir/x"
refused "a model in 8 bits" "what it asks for is not implemented" train --model_name_or_path "$dir/int8" --output_dir "$dir/x"
refused "no base" "without model_name_or_path" train --model $golden/gqa7/config.json --lora_rank 4 --output_dir "$dir/x"
refused "a base without a model" "holds no config.json" train --model_name_or_path "$dir" --output_dir "$dir/x"

# edited KEY VALUE WORDS: an adapter_config.json with another value is refused by the key
edited() {
    rm -rf "$dir/edited" && cp -r $golden/lora-all "$dir/edited" && chmod -R u+w "$dir/edited"
    perl -0pi -e "s/\"$1\": [^\n]*?(,?)\n/\"$1\": $2\$1\n/" "$dir/edited/adapter_config.json"
    refused "$1 $2" "$1" logits x 1 $golden/gqa7 --adapter "$dir/edited"
}
edited use_dora true
edited lora_bias true
edited bias '"all"'
edited rank_pattern '{"q_proj": 8}'
edited layers_to_transform '[0]'
edited peft_type '"IA3"'
edited task_type '"SEQ_CLS"'
edited init_lora_weights '"pissa"'
edited r 0
edited fan_in_fan_out true
edited modules_to_save '["score"]'
edited trainable_token_indices '[1, 2]'
done_testing
