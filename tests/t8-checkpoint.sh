#!/bin/sh
# moai_checkpoint from the command line, and what h5dump, h5py and a JSON reader see in what it and moai_train write.
# needs: perl:JSON::PP
. tests/lib/layouts.sh
checkpoint=$MOAI_BIN/moai_checkpoint

# says STATUS WORDS COMMAND...: ends with the status and says the words
says() {
    want=$1 words=$2
    shift 2
    timeout 60 "$@" > "$runs/out" 2>&1
    got=$?
    [ $got = "$want" ] && grep -q -e "$words" "$runs/out"
    check $? "status $got: $(grep -m 1 -e "$words" "$runs/out" || head -n 1 "$runs/out")"
}
# json FILE EXPRESSION: a Perl expression over the decoded file, $j
json() { [ -s "$1" ] && perl -MJSON::PP -0777 -ne 'BEGIN { $e = shift } $j = decode_json $_; exit !eval $e' "$2" "$1"; }

data corpus 64
model small 3 14 2
model tied 3 4 4 true
steps=4
layout run 4 --tensor_parallel 2 --data_parallel 2 --save_steps 2
use_model=tied
layout tied-run 4 --tensor_parallel 2 --pipeline_parallel 2
saved=$runs/run/checkpoint-4

says 0 ' 4 .* TP2 CP1 DP2 PP1 .*checkpoint-4$' "$checkpoint" ls "$runs/run"
mkdir "$runs/run/checkpoint-6.tmp"
says 0 'incomplete .*checkpoint-6.tmp: not a checkpoint' "$checkpoint" ls "$runs/run"
says 0 'checkpoint-2: complete and undamaged' "$checkpoint" verify "$saved" "$runs/run/checkpoint-2"
says 0 'checkpoint-4: complete and undamaged' "$checkpoint" verify "$runs/run"
says 0 'checkpoint-4: complete and undamaged' mpirun -np 3 "$checkpoint" verify "$runs/run"
[ "$(grep -c undamaged "$runs/out")" = 2 ]; check $? "three ranks say it once of each"
cp "$saved/manifest.json" "$runs/run/checkpoint-6.tmp"
says 0 'checkpoint-4: complete and undamaged' "$checkpoint" verify "$runs/run"
! grep -q FAULT "$runs/out"; check $? "one that is half removed is none"

lacks "h5dump shows a piece" h5dump || {
    h5dump -H -d /exp_avg/model.layers.1.mlp.up_proj.weight/0 "$saved/rank-00001.h5" > "$runs/out" 2>&1
    status=$?
    for word in H5T_IEEE_F32LE global_shape offset xxh3; do grep -q $word "$runs/out" || status=1; done
    check $status "h5dump shows a piece and its attributes"
}
lacks "h5py puts tensors together from their pieces" python:h5py || {
    pieces=$("$PYTHON" tests/tools/h5_pieces.py "$saved" 2>&1)
    [ "${pieces% *}" = $(((3 * 11 + 3) * 3)) ]
    check $? "h5py puts every tensor together from the pieces: $pieces"
    pieces=$("$PYTHON" tests/tools/h5_pieces.py "$runs/tied-run/checkpoint-4" 2>&1)
    [ "${pieces% *}" = $(((3 * 11 + 2) * 3)) ]
    check $? "a tied embedding is there once: $pieces"
}

says 2 '/run is no checkpoint; the newest in it is .*run/checkpoint-4$' "$checkpoint" export "$runs/run" "$runs/hf"

