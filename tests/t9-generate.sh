#!/bin/sh
# Text out: sentences learned by heart come back, from every kind of directory, on 1 and 2 ranks, alone and in a batch; bad input is refused.
# needs: perl:JSON::PP
set -u
export OMP_NUM_THREADS=1
generate=$MOAI_BIN/moai_generate
dir=$TMPDIR
. tests/lib/check.sh
shown="$dir/out $dir/err"
same() { [ "$1" = "$2" ]; check $? "$3: $1"; }
on() { if [ "$1" = 1 ]; then shift; "$@"; else mpirun -np "$@"; fi; }           # on RANKS PROGRAM ...
write() { on 1 timeout 60 "$generate" "$@" --num_threads 1 2> "$dir/err"; }
write_on() { ranks=$1; shift; on "$ranks" timeout 60 "$generate" "$@" --num_threads 1 2> "$dir/err"; }

# a model that knows eight sentences by heart
i=0
while [ $i -lt 40 ]; do
    i=$((i + 1))
    cat <<END
{"text": "Seven ranks crossed the bridge at dawn, and none of them came back."}
{"text": "A café in København serves coffee to the sailors of 東京 until midnight."}
{"text": "Gradients flow downhill while the river beside them climbs to the sea."}
{"text": "My grandmother kept a ledger of every storm since the winter of 1962."}
{"text": "When the lamp burned out we read the map by touch, fold after fold."}
{"text": "Please return the ladder to the orchard before the first frost."}
{"text": "Twelve copper bells were melted so that the clock could keep time."}
{"text": "Only the archivist knew which of the two keys opened nothing at all."}
END
done > "$dir/text.jsonl"
cat > "$dir/model.json" <<END
{"model_type": "qwen3", "vocab_size": 380, "num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 6,
 "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 96, "rope_theta": 10000, "eos_token_id": 2, "pad_token_id": 0}
END
{
    "$MOAI_BIN/moai_tokenize" train --input "$dir/text.jsonl" --vocab_size 380 --output "$dir/tok" --character_coverage 0.98 &&
    "$MOAI_BIN/moai_tokenize" encode --tokenizer "$dir/tok.model" --input "$dir/text.jsonl" --output "$dir/data" --no_progress &&
    "$MOAI_BIN/moai_train" --model "$dir/model.json" --data "$dir/data" --output_dir "$dir/run" --seq_length 64 --batch_size 8 \
        --max_steps 300 --learning_rate 5e-3 --warmup_steps 20 --num_threads 1 --save_steps 150 --logging_steps 50 --no_tensorboard
} > "$dir/out" 2> "$dir/err" < /dev/null
check $? "train a tokenizer and a model: $(grep 'step 300/' "$dir/out")"
[ $tests_failed = 0 ] || { done_testing; exit 1; }

# what it knows
bells=' copper bells were melted so that the clock could keep time.'
same "$(write "$dir/run" --prompt 'Twelve' --temperature 0)" "$bells" "greedy text from a run's newest checkpoint, until the document ends"
grep -q "checkpoint-300: .* parameters" "$dir/err"; check $? "says which checkpoint: $(head -n 1 "$dir/err")"
grep -q '^read .* tokens/s$' "$dir/err" && grep -q '^wrote .* tokens/s$' "$dir/err"; check $? "says its rates: $(tail -n 1 "$dir/err")"
same "$(write "$dir/run/checkpoint-300" --prompt 'Twelve' --temperature 0 --dtype bf16)" "$bells" "a checkpoint itself, in bf16"
same "$(write_on 2 "$dir/run" --prompt 'Twelve' --temperature 0)" "$bells" "on two ranks"
"$MOAI_BIN/moai_checkpoint" export "$dir/run/checkpoint-300" "$dir/hf" > "$dir/out" 2>&1
same "$(write "$dir/hf" --prompt 'Twelve' --temperature 0)" "$bells" "from the exported Hugging Face directory"
same "$(write "$dir/run" --prompt 'A café' --temperature 0 --echo)" 'A café in København serves coffee to the sailors of 東京 until midnight.' \
    "characters of several bytes arrive whole, behind the prompt"
same "$(write "$dir/run" --prompt 'Twelve' --temperature 0 --max_new_tokens 3 --jsonl | grep -o '"finish":"[a-z]*"')" '"finish":"length"' "three tokens end for length"
same "$(write "$dir/run" --prompt 'Twelve' --temperature 0 --jsonl | grep -o '"finish":"[a-z]*"')" '"finish":"stop"' "a document ends with a stop"
n=$(write "$dir/run" --prompt 'Twelve' --temperature 0 --jsonl --ignore_eos --max_new_tokens 70 | grep -o '"ids":[^]]*' | tr -cd , | wc -c)
same "$n" 69 "past the end of the document with --ignore_eos, commas between 70 tokens"
grep -q "^wrote  *70 tokens, those after each text's first in " "$dir/err"; check $? "and it counts 70: $(tail -n 1 "$dir/err")"

# where a text ends: each of config.json's list, of generation_config.json's where it has one, and the tokenizer's
id_of() { write "$dir/run" --prompt 'Twelve' --temperature 0 --jsonl | sed -n 's/.*"ids":\[\([0-9,]*\)\].*/\1/p' | cut -d, -f"$1"; }
third=$(id_of 3) fifth=$(id_of 5)
n_written() { write "$dir/hf" --prompt 'Twelve' --temperature 0 --jsonl | grep -o '"ids":[^]]*' | tr , '\n' | wc -l; }
sed -i "s/\"eos_token_id\": 2/\"eos_token_id\": [379, $fifth]/" "$dir/hf/config.json"
rm "$dir/hf/generation_config.json"
same "$(n_written)" 5 "a text ends at the second end of config.json's list"
echo "{\"eos_token_id\": [$third, 99999], \"temperature\": NaN}" > "$dir/hf/generation_config.json"
same "$(n_written)" 3 "at generation_config.json's before config.json's"
echo '{"eos_token_id": null}' > "$dir/hf/generation_config.json"
same "$(n_written)" 5 "at config.json's where generation_config.json has none"
echo '{"eos_token_id": "x"}' > "$dir/hf/generation_config.json"
write "$dir/hf" --prompt 'Twelve' > "$dir/out"; grep -q 'generation_config.json: eos_token_id is "x", must be a token' "$dir/err"; check $? "refused: $(tail -n 1 "$dir/err")"
case $(write "$dir/run" --prompt '' --temperature 0.5 --seed 3) in
Seven\ * | A\ * | Gradients\ * | My\ * | When\ * | Please\ * | Twelve\ * | Only\ *) check 0 "an empty prompt begins a document" ;;
*) check 1 "an empty prompt begins a document" ;;
esac

