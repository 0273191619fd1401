#!/bin/sh
# t9-chat.sh: a model tuned on a few conversations answers them: from a file of messages, one a line, and in talk, on one
# and two ranks, stopping at the template's end; what cannot be answered is refused.
. tests/lib/small.sh
shown="$dir/out $dir/err"
generate=$MOAI_BIN/moai_generate golden=tests/golden/bpe
mkdir "$dir/tok" && cp $golden/*.json "$dir/tok" && rm -f "$dir/tok/texts.json"
printf '%s' "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" \
    > "$dir/tok/chat_template.jinja"
turn() { printf '{"role": "%s", "content": "%s"}' "$1" "$2"; }
i=0
while [ $i -lt 12 ]; do
    i=$((i + 1))
    echo "{\"messages\": [$(turn user "name a bird"), $(turn assistant "a 世界 wren")]}"
    echo "{\"messages\": [$(turn user "name a bird"), $(turn assistant "a 世界 wren"), $(turn user "another"), $(turn assistant "the café rook")]}"
    echo "{\"messages\": [$(turn system "shout"), $(turn user "name a bird"), $(turn assistant "WREN")]}"
done > "$dir/talk.jsonl"
sed 's/"vocab_size": 97/"vocab_size": 910/; s/"max_position_embeddings": 64/"max_position_embeddings": 128/; s/"hidden_size": 24/"hidden_size": 48/' \
    "$dir/model.json" > "$dir/bpe.json"
"$MOAI_BIN/moai_tokenize" chat --tokenizer "$dir/tok/tokenizer.json" --input "$dir/talk.jsonl" --output "$dir/set" --no_progress > "$dir/out" 2> "$dir/err" &&
    "$MOAI_BIN/moai_train" --model "$dir/bpe.json" --data "$dir/set" --output_dir "$dir/run" --mode sft --seq_length 128 --num_threads 1 --batch_size 4 \
        --max_steps 150 --learning_rate 1e-2 --no_tensorboard --logging_steps 50 >> "$dir/out" 2>> "$dir/err"
check $? "a model learns three conversations: $(grep '^step 150' "$dir/out")"
[ -e "$dir/run/checkpoint-150/chat_template.jinja" ]
check $? "its checkpoint has the template"
ask() { timeout 60 "$generate" "$dir/run" --temperature 0 --num_threads 1 --max_new_tokens 30 "$@" 2> "$dir/err"; }
same() { [ "$1" = "$2" ]; check $? "$3: $1"; }
cat > "$dir/one.json" << END
{"messages": [
    $(turn user "name a bird")
]}
END
same "$(ask --messages "$dir/one.json")" "a 世界 wren" "one conversation of a file"
echo "[$(turn user "name a bird"), $(turn assistant "a 世界 wren"), $(turn user "another")]" > "$dir/list.json"
same "$(ask --messages "$dir/list.json")" "the café rook" "a list of messages, to go on from"
{ tr -d '\n' < "$dir/one.json"; echo; echo "{\"messages\": [$(turn system "shout"), $(turn user "name a bird")]}"; } > "$dir/two.jsonl"
same "$(ask --messages "$dir/two.jsonl" --jsonl | sed 's/.*"text":"\([^"]*\)".*"finish":"\([a-z]*\)".*/\1 \2/' | sort | tr '\n' ,)" "WREN stop,a 世界 wren stop," \
    "two of a file's lines, each ended by the template's end"
talk() { printf 'name a bird\n\nanother\n/new\nname a bird\n/exit\nnot this\n'; }
said="a 世界 wren,the café rook,a 世界 wren,"
same "$(talk | ask --chat | tr '\n' ,)" "$said" "talk, and begun anew"
same "$(talk | mpirun -np 2 timeout 60 "$generate" "$dir/run" --temperature 0 --num_threads 1 --max_new_tokens 30 --chat 2> "$dir/err" | tr '\n' ,)" "$said" \
    "on two ranks"
same "$(echo 'name a bird' | ask --chat --system shout)" "WREN" "with a system turn, to the end of the input"
i=0
while [ $i -lt 20 ]; do i=$((i + 1)); printf 'another '; done > "$dir/long"
{ cat "$dir/long"; echo; echo "name a bird"; } | ask --chat > "$dir/out"
grep -q "/new begins another" "$dir/err" && [ "$(cat "$dir/out")" = "a 世界 wren" ]
check $? "a conversation that is too long is said, and another begins: $(grep 'begins another' "$dir/err")"

refuse() {
    what=$1
    shift
    ask "$@" > "$dir/out" < /dev/null
    [ $? = 2 ] && grep -q -- "$what" "$dir/err"
    check $? "$what: $(grep moai "$dir/err" | tail -n 1)"
}
echo "{\"messages\": [$(turn user a), $(turn assistant b)]}" > "$dir/bad.json"
refuse "bad.json: the last message is of role assistant: there is nothing to answer" --messages "$dir/bad.json"
echo '{"messages": []}' > "$dir/bad.json"
refuse "bad.json: a conversation without a message" --messages "$dir/bad.json"
{ cat "$dir/two.jsonl"; echo '{"messages": [{"role": "bard"}]}'; } > "$dir/bad.jsonl"
refuse 'bad.jsonl:3: unknown role "bard"' --messages "$dir/bad.jsonl"
refuse "more than one of" --messages "$dir/one.json" --chat
refuse "chat_template is for" --prompt a --chat_template chatml
refuse "--messages .*missing.json: No such file" --messages "$dir/missing.json"
rm "$dir/run/checkpoint-150/chat_template.jinja" "$dir/run/checkpoint-150/tokenizer_config.json"
refuse "has no chat template beside it" --messages "$dir/one.json"
same "$(ask --messages "$dir/one.json" --chat_template chatml)" "a 世界 wren" "but by its name"
done_testing
