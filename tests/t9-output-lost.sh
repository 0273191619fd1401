#!/bin/bash
# What a program prints is its product, or part of it: on a full disk, a closed descriptor or a pipe without a reader the status tells, and no
# file gets what was meant for standard output.  moai_train's record is metrics.jsonl: there it costs a warning.
. tests/lib/small.sh
shown="$dir/out $dir/err"
train="$MOAI_BIN/moai_train --model $dir/model.json --data $dir/data --device cpu --num_threads 1 --seq_length 32 --no_tensorboard --lr_scheduler_type constant"
$train --output_dir "$dir/run" --max_steps 2 > "$dir/out" 2>&1
check $? "a run to look at"
for i in 1 2 3 4 5 6 7 8; do echo '{"text": "one two three one two three"}'; done > "$dir/text.jsonl"
"$MOAI_BIN/moai_tokenize" train --input "$dir/text.jsonl" --output "$dir/tok" --vocab_size 272 > "$dir/out" 2>&1
check $? "a tokenizer"
printf '1\n2\n3\n' > "$dir/prompts"
generate="$MOAI_BIN/moai_generate $dir/run --device cpu --num_threads 1 --max_new_tokens 8 --input_ids 1"
export_to="$MOAI_BIN/moai_checkpoint export $dir/run/checkpoint-2"

# each prints to standard output
cat > "$dir/commands" <<END
$MOAI_BIN/moai_train --help
$train --plan
$MOAI_BIN/moai_tokenize --help
$MOAI_BIN/moai_tokenize encode --help
$MOAI_BIN/moai_tokenize inspect $dir/data --tokens 4000
$MOAI_BIN/moai_tokenize audit $dir/data
$MOAI_BIN/moai_tokenize bigram $dir/data
$MOAI_BIN/moai_checkpoint --help
$MOAI_BIN/moai_checkpoint ls $dir/run
$MOAI_BIN/moai_checkpoint verify $dir/run
$export_to $dir/hf-OUT
$MOAI_BIN/moai_checkpoint import $dir/hf $dir/imported-OUT
$MOAI_BIN/moai_generate --help
$generate
$generate --jsonl
$generate --num_return_sequences 3
END
$export_to "$dir/hf" > "$dir/out" 2>&1 || exit 1
n=0
while read -r command; do
    n=$((n + 1))
    name=${command#"$MOAI_BIN/"} name=${name/$dir\//}
    timeout 60 ${command/OUT/full-$n} > /dev/full 2> "$dir/err" < /dev/null
    status=$?
    [ $status = 1 ] && grep -q '^moai: standard output: No space left on device$' "$dir/err"
    check $? "> /dev/full: status $status of $name"
    timeout 60 ${command/OUT/closed-$n} >&- 2> "$dir/err" < /dev/null
    status=$?
    [ $status = 1 ] && grep -q '^moai: standard output: Bad file descriptor$' "$dir/err"
    check $? ">&-: status $status of $name"
    { timeout 60 ${command/OUT/pipe-$n} 2> "$dir/err" < /dev/null; echo $? > "$dir/status"; } | sleep 0
    [ "$(cat "$dir/status")" != 0 ] && ! grep -q 'standard output' "$dir/err"
    check $? "| true: status $(cat "$dir/status"), without a word, of $name"
done < "$dir/commands"
for how in full closed; do
    "$MOAI_BIN/moai_checkpoint" import "$dir"/hf-$how-* "$dir/back-$how" > "$dir/out" 2>&1 && "$MOAI_BIN/moai_checkpoint" verify "$dir/back-$how" > "$dir/out" 2>&1
    check $? "the export whose report is lost ($how) is whole"
done

# a file that is being written does not get what is printed: with 0, 1 and 2 closed it would be the first to have those numbers
"$MOAI_BIN/moai_tokenize" encode --tokenizer "$dir/tok.model" --input "$dir/text.jsonl" --output "$dir/shards" --validation_fraction 0 <&- >&- 2>&-
check $? "encode with everything closed"
"$MOAI_BIN/moai_tokenize" audit "$dir/shards" > "$dir/out" 2>&1; check $? "its shards are undamaged"
$train --output_dir "$dir/closed" --max_steps 4 --save_steps 1 <&- >&- 2>&-
check $? "a run with everything closed"
"$MOAI_BIN/moai_checkpoint" verify "$dir/closed" > "$dir/out" 2>&1 && [ "$(grep -c '"loss"' "$dir/closed/metrics.jsonl")" = 4 ]
check $? "its checkpoints are undamaged and its record whole"

# a run goes on
$train --output_dir "$dir/full" --max_steps 4 --save_steps 2 > /dev/full 2> "$dir/err"
status=$?
[ $status = 0 ] && [ "$(grep -c '^warning: standard output: No space left on device; training goes on, and .*/full/metrics.jsonl has the record$' "$dir/err")" = 1 ] &&
    [ "$(grep -c '"loss"' "$dir/full/metrics.jsonl")" = 4 ] && [ -e "$dir/full/checkpoint-4/manifest.json" ]
check $? "moai_train > /dev/full: status $status, one warning, the record whole"

# standard error has reports and warnings: nobody's product
$train --plan 2> /dev/full > "$dir/out" && grep -q '^memory per rank' "$dir/out" && grep -q '^fit  ' "$dir/out"; check $? "a plan whose warnings are lost"
"$MOAI_BIN/moai_tokenize" train --input "$dir/text.jsonl" --output "$dir/tok2" --vocab_size 272 2> /dev/full && cmp "$dir/tok.model" "$dir/tok2.model"
check $? "a tokenizer whose report is lost"
"$MOAI_BIN/moai_tokenize" encode --tokenizer "$dir/tok.model" --input "$dir/text.jsonl" --output "$dir/shards2" --validation_fraction 0 2> /dev/full &&
    "$MOAI_BIN/moai_tokenize" audit "$dir/shards2" > "$dir/out" 2>&1
check $? "and shards"

# texts are not written for nobody
timeout 20 $generate --max_new_tokens 60 --num_return_sequences 100000 --jsonl > /dev/full 2> "$dir/err"
status=$?
[ $status = 1 ]; check $? "a hundred thousand texts to a full disk end with the first: status $status"
(ulimit -f 1; "$MOAI_BIN/moai_tokenize" inspect "$dir/data" --tokens 4000 > "$dir/short" 2> "$dir/err")
status=$?
[ $status = 1 ] && grep -q '^moai: standard output: File too large$' "$dir/err"; check $? "ulimit -f: status $status"
timeout 60 $generate --logits_out /dev/full > "$dir/out" 2> "$dir/err"
[ $? = 1 ] && grep -q 'logits_out /dev/full: No space left on device' "$dir/err"; check $? "--logits_out /dev/full"
done_testing
