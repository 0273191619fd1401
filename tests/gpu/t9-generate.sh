#!/bin/sh
# The GPU writes what the CPU writes: the most probable tokens of a trained model, alone and in a batch; logits as Transformers computes them.
# needs: perl:JSON::PP
. tests/gpu/gpus.sh

generate() { "$MOAI_BIN/moai_generate" "$@" --num_threads 1 2> "$runs/err"; }
# ids DIRECTORY DEVICE IDS [FLAGS]: 40 tokens after IDS, the most probable ones
ids() {
    from=$1 on=$2 prompt=$3
    shift 3
    generate "$from" --device "$on" --input_ids "$prompt" --max_new_tokens 40 --temperature 0 --ignore_eos --jsonl "$@" |
        sed -n 's/.*"ids": *\[\([0-9, ]*\)\].*/\1/p' | tr -d ' '
}
same_ids() {  # same_ids NAME A B
    [ -n "$2" ] && [ "$2" = "$3" ]
    check $? "$1: $2"
    [ "$2" = "$3" ] || echo "# $3"
    [ -n "$2" ] || sed 's/^/# /' "$runs/err"
}

steps=100
even run 1 --batch_size 8 --learning_rate 3e-3 --device cpu
for prompt in 7 7,21,3,40 900,12,12,5,44,321,8,19,77,2,2,640,33,18,250,6,41; do
    here=$(ids "$runs/run" cpu $prompt)
    same_ids "fp32 after $prompt" "$(ids "$runs/run" "$device" $prompt)" "$here"
    three=$(ids "$runs/run" "$device" $prompt --num_return_sequences 3)
    same_ids "three at once" "$(echo "$three" | sort -u)" "$here"
done

# logits as the golden files have them
for name in gqa7 tied linear dynamic yarn long; do
    golden=tests/golden/$name
    generate $golden --device "$device" --input_ids "$(tests/lib/logits.pl ids $golden/results.safetensors)" --logits_out "$runs/logits"
    worst=$(tests/lib/logits.pl compare $golden/results.safetensors "$runs/logits" 2>> "$runs/err")
    awk "BEGIN {exit !(\"$worst\" != \"\" && \"$worst\" + 0 < 1e-4)}"
    check $? "$name: logits differ from Transformers' by $worst, allowed 1e-4"
done
done_testing
