#!/bin/sh
# The chat templates that TRL keeps of many models: Qwen's are told, those of others are refused by name.
# needs: python:trl
. tests/lib/small.sh
folder=$("$PYTHON" -c 'import os, trl; print(os.path.join(os.path.dirname(trl.__file__), "chat_templates"))')
cp tests/golden/bpe/tokenizer.json "$dir"
echo '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}' > "$dir/in.jsonl"
for file in "$folder"/*.jinja; do
    name=${file##*/} name=${name%.jinja} want=
    case $name in
        qwen3 | qwen3_training) want=qwen3 ;;
        qwen3_instruct_2507*) want=qwen3-instruct ;;
        qwen2_5 | qwen2_5_training) want=qwen2.5 ;;
    esac
    cp "$file" "$dir/chat_template.jinja"
    "$MOAI_BIN/moai_tokenize" chat --tokenizer "$dir/tokenizer.json" --input "$dir/in.jsonl" --output "$dir/$name" --no_progress > "$dir/out" 2>&1
    status=$?
    if [ "$want" ]; then
        [ $status = 0 ] && grep -q "chat: template $want;" "$dir/out"
    else
        [ $status = 2 ] && grep -q "chat_template.jinja: no chat template that is known here" "$dir/out"
    fi
    check $? "$name: $(tail -n 1 "$dir/out" | cut -c 1-120)"
done
done_testing
