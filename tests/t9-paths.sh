#!/bin/sh
# Every program puts ~ and $NAME into the paths that it is given, refuses those it cannot, and works under names that are not UTF-8.
# shellcheck disable=SC2016,SC2088
. tests/lib/small.sh
unset NOWHERE
export HOME="$dir/home" WORK="$dir/work"
mkdir "$HOME" "$WORK" "$dir/cwd"
bin=$(cd "$MOAI_BIN" && pwd)
cp -r "$dir/data" "$HOME/data" && cp "$dir/model.json" "$HOME/model.json" && echo '{"text": "one two three one two three"}' > "$HOME/text.jsonl"
cd "$dir/cwd" || exit 1
# says STATUS TEXT COMMAND...
says() {
    wanted=$1 text=$2
    shift 2
    timeout 60 "$@" > "$dir/out" 2>&1
    status=$?
    [ $status = "$wanted" ] && grep -q -F -e "$text" "$dir/out"
    check $? "status $status: $(grep -m 1 -F -e "$text" "$dir/out")"
}
flags="--device cpu --num_threads 1 --seq_length 32 --no_tensorboard --max_steps 2"

# moai_train: run file and flags, and a resume from what the checkpoint has recorded
echo '{"model": "~/model.json", "data": "${HOME}/data", "output_dir": "$WORK/run"}' > run.json
# shellcheck disable=SC2086
{
    says 0 'saved at step 2' "$bin/moai_train" --config '~/../cwd/run.json' $flags
}
[ -e "$WORK/run/checkpoint-2/manifest.json" ] && grep -q "\"output_dir\": \"$WORK/run\"" "$WORK/run/checkpoint-2/manifest.json"
check $? "the run lies in \$WORK, which the checkpoint records"
# shellcheck disable=SC2086
{
    says 0 'resumed ' "$bin/moai_train" --model='~/model.json' --data='~/data' $flags --output_dir='$WORK/run' --resume_from_checkpoint='$WORK/run/checkpoint-2'
    for key in model data tokenizer output_dir resume_from_checkpoint config; do
        says 2 "--$key is \"\$NOWHERE/a\": the environment variable NOWHERE is not set" "$bin/moai_train" --model ~/model.json --data ~/data $flags "--$key=\$NOWHERE/a"
        says 2 "--$key is \"~joe\": ~ is put in" "$bin/moai_train" --model ~/model.json --data ~/data $flags --$key '~joe'
    done
    says 2 'run.json: output_dir is "$WORK/run": the environment variable WORK is not set' env -u WORK "$bin/moai_train" --config run.json --plan
    says 2 '--output_dir is "", must name' "$bin/moai_train" --config run.json $flags --output_dir ''
    says 2 '--output_dir holds the control character 13' "$bin/moai_train" --config run.json $flags --output_dir "$(printf 'out\r')"
}

# moai_tokenize, moai_generate, moai_checkpoint
"$bin/moai_tokenize" train --input='~/text.jsonl' --output='$WORK/tok' --vocab_size 272 > "$dir/out" 2>&1 && [ -e "$WORK/tok.model" ]
check $? "moai_tokenize train"
says 0 'documents' "$bin/moai_tokenize" encode --tokenizer='$WORK/tok.model' --input='~/text.jsonl' --output='~/shards' --validation_fraction 0
says 0 'train-00000.h5' "$bin/moai_tokenize" inspect '~/shards'
says 2 'MANIFEST is "$NOWHERE": the environment' "$bin/moai_tokenize" bigram '$NOWHERE'
says 2 '--input is "~joe/a.txt": ~ is put in' "$bin/moai_tokenize" encode --tokenizer "$WORK/tok.model" --input '~joe/a.txt' --output out
says 2 '--output is "", must name' "$bin/moai_tokenize" encode --tokenizer "$WORK/tok.model" --input ~/text.jsonl --output ''
says 0 'checkpoint-2' "$bin/moai_checkpoint" ls '$WORK/run'
says 0 'complete and undamaged' "$bin/moai_checkpoint" verify '~/../work/run'
says 0 'exported' "$bin/moai_checkpoint" export '$WORK/run/checkpoint-2' '~/hf'
says 0 'imported' "$bin/moai_checkpoint" import '~/hf' '$WORK/again'
for verb in 'ls $NOWHERE' 'verify $NOWHERE' 'export a $NOWHERE' 'import a $NOWHERE'; do
    # shellcheck disable=SC2086
    says 2 'is "$NOWHERE": the environment variable NOWHERE is not set' "$bin/moai_checkpoint" $verb
