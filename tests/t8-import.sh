#!/bin/sh
# What an import, the runs that go on from it and an export carry along, and what they say of a model's positions.
. tests/lib/small.sh
checkpoint=$MOAI_BIN/moai_checkpoint

# variant NAME FROM TO: tests/golden/yarn with one thing changed in its config.json, exported; what is said is in $dir/out
variant() {
    mkdir "$dir/$1" && cp tests/golden/yarn/config.json tests/golden/yarn/model.safetensors "$dir/$1" && sed -i "s/$2/$3/" "$dir/$1/config.json"
    "$checkpoint" export "$dir/$1" "$dir/$1-hf" > "$dir/out" 2>&1
    [ -e "$dir/$1-hf/config.json" ] && ! cmp -s tests/golden/yarn/config.json "$dir/$1/config.json"
    check $? "a model with $3 is exported"
}
says() { grep -q -F -- "$1" "$dir/out"; check $? "says: $1"; }
silent() { ! grep -q warning "$dir/out"; check $? "without a warning"; }

variant same '"use_cache": true' '"use_cache": false'
silent
variant ratio '"max_position_embeddings": 96' '"max_position_embeddings": 120'
says "$dir/ratio: yarn's factor 4 x original_max_position_embeddings 24 is 96, not max_position_embeddings 120: Transformers 4.51 to 4.55"
variant truncate '"factor": 4.0' '"factor": 4.0, "truncate": false'
says "$dir/truncate: yarn with truncate false: Transformers 4.51 to 4.54"
variant original '"original_max_position_embeddings": 24,' ''
says "$dir/original/config.json: yarn without original_max_position_embeddings: the length that it stretches is max_position_embeddings, 96"
variant default '"rope_type": "yarn"' '"rope_type": "default"'
says "$dir/default/config.json: factor 4 of the rope keys has no effect: rope_type is \"default\""
variant one '"factor": 4.0' '"factor": 1.0'
says "$dir/one/config.json: rope_type \"yarn\" has no effect: its factor is 1"

# -- files of an imported model --
i=0
while [ $i -lt 300 ]; do i=$((i + 1)); echo "Line $i of a text: the $((i * 7919 % 1000)) sailors counted $((i * 31 % 97)) bells."; echo; done > "$dir/text"
tokenize=$MOAI_BIN/moai_tokenize
tr a-z n-za-m < "$dir/text" > "$dir/text-other"
tokens() { "$tokenize" train --input "$dir/text$3" --vocab_size "$2" --output "$dir/$1" && "$tokenize" encode --tokenizer "$dir/$1.model" \
    --input "$dir/text$3" --document_separator blank_line --output "$dir/$1-data" --no_progress; }
{ tokens tok 300 '' && tokens other 310 -other; } > "$dir/out" 2>&1
check $? "tokens of two tokenizers"
sed -i 's/"vocab_size": 97/"vocab_size": 320, "eos_token_id": [2, 4]/' "$dir/model.json"
# run NAME RANKS ARGUMENTS...: a run to $dir/NAME, its words in $dir/out
run() {
    name=$1 ranks=$2
    shift 2
    mpirun -np "$ranks" "$MOAI_BIN/moai_train" --model "$dir/model.json" --data "$dir/tok-data" --output_dir "$dir/$name" --seq_length 32 \
        --batch_size 4 --global_batch_size 8 --num_threads 1 --no_tensorboard --lr_scheduler_type constant "$@" > "$dir/out" 2>&1
}
run first 1 --max_steps 2 && "$checkpoint" export "$dir/first/checkpoint-2" "$dir/made" > "$dir/out" 2>&1
check $? "a model of ours is exported"

# rows of the vocabulary that no token has: never drawn, and nothing to show where they are given
"$MOAI_BIN/moai_generate" "$dir/first" --input_ids 5,319,301 --echo --jsonl --temperature 50 --top_p 1 --max_new_tokens 32 --ignore_eos \
    --num_return_sequences 8 --num_threads 1 > "$dir/out" 2>&1
check $? "token numbers beyond the tokenizer's are read"
[ "$(grep -c '"ids"' "$dir/out")" = 8 ] && sed -n 's/.*"ids":\[\([0-9,]*\)\].*/\1/p' "$dir/out" | tr , '\n' | awk '$1 >= 300 {exit 1}'
check $? "and never written"

# such a directory as Qwen3's: no tokenizer.model
files='tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt chat_template.jinja
       additional_chat_templates/tool_use.jinja generation_config.json'
