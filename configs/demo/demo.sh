#!/bin/sh
# make demo [TEXT=my.txt]: text to tokens to a small model on four MPI ranks, stopped, resumed on another layout, then asked to write.
# demo.sh --data-only [TEXT] makes the tokens only.  All of it lies in output/demo afterwards.
set -eu
out=output/demo
only=
[ "${1:-}" != --data-only ] || { only=data; shift; }
text=${1:-}
begun=$(date +%s)
say() { printf '\n== %s\n' "$*"; }
ranks() { n=$1; shift; mpirun -np "$n" "$@"; }

[ -z "$text" ] || [ -r "$text" ] || { echo "demo: TEXT=$text cannot be read" >&2; exit 2; }
rm -rf $out
mkdir -p $out

separator=blank_line
if [ -n "$text" ]; then
    cp "$text" $out/corpus.txt
    [ "$(awk 'BEGIN { RS = "" } END { print NR }' $out/corpus.txt)" -ge 40 ] || separator=line
    say "the text: $text; a document ends at: $separator"
else
    say "the text: the King James Bible (package bible-kjv), a chapter a document"
    configs/demo/corpus.sh $out/corpus.txt
fi
wc -c $out/corpus.txt

say "a tokenizer of 1024 pieces, and token shards"
"$MOAI_BIN/moai_tokenize" train --input $out/corpus.txt --vocab_size 1024 --output $out/tokenizer > $out/tokenizer.log 2>&1 ||
    { tail -n 5 $out/tokenizer.log; exit 1; }
ranks 2 "$MOAI_BIN/moai_tokenize" encode --tokenizer $out/tokenizer.model --input $out/corpus.txt --output $out/data \
    --document_separator $separator --validation_fraction 0.05 --num_threads 1
"$MOAI_BIN/moai_tokenize" bigram $out/data > $out/bigram.txt
cat $out/bigram.txt
[ -z "$only" ] || exit 0

say "training on four ranks, TP 2 x PP 2, up to step 1000"
ranks 4 "$MOAI_BIN/moai_train" --config configs/demo/run.json --tensor_parallel 2 --pipeline_parallel 2 --stop_at_step 1000
say "resumed on another layout: DP 4"
ranks 4 "$MOAI_BIN/moai_train" --config configs/demo/run.json --resume_from_checkpoint auto

prompt="In the beginning"
[ -z "$text" ] || prompt=$(head -n 1 $out/corpus.txt | cut -c 1-30)
say "what it writes after \"$prompt\""
"$MOAI_BIN/moai_generate" $out/run --prompt "$prompt" --max_new_tokens 160 --temperature 0.7 --seed 7 | tee $out/written.txt

say "the verdict, after $(($(date +%s) - begun)) s"
bigram=$(sed -n 's/^bigram loss \([0-9.]*\) .*/\1/p' $out/bigram.txt)
loss=$(sed -n 's/.*"eval_loss":\([0-9.]*\),.*/\1/p' $out/run/metrics.jsonl | tail -n 1)
LC_ALL=C printf 'validation loss, nats per token: a bigram model of the same text %.3f, this model %.3f\n' "$bigram" "$loss"
words() { tr -cs '[:alpha:]' '\n' < "$1" | tr '[:upper:]' '[:lower:]' | sort -u | sed '/^$/d'; }
words $out/corpus.txt > $out/words.txt
words $out/written.txt > $out/words-written.txt
echo "of $(wc -l < $out/words-written.txt) different words it wrote, $(comm -12 $out/words.txt $out/words-written.txt | wc -l) are words of the text"
echo "look further: $out/run/metrics.jsonl, tensorboard --logdir $out/run, h5dump -H $out/run/checkpoint-*/rank-00000.h5"
[ -z "$text" ] || exit 0                  # a small text of your own may not be enough to beat it
awk -v a="$loss" -v b="$bigram" 'BEGIN { exit !(a > 0 && a < b - 0.2) }' ||
    { echo "demo: the loss should be well below the bigram's" >&2; exit 1; }
