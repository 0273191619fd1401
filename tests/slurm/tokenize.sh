#!/bin/bash
# Text encoded by a job on four nodes: the shards of one process, audited.
. tests/slurm/scenario.sh

cat src/*/*.c > "$runs/text.txt"
"$MOAI_BIN/moai_tokenize" train --input "$runs/text.txt" --vocab_size 700 --output "$runs/tok" > "$runs/train.log" 2>&1
options="--tokenizer $runs/tok.model --document_separator blank_line --shard_tokens 20000 --input $runs/text.txt"
# shellcheck disable=SC2086
"$MOAI_BIN/moai_tokenize" encode --output "$runs/one" $options > "$runs/one.log" 2>&1
check $? "one process encodes"

name=four
# shellcheck disable=SC2086
job=$(sbatch --parsable --nodes=4 --output="$runs/four.log" slurm/tokenize.sh "$runs/four" $options)
ended COMPLETED
starts 1
diff -r "$runs/one" "$runs/four" | sed 's/^/# /'
check "${PIPESTATUS[0]}" "the same shards from four nodes: $(ls "$runs/four" | wc -l) files"
says ": 0 faults"

done_testing
