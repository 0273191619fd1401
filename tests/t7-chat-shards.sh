#!/bin/sh
# t7-chat-shards.sh: moai_tokenize chat: conversations in all shapes to marked shards, the same bytes on any number of
# ranks; what is left out is counted; what is none is named; and moai_train --mode sft tunes on them.
# needs: mpirun zstd
. tests/lib/small.sh
tokenize=$MOAI_BIN/moai_tokenize golden=tests/golden/bpe
mkdir "$dir/in"
i=0
while [ $i -lt 200 ]; do
    i=$((i + 1))
    cat << LINES
{"messages": [{"role": "user", "content": "What is $i plus $i?"}, {"role": "assistant", "content": "It is $((i + i)).", "reasoning_content": "twice"}]}
{"system": "Be brief $i.", "conversations": [{"from": "human", "value": "é $i"}, {"from": "gpt", "value": "世界"}, {"from": "human", "value": "more"}, {"from": "gpt", "value": "no"}]}
{"instruction": "Double", "input": "$i", "output": "$((2 * i))"}
{"prompt": "$i is ", "completion": "a number"}
{"text": "<|im_end|> $i"}
LINES
done > "$dir/in/a.jsonl"
zstd -q "$dir/in/a.jsonl" -o "$dir/packed.jsonl.zst"
make() {
    name=$1
    shift
    "$tokenize" chat --tokenizer $golden/tokenizer.json --output "$dir/$name" --no_progress --shard_tokens 6000 "$@" > "$dir/out" 2>&1
}
make one --chat_template qwen3 --input "$dir/in/a.jsonl" --num_threads 1
check $? "five shapes in one file"
grep -q "chat: template qwen3; [0-9]* trained tokens" "$dir/out"; check $? "the template and what is trained are said"
"$tokenize" audit "$dir/one" > "$dir/out" 2>&1; check $? "audit: $(tail -n 1 "$dir/out")"
grep -q "in 1000 documents" "$dir/out"; check $? "each is an example"
make packed --chat_template qwen3 --input "$dir/packed.jsonl.zst" --num_threads 3 && cmp -s "$dir/one/manifest.json" "$dir/packed/manifest.json"
check $? "the same out of a packed file, by three threads"
mpirun -np 3 "$tokenize" chat --tokenizer $golden/tokenizer.json --chat_template qwen3 --input "$dir/in" --output "$dir/ranks" --no_progress \
    --shard_tokens 6000 --num_threads 1 > "$dir/out" 2>&1 && cmp -s "$dir/one/manifest.json" "$dir/ranks/manifest.json"
check $? "and out of a directory, by three ranks"
"$tokenize" inspect "$dir/one" > "$dir/out" 2>&1
grep -q 'example 0, what is trained in {+ +}: <|im_start|>user\\nWhat is 1 plus 1?<|im_end|>\\n<|im_start|>assistant\\n{+<think>\\ntwice\\n</think>\\n\\nIt is 2.<|im_end|>\\n+}' \
    "$dir/out"
check $? "inspect shows one, its trained part marked"

make short --chat_template qwen3 --input "$dir/in" --seq_length 40 && grep -q "400 examples of more than 41 tokens (--seq_length) were left out" "$dir/out"
check $? "those that are too long are left out and counted"
make cut --chat_template qwen3 --input "$dir/in" --seq_length 12 --truncate && grep -q "examples were cut to 13 tokens" "$dir/out" &&
    grep -q "examples without a trained token were left out" "$dir/out"
check $? "or cut, where something trained is left: $(grep -c warning "$dir/out") warnings"
make other --chat_template chatml --input "$dir/in" && grep -q "the reasoning of 200 answers was left out: the template chatml has no place" "$dir/out"
check $? "reasoning that has no place is said"
make last --chat_template qwen3 --input "$dir/in" --last_turn_only --no_train_newline && make all --chat_template qwen3 --input "$dir/in" --train_on_prompt
check $? "the last answer alone, without the newline; all tokens"
trained() { sed -n 's/.*"counted": \([0-9]*\).*/\1/p' "$dir/$1/manifest.json" | awk '{ n += $1 } END { print n }'; }
[ "$(trained last)" -lt "$(trained one)" ] && [ "$(trained one)" -lt "$(trained all)" ]
check $? "$(trained last), $(trained one) and $(trained all) trained tokens"
echo '{"messages": [{"role": "user", "content": "a"}]}' > "$dir/none.jsonl"
make none --chat_template qwen3 --input "$dir/none.jsonl"
[ $? = 2 ] && grep -q "no example with a trained token is left" "$dir/out" && [ ! -e "$dir/none/manifest.json" ]
check $? "a set without any is refused: $(tail -n 1 "$dir/out")"