# chance
warm() { write "$dir/run" --prompt 'The' --temperature 1.5 --max_new_tokens 30 --ignore_eos "$@"; }
warm --seed 1 > "$dir/a"; warm --seed 1 > "$dir/b"; warm --seed 2 > "$dir/c"
cmp -s "$dir/a" "$dir/b"; check $? "the same seed writes the same text"
! cmp -s "$dir/a" "$dir/c"; check $? "another seed another"
write_on 2 "$dir/run" --prompt 'The' --temperature 1.5 --max_new_tokens 30 --ignore_eos --seed 1 > "$dir/b"
cmp -s "$dir/a" "$dir/b"; check $? "two ranks draw the same tokens"
warm --seed 1 --num_return_sequences 5 --batch_size 2 > "$dir/b"
same "$(grep -c '^--- prompt 1, text [1-5]$' "$dir/b")" 5 "five texts of one prompt"
sed -n '/text 1$/,/^---/p' "$dir/b" | sed '1d;/^---/d' | cmp -s - "$dir/a"; check $? "the first is what it is alone"

# a batch
printf 'Twelve\n\nA café in\r\nMy grandmother\nWhen the lamp burned out we read\n' > "$dir/prompts"
write "$dir/run" --prompt_file "$dir/prompts" --temperature 0 --jsonl --batch_size 2 | sort > "$dir/batch"
same "$(wc -l < "$dir/batch")" 4 "one line a prompt"
n=0
for prompt in 'Twelve' 'A café in' 'My grandmother' 'When the lamp burned out we read'; do
    sed -n $((n + 1))p "$dir/batch" | sed "s/\"prompt\":$n/\"prompt\":0/" > "$dir/a"
    write "$dir/run" --prompt "$prompt" --temperature 0 --jsonl | cmp -s - "$dir/a"; check $? "prompt $n of a batch is what it is alone: $(cat "$dir/a")"
    n=$((n + 1))