cat src/model/layer.c src/model/model.c > "$runs/text.txt"
"$MOAI_BIN/moai_tokenize" train --input "$runs/text.txt" --vocab_size 400 --output "$runs/tokenizer" > "$runs/log" 2>&1
"$checkpoint" export "$saved" "$runs/hf" > /dev/null
cp "$runs/tokenizer.model" "$runs/hf/tokenizer.model"
rm "$runs/hf/generation_config.json"
mkdir "$runs/hf2" "$runs/other.tmp" && echo mine > "$runs/other.tmp/file"
says 0 'exported as bfloat16' "$checkpoint" export "$runs/hf" "$runs/hf2/" --dtype=bfloat16 --max_shard_size 40kB
json "$runs/hf2/config.json" '$j->{torch_dtype} eq "bfloat16" && $j->{architectures}[0] eq "Qwen3ForCausalLM" && $j->{num_hidden_layers} == 3'
check $? "config.json says what it is"
json "$runs/hf2/model.safetensors.index.json" \
    'my %f = map { $_ => 1 } values %{$j->{weight_map}}; keys %{$j->{weight_map}} == 36 && keys %f > 2 && !grep { ! -e "'"$runs"'/hf2/$_" } keys %f'
check $? "the index names 36 tensors in files that are there"
json "$runs/hf2/generation_config.json" '$j->{eos_token_id} == 2 && !exists $j->{pad_token_id}'
check $? "generation_config.json ends where the tokenizer does, when config.json names no end"
json "$runs/hf2/tokenizer.json" 'keys %{$j->{model}{vocab}} == 400 && @{$j->{model}{merges}} > 50 && $j->{added_tokens}[0]{content} eq "<|pad|>"'
check $? "tokenizer.json has the vocabulary and the merges"
json "$runs/hf2/tokenizer_config.json" '$j->{eos_token} eq "<|endoftext|>" && $j->{pad_token} eq "<|pad|>"'
check $? "tokenizer_config.json names the special tokens"
cmp -s "$runs/tokenizer.model" "$runs/hf2/tokenizer.model"
check $? "tokenizer.model comes along"
says 0 'imported to' "$checkpoint" import "$runs/hf2" "$runs/again"
cmp -s "$runs/tokenizer.model" "$runs/again/checkpoint-0/tokenizer.model"
check $? "into the checkpoint too"
says 0 'checkpoint-0: complete and undamaged' "$checkpoint" verify "$runs/again"

cp -r "$saved" "$runs/bad"
perl -e 'open F, "+<", $ARGV[0]; seek F, -s $ARGV[0] >> 1, 0; read F, $b, 1; seek F, -1, 1; print F chr(ord($b) ^ 1)' "$runs/bad/rank-00003.h5"
says 1 'FAULT .*rank-00003.h5: ' "$checkpoint" verify "$runs/bad"
says 1 'FAULT .*rank-00003.h5: ' mpirun -np 3 "$checkpoint" verify "$runs/bad"
[ "$(grep -c FAULT "$runs/out")" = 1 ] && grep -q 'bad: 1 faults' "$runs/out"; check $? "one of three ranks finds it"
rm "$runs/bad/rank-00002.h5"
says 1 'FAULT .*rank-00002.h5: missing' "$checkpoint" verify "$runs/bad"
says 1 'rank-00002.h5: missing' "$checkpoint" export "$runs/bad" "$runs/none"
rm "$runs/bad/manifest.json"
says 1 'not a checkpoint' "$checkpoint" verify "$runs/bad"
says 1 'no-such: No such file' "$checkpoint" ls "$runs/no-such"
says 2 'no-such is no checkpoint, holds none' "$checkpoint" export "$runs/no-such" "$runs/none"
says 1 'not an empty directory' "$checkpoint" export "$saved" "$runs/hf"
says 1 'other.tmp: exists, and no export wrote it' "$checkpoint" export "$saved" "$runs/other"
[ "$(cat "$runs/other.tmp/file")" = mine ] && [ ! -e "$runs/other" ]; check $? "and a directory of that name stays what it is"
[ ! -e "$runs/none" ] && [ ! -e "$runs/none.tmp" ]
check $? "nothing is left of what failed"
says 0 'moai_checkpoint ls DIR' "$checkpoint" --help
says 2 'what to do' "$checkpoint"
says 2 'unknown command: list' "$checkpoint" list
says 2 'dtype is float32 or bfloat16, not: int8' "$checkpoint" export a b --dtype int8
says 2 'max_shard_size is a size' "$checkpoint" export a b --max_shard_size=-5GB
says 2 'unknown option --fast' "$checkpoint" export a b --fast
says 2 'import takes' "$checkpoint" import a
done_testing