# bad WHAT LINE: the second line of a file is none
bad() {
    { echo '{"prompt": "a", "completion": "b"}'; echo "$2"; echo '{"prompt": "c", "completion": "d"}'; } > "$dir/bad.jsonl"
    make bad --chat_template chatml --input "$dir/bad.jsonl"
    [ $? = 2 ] && grep -q "bad.jsonl:2: .*$1" "$dir/out" && [ ! -e "$dir/bad/manifest.json" ]
    check $? "$1: $(tail -n 1 "$dir/out" | sed 's/.*bad.jsonl/bad.jsonl/')"
}
bad "roles out of order" '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}'
bad "unknown role" '{"messages": [{"role": "poet", "content": "a"}]}'
bad "without a message" '{"messages": []}'
bad "image_url" '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}'
bad "input_audio" '{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}'
bad "no known shape" '{"question": "a", "answer": "b"}'
make bad --chat_template chatml --input "$dir/bad.jsonl" --bad_lines skip && grep -q "1 lines of JSON were left out" "$dir/out" &&
    grep -q "left out: $dir/bad.jsonl:2: no known shape" "$dir/out"
check $? "or passed over, counted and named"
echo '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\ud83d"}]}' > "$dir/lone.jsonl"
make lone --chat_template chatml --input "$dir/lone.jsonl"
[ $? != 0 ] && grep -q "lone.jsonl:1: a lone surrogate in a string (column 83)" "$dir/out" && [ ! -e "$dir/lone/manifest.json" ]
check $? "a lone surrogate: $(tail -n 1 "$dir/out" | sed 's/.*lone.jsonl/lone.jsonl/')"
make lone --chat_template chatml --input "$dir/lone.jsonl" --invalid_utf8 replace && grep -q "1 characters .* were replaced by U+FFFD" "$dir/out"
check $? "or replaced, and counted"
make auto --input "$dir/in"
[ $? = 2 ] && grep -q "has no chat template beside it" "$dir/out"
check $? "no template: $(tail -n 1 "$dir/out" | cut -c 1-120)"
mkdir "$dir/tok" && cp $golden/tokenizer.json "$dir/tok" && echo '{{ messages }}' > "$dir/tok/chat_template.jinja"
make auto --tokenizer "$dir/tok/tokenizer.json" --input "$dir/in"
[ $? = 2 ] && grep -q "chat_template.jinja: no chat template that is known here" "$dir/out"
check $? "one that is not known: $(tail -n 1 "$dir/out" | cut -c 1-120)"
printf '%s' "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" \
    > "$dir/tok/chat_template.jinja"
make auto --tokenizer "$dir/tok/tokenizer.json" --input "$dir/in" && grep -q "chat: template chatml" "$dir/out" &&
    cmp -s "$dir/tok/chat_template.jinja" "$dir/auto/chat_template.jinja"
check $? "the tokenizer's own is found, and goes along"
cat src/*/*.h > "$dir/words.txt" && "$tokenize" train --input "$dir/words.txt" --vocab_size 400 --output "$dir/own" > "$dir/out" 2>&1
make piece --tokenizer "$dir/own.model" --input "$dir/in" && grep -q "chat: template chatml" "$dir/out"
check $? "a tokenizer of moai_tokenize train has ChatML's symbols"

sed 's/"vocab_size": 97/"vocab_size": 910/; s/"max_position_embeddings": 64/"max_position_embeddings": 128/' "$dir/model.json" > "$dir/bpe.json"
tune() {
    name=$1
    shift
    "$MOAI_BIN/moai_train" --model "$dir/bpe.json" --data "$dir/one" --output_dir "$dir/$name" --mode sft --seq_length 128 --num_threads 1 \
        --batch_size 2 --no_tensorboard --learning_rate 1e-2 --num_train_epochs 2 --warmup_ratio 0.1 --save_steps 0 --eval_steps 100 "$@" \
        > "$dir/out" 2>&1
}
tune tuned && grep -q '"trained_tokens"' "$dir/tuned/metrics.jsonl" && grep -q "^epochs .* 2 of" "$dir/out"
check $? "moai_train --mode sft: $(grep '^train ' "$dir/out")"
first=$(sed -n 's/.*"step":1,"loss":\([0-9.]*\).*/\1/p' "$dir/tuned/metrics.jsonl") last=$(sed -n 's/.*"eval_loss":\([0-9.]*\).*/\1/p' "$dir/tuned/metrics.jsonl" | tail -n 1)
awk -v a="$first" -v b="$last" 'BEGIN { exit !(a > 5 && b > 0 && b < a / 2) }'
check $? "it learns: loss $first, in the end $last on other examples"
done_testing