bring() {
    cp -r "$dir/made" "$dir/$1" && rm "$dir/$1/tokenizer.model" && mkdir "$dir/$1/additional_chat_templates" || return
    sed -i 's/{/{"chat_template": "{{ x }}", "model_max_length": 1000000000000000019884624838656,/' "$dir/$1/tokenizer_config.json"
    for f in special_tokens_map.json added_tokens.json vocab.json merges.txt chat_template.jinja additional_chat_templates/tool_use.jinja; do
        printf '{"of": "%s"}\n\n' "$f" > "$dir/$1/$f"
    done
    echo '{"eos_token_id": [2, 4], "temperature": 0.6, "top_k": 20}' > "$dir/$1/generation_config.json"
    echo 'read me' > "$dir/$1/README.md"
}
bring theirs && "$checkpoint" import "$dir/theirs" "$dir/run" > "$dir/out" 2>&1
check $? "a directory with a tokenizer.json is imported"
says "$dir/theirs: not taken along: README.md"
same_files() {
    lost=
    for f in $files; do cmp -s "$dir/theirs/$f" "$1/$f" || lost="$lost $f"; done
    [ -z "$lost" ]
    check $? "$2 has the files as they came$lost"
}
same_files "$dir/run/checkpoint-0" "the checkpoint"
"$checkpoint" verify "$dir/run" > "$dir/out" 2>&1
check $? "it verifies: $(cat "$dir/out")"
run run 2 --tensor_parallel 2 --max_steps 6 --save_steps 2 --save_total_limit 2 --resume_from_checkpoint auto && ! grep -q warning "$dir/out" &&
    run run 2 --max_steps 8 --save_steps 2 --save_total_limit 2 --resume_from_checkpoint auto
check $? "training goes on from it, and once more on another layout"
same_files "$dir/run/checkpoint-8" "the last checkpoint"
"$checkpoint" export "$dir/run/checkpoint-8" "$dir/again" > "$dir/out" 2>&1
check $? "it is exported"
same_files "$dir/again" "the export"
cmp -s "$dir/tok.model" "$dir/again/tokenizer.model" && grep -q '"eos_token_id": *\[' "$dir/again/config.json"
check $? "with the tokenizer of the data, and the list of ends"
"$checkpoint" export "$dir/again" "$dir/again" --overwrite > "$dir/out" 2>&1
check $? "an export is exported onto itself"
same_files "$dir/again" "and still"
printf 'x' | dd of="$dir/run/checkpoint-8/additional_chat_templates/tool_use.jinja" conv=notrunc 2> "$dir/err"
! "$checkpoint" verify "$dir/run/checkpoint-8" > "$dir/out" 2>&1 && says 'additional_chat_templates/tool_use.jinja: damaged'
! "$checkpoint" export "$dir/run/checkpoint-8" "$dir/damaged" > "$dir/out" 2>&1 && [ ! -e "$dir/damaged" ]
check $? "a damaged one is not exported"

# beside later checkpoints, which a resume takes, and into a model
refused 2 "OUTPUT_DIR $dir/run holds checkpoint-8, checkpoint-6, later than the checkpoint-0 that an import writes" "$checkpoint" import "$dir/theirs" "$dir/run" --overwrite
refused 2 "OUTPUT_DIR $dir/theirs is a Hugging Face model" "$checkpoint" import "$dir/theirs" "$dir/theirs"
refused 2 "OUTPUT_DIR $dir/run/checkpoint-8 is a checkpoint" "$checkpoint" import "$dir/theirs" "$dir/run/checkpoint-8"
[ ! -e "$dir/run/checkpoint-0" ] && [ ! -e "$dir/theirs/checkpoint-0" ] && [ ! -e "$dir/run/checkpoint-8/checkpoint-0" ]
check $? "nothing is written"
"$checkpoint" import "$dir/theirs" "$dir/theirs/below" > "$dir/out" 2>&1; check $? "into a directory below the model"
grep -q "$dir/theirs: not taken along: README.md\$" "$dir/out"; check $? "which is not said to be left behind"; rm -r "$dir/theirs/below"

# a carried file that was not fetched
cp -r "$dir/theirs" "$dir/pointer" && printf 'version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n' > "$dir/pointer/tokenizer.json"
! "$checkpoint" import "$dir/pointer" "$dir/pointer-run" > "$dir/out" 2>&1 && [ ! -e "$dir/pointer-run" ]
check $? "a Git LFS pointer in the place of tokenizer.json is refused"
says "$dir/pointer/tokenizer.json: is a Git LFS pointer"

# other tokens than the imported tokenizer's
"$checkpoint" import "$dir/theirs" "$dir/foreign" > "$dir/out" 2>&1
run foreign 1 --data "$dir/other-data" --max_steps 9 --resume_from_checkpoint auto
status=$?
[ $status = 2 ]
check $? "shards of another tokenizer are refused with status 2 (is $status)"
says "checkpoint-0/tokenizer.json is another tokenizer than $dir/other-data/tokenizer.model, with which the shards were made: of "
rm "$dir/theirs/tokenizer.json" && echo '{"model": {"type": "BPE"}}' > "$dir/theirs/tokenizer.json"
"$checkpoint" import "$dir/theirs" "$dir/unknown" > "$dir/out" 2>&1 && run unknown 1 --max_steps 2 --resume_from_checkpoint auto
check $? "a tokenizer.json whose tokens cannot be read"
says 'tokenizer.json goes into each checkpoint; whether the shards have its tokens is not known'
same_files "$dir/unknown/checkpoint-2" "the checkpoint behind it"
done_testing