done
says 2 'is "", must name' "$bin/moai_checkpoint" ls ''
says 0 'weights ' "$bin/moai_generate" '$WORK/run' --input_ids 1,2 --max_new_tokens 2 --num_threads 1 --device cpu --logits_out '~/logits'
[ "$(wc -c < "$HOME/logits")" = 776 ]; check $? "the logits lie at home"
says 2 'DIRECTORY is "~joe": ~ is put in' "$bin/moai_generate" '~joe' --input_ids 1
says 2 '--prompt_file is "$NOWHERE": the environment' "$bin/moai_generate" "$WORK/run" --prompt_file '$NOWHERE'
[ -z "$(find . -name '[~$]*')" ]; check $? "nothing here is called ~ or \$"
cp ~/text.jsonl 'US$ text.jsonl'
says 0 'documents' "$bin/moai_tokenize" encode --tokenizer "$WORK/tok.model" --input ./*.jsonl --output out --validation_fraction 0

# Latin-1: an é of one byte, in every path, from the start to the last program
e=$(printf 'caf\351')
mkdir "$e" && cp -r "$HOME/data" "$e/data" && cp "$HOME/model.json" "$e/model.json"
# shellcheck disable=SC2086
for steps in 2 4; do
    timeout 60 "$bin/moai_train" $flags --model "$e/model.json" --data "$e/data" --output_dir "$e/run" --max_steps $steps --lr_scheduler_type constant \
        --resume_from_checkpoint auto --profile_step $steps --tensorboard > "$dir/out" 2>&1
    check $? "trains under a Latin-1 name to step $steps"
done
lacks "the record is UTF-8" python:json || {
"$PYTHON" -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]; assert "caf\ufffd" in open(sys.argv[2], encoding="utf-8").read()' \
    "$e/run/metrics.jsonl" "$e/run/checkpoint-4/manifest.json" > "$dir/out" 2>&1
check $? "the record is UTF-8, the checkpoint's with U+FFFD"
}
# shellcheck disable=SC2086
timeout 60 "$bin/moai_train" $flags --model "$e/model.json" --data "$e/data" --output_dir "$e/other" --max_steps 5 --lr_scheduler_type constant \
    --resume_from_checkpoint "$e/run/checkpoint-4" > "$dir/out" 2>&1
check $? "goes on from a checkpoint by name"
for command in "moai_checkpoint verify $e/run" "moai_checkpoint export $e/run/checkpoint-4 $e/hf" "moai_checkpoint import $e/hf $e/again" \
    "moai_checkpoint ls $e/again" "moai_tokenize audit $e/data" "moai_generate $e/run --input_ids 1 --max_new_tokens 2 --jsonl --num_threads 1 --device cpu"; do
    # shellcheck disable=SC2086
    timeout 60 "$bin"/$command > "$dir/out" 2>&1
    check $? "Latin-1: ${command%% caf*}"
done
"$bin/moai_tokenize" encode --tokenizer "$WORK/tok.model" --input ~/text.jsonl --output "$e/shards" --validation_fraction 0 > "$dir/out" 2>&1 &&
    "$bin/moai_tokenize" audit "$e/shards" > "$dir/out" 2>&1
check $? "Latin-1: moai_tokenize encode"
done_testing