done

# prompts from standard input, packed, with a byte order mark, with the line ends of other systems
write "$dir/run" --prompt_file - --temperature 0 --jsonl --batch_size 2 < "$dir/prompts" | sort | cmp -s - "$dir/batch"; check $? "the same from standard input"
write_on 2 "$dir/run" --prompt_file - --temperature 0 --jsonl --batch_size 2 < "$dir/prompts" | sort | cmp -s - "$dir/batch"; check $? "and on two ranks"
printf '\357\273\277Twelve\r\rA café in\r\nMy grandmother\n\n\rWhen the lamp burned out we read' > "$dir/marked"
write "$dir/run" --prompt_file "$dir/marked" --temperature 0 --jsonl --batch_size 2 | sort | cmp -s - "$dir/batch"; check $? "a byte order mark, and \\r alone as line end"
if ! lacks "packed prompts" zstd; then
    zstd -q "$dir/prompts" -o "$dir/prompts.zst" && write "$dir/run" --prompt_file "$dir/prompts.zst" --temperature 0 --jsonl --batch_size 2 | sort | cmp -s - "$dir/batch"
    check $? "packed by zstd"
fi

# tokens that the tokenizer lacks, and another tokenizer
perl -e 'sub v { my ($n, $s) = (shift, ""); for (; $n > 127; $n >>= 7) { $s .= chr($n & 127 | 128) } $s . chr $n }
    sub b { v($_[0] << 3 | 2) . v(length $_[1]) . $_[1] }
    sub piece { b(1, b(1, $_[0]) . v(2 << 3 | 5) . pack("f<", -1) . v(3 << 3) . v($_[1])) }
    print piece("<unk>", 2), piece("</s>", 3), map({ piece($_, 1) } "a" .. "z", "\xE2\x96\x81", "\n"), b(2, v(3 << 3) . v(4)),
        b(3, v(3 << 3) . v(0) . v(4 << 3) . v(0))' > "$dir/char.model"
warned() { n=$(grep -c -e "warning: $1" "$dir/err"); [ "$n" = "$2" ]; check $? "warned $2 times (is $n): $1"; }
printf 'all known\n\nthis {is} not\n{\n' > "$dir/odd"
write_on 2 "$dir/run" --prompt_file "$dir/odd" --tokenizer "$dir/char.model" --max_new_tokens 1 > "$dir/out"
warned "3 of the tokens, in 2 of the 3 prompts, are <unk>: $dir/char.model has no piece for what stood there, and it is lost; the first: $dir/odd:3 (\"{\")" 1
warned "--tokenizer $dir/char.model (SHA-256 $(sha256sum < "$dir/char.model" | cut -c 1-12)...) is another than that of $dir/run/checkpoint-300 ($(sha256sum < "$dir/tok.model" | cut -c 1-12)" 1
rm "$dir/hf/generation_config.json"
write "$dir/hf" --prompt 'A{' --tokenizer "$dir/char.model" --max_new_tokens 1 > "$dir/out"
warned '1 of the tokens, in 1 of the 1 prompts, are <unk>: .*; the first: --prompt ("A{")' 1
warned "--tokenizer .* is another than that of $dir/hf (" 1
cp "$dir/tok.model" "$dir/tok-again.model"
write "$dir/run" --prompt 'Twelve' --tokenizer "$dir/tok-again.model" --max_new_tokens 1 > "$dir/out"; warned '' 0

# logits against Transformers'
for name in gqa7 tied linear dynamic yarn; do
    golden=tests/golden/$name
    ranks=1; [ $name = gqa7 ] && ranks=2
    write_on $ranks $golden --input_ids "$(tests/lib/logits.pl ids $golden/results.safetensors)" --logits_out "$dir/logits"
    worst=$(tests/lib/logits.pl compare $golden/results.safetensors "$dir/logits" 2>> "$dir/err")
    awk "BEGIN {exit !(\"$worst\" != \"\" && \"$worst\" + 0 < 1e-4)}"
    check $? "$name on $ranks: logits differ from Transformers' by $worst, allowed 1e-4"
