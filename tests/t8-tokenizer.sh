#!/bin/sh
# t8-tokenizer.sh: a Hugging Face tokenizer.json in the place of a tokenizer.model: text is encoded by it, a model trained, saved,
# exported, imported and asked to write, and the file goes along.
. tests/lib/small.sh
golden=tests/golden/bpe
checkpoint=$MOAI_BIN/moai_checkpoint tokenize=$MOAI_BIN/moai_tokenize
i=0
while [ $i -lt 300 ]; do i=$((i + 1)); echo "Line $i: the naïve fox's $((i * 7919 % 1000)) 世界, <|im_end|> <think>."; echo; done > "$dir/text"
mpirun -np 2 "$tokenize" encode --tokenizer $golden/tokenizer.json --input "$dir/text" --document_separator blank_line --output "$dir/set" \
    --no_progress > "$dir/out" 2>&1
check $? "text is encoded by a tokenizer.json"
cmp -s $golden/tokenizer.json "$dir/set/tokenizer.json" && cmp -s $golden/tokenizer_config.json "$dir/set/tokenizer_config.json"
check $? "which lies beside the shards, with what says more of it"
"$tokenize" audit "$dir/set" > "$dir/out" 2>&1
check $? "audit: $(tail -n 1 "$dir/out")"
grep -q "eos 900," "$dir/out" && grep -q "naïve fox's" "$dir/out" && grep -q "<|im_end|> <think>" "$dir/out"
check $? "it knows the end, and shows a text, special names in it as text"
"$tokenize" encode --tokenizer $golden/tokenizer.json --input "$dir/text" --output "$dir/set" --overwrite --no_progress > "$dir/out" 2>&1 &&
    "$tokenize" encode --tokenizer $golden/tokenizer.json --input "$dir/text" --document_separator blank_line --output "$dir/set" --overwrite \
        --no_progress >> "$dir/out" 2>&1
check $? "once more, in the place of the set before"

sed 's/"vocab_size": 97/"vocab_size": 910/; s/"max_position_embeddings": 64/"max_position_embeddings": 128/' "$dir/model.json" > "$dir/bpe.json"
sed 's/"vocab_size": 97/"vocab_size": 906/' "$dir/model.json" > "$dir/few.json"
run() {
    name=$1 model=$2
    shift 2
    "$MOAI_BIN/moai_train" --model "$dir/$model.json" --data "$dir/set" --output_dir "$dir/$name" --seq_length 32 --batch_size 4 \
        --num_threads 1 --no_tensorboard --max_steps 3 --learning_rate 1e-3 "$@" > "$dir/out" 2>&1
}
run first bpe
check $? "a model is trained on it"
cmp -s $golden/tokenizer.json "$dir/first/checkpoint-3/tokenizer.json" && [ ! -e "$dir/first/checkpoint-3/tokenizer.model" ] &&
    cmp -s $golden/tokenizer_config.json "$dir/first/checkpoint-3/tokenizer_config.json"
check $? "its checkpoint has the file"
"$checkpoint" verify "$dir/first" > "$dir/out" 2>&1
check $? "and verifies"
run few few
[ $? = 2 ] && grep -q "vocab_size 907, more than the model's 906" "$dir/out"
check $? "a model with fewer rows than tokens is refused: $(tail -n 1 "$dir/out")"
write() { "$MOAI_BIN/moai_generate" "$@" --prompt "the naïve 世" --temperature 0 --max_new_tokens 40 --num_threads 1 2> "$dir/err"; }
write "$dir/first" > "$dir/one" && iconv -f UTF-8 -t UTF-8 "$dir/one" > "$dir/well" && [ -s "$dir/well" ]
check $? "it writes UTF-8"
"$checkpoint" export "$dir/first/checkpoint-3" "$dir/hf" > "$dir/out" 2>&1 && cmp -s $golden/tokenizer.json "$dir/hf/tokenizer.json" &&
    [ ! -e "$dir/hf/tokenizer.model" ] && grep -q '"eos_token_id": 900' "$dir/hf/generation_config.json"
check $? "its export has the file, and the end"
write "$dir/hf" > "$dir/two" && cmp -s "$dir/one" "$dir/two"
check $? "and writes the same"
"$checkpoint" import "$dir/hf" "$dir/back" > "$dir/out" 2>&1 && write "$dir/back" > "$dir/two" && cmp -s "$dir/one" "$dir/two"
check $? "so does its import"
run more bpe --model_name_or_path "$dir/hf" --lora_rank 2
check $? "and adapters are trained on that"
sed 's/"special":true/"special":false/' "$dir/hf/tokenizer.json" > "$dir/changed" && mv "$dir/changed" "$dir/hf/tokenizer.json"
run other bpe --model_name_or_path "$dir/hf" --lora_rank 2
[ $? = 2 ] && grep -q "model_name_or_path $dir/hf knows the tokens of tokenizer" "$dir/out"
check $? "but on data of its own tokenizer alone"
sed -i 's/"NFC"/"NFKD"/' "$dir/hf/tokenizer.json"
write "$dir/hf" > "$dir/two"
[ $? = 2 ] && grep -q 'a normalizer of type "NFKD"; NFC is supported, or none: give --tokenizer' "$dir/err"
check $? "what is not read is named: $(tail -n 1 "$dir/err")"
"$tokenize" encode --tokenizer "$dir/hf/tokenizer.json" --input "$dir/text" --output "$dir/none" --no_progress > "$dir/out" 2>&1
[ $? = 2 ] && [ ! -e "$dir/none/manifest.json" ]
check $? "status 2, and nothing is written"
done_testing