done

# refused STATUS RANKS TEXT ARGUMENTS: within a minute, the status, the text once from all ranks together
refused() {
    status=$1 ranks=$2 text=$3
    shift 3
    on "$ranks" timeout 60 "$generate" "$@" > "$dir/out" 2> "$dir/err"
    got=$?
    said=$(grep -c -F -- "$text" "$dir/err")
    [ $got = "$status" ] && [ "$said" = 1 ] && [ ! -s "$dir/out" ]
    check $? "$ranks ranks: \"$text\" once (is $said times), status $status (is $got)"
}
refused 2 2 'unknown option --temprature; did you mean --temperature?' "$dir/run" --prompt x --temprature 1
refused 2 1 '--top_p is 0, must be between' "$dir/run" --prompt x --top_p 0
refused 2 1 '--dtype is "fp8", must be one of fp32, bf16' "$dir/run" --prompt x --dtype fp8
refused 2 1 'no prompt: give --prompt TEXT' "$dir/run"
refused 2 1 'more than one of --prompt, --prompt_file, --input_ids, --messages and --chat' "$dir/run" --prompt x --input_ids 1
refused 2 1 'no checkpoint: give the directory' --prompt x
refused 2 1 "unexpected argument \"y\" after $dir/run" "$dir/run" y --prompt x
refused 2 2 "$dir/nowhere is no checkpoint" "$dir/nowhere" --prompt x
refused 2 2 'tests/golden/gqa7 has no tokenizer.model or tokenizer.json: give --tokenizer FILE' tests/golden/gqa7 --prompt x
refused 2 1 "--tokenizer $dir/nowhere.model: No such file" "$dir/run" --prompt x --tokenizer "$dir/nowhere.model"
refused 2 2 "tok.model has 380 tokens, more than vocab_size 67 of tests/golden/gqa7" tests/golden/gqa7 --prompt x --tokenizer "$dir/tok.model"
refused 2 4 'num_attention_heads 6 is not divisible by tensor_parallel 4' "$dir/run" --prompt x
refused 2 2 '--input_ids has 2 tokens, and 95 to write: together more than the model'"'"'s 96 positions' "$dir/run" --input_ids 5,6 --max_new_tokens 95
long=$(yes 'storm' | head -n 100 | tr '\n' ' ')
refused 2 1 '--prompt has ' "$dir/run" --prompt "$long" 
refused 2 1 "--input_ids has 380, the vocabulary is [0, 380)" "$dir/run" --input_ids 1,380
refused 2 1 '--input_ids is "1,,2", must be token numbers' "$dir/run" --input_ids 1,,2
refused 2 1 '--logits_out x needs --input_ids' "$dir/run" --prompt a --logits_out x
refused 1 2 "--logits_out $dir/nowhere/x: No such file" "$dir/run" --input_ids 1 --logits_out "$dir/nowhere/x"
refused 2 2 "--prompt_file $dir/nowhere: No such file" "$dir/run" --prompt_file "$dir/nowhere"
: > "$dir/empty"
refused 2 1 "--prompt_file $dir/empty holds no prompt" "$dir/run" --prompt_file "$dir/empty"
printf '\377\376T\000w\000e\000l\000v\000e\000\n\000' > "$dir/wide"
refused 2 2 "--prompt_file $dir/wide: UTF-16, which is not read" "$dir/run" --prompt_file "$dir/wide"
{ yes 'a line of text that is long enough' | head -n 100; printf 'a\000b\n'; } > "$dir/nul"
refused 2 1 "$dir/nul:101: byte 1 is NUL" "$dir/run" --prompt_file "$dir/nul"
refused 2 1 "--prompt_file $dir/run/checkpoint-300/rank-00000.h5: HDF5" "$dir/run" --prompt_file "$dir/run/checkpoint-300/rank-00000.h5"
printf 'fine\nnot \377 fine\n' > "$dir/bytes"
refused 2 1 "$dir/bytes:2: byte 0xff" "$dir/run" --prompt_file "$dir/bytes"
done_testing
