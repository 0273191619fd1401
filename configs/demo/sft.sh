#!/bin/sh
# make demo-sft: questions and answers out of the demo's text, the demo's model tuned on them with LoRA, and what it answers then
# and answered before.  Runs the demo first where its model is not there.  All of it lies in output/demo afterwards.
set -eu
out=output/demo
questions=60
say() { printf '\n== %s\n' "$*"; }

[ -e $out/run/metrics.jsonl ] && [ -e $out/tokenizer.model ] || configs/demo/demo.sh "${1:-}"
rm -rf $out/sft $out/sft-data
begun=$(date +%s)

# Lines of 12 words and more, evenly out of the text, no two that begin alike: five words are the question, six the answer.
say "questions and answers out of $out/corpus.txt"
tr -d '"\\\t\r' < $out/corpus.txt | awk -v n=$questions '
    NF >= 12 { start = $1 " " $2 " " $3 " " $4 " " $5; if (!(start in seen)) { seen[start] = 1; line[++all] = $0 } }
    END { for (i = 1; i <= n && i <= all; i++) print line[int((i - 0.5) * all / (n < all ? n : all)) + 1] }' > $out/sft-lines.txt
awk '{ q = $1 " " $2 " " $3 " " $4 " " $5; a = $6 " " $7 " " $8 " " $9 " " $10 " " $11
       printf "{\"messages\": [{\"role\": \"user\", \"content\": \"How does it go on: %s\"}, {\"role\": \"assistant\", \"content\": \"%s\"}]}\n", q, a > "/dev/stdout"
     }' $out/sft-lines.txt > $out/sft.jsonl
awk '{ print $6 " " $7 " " $8 " " $9 " " $10 " " $11 }' $out/sft-lines.txt > $out/sft-answers.txt
ask() { awk -v ask="$1" '{ printf "{\"messages\": [{\"role\": \"user\", \"content\": \"%s %s %s %s %s %s\"}]}\n", ask, $1, $2, $3, $4, $5 }' $out/sft-lines.txt; }
ask "How does it go on:" > $out/sft-asked.jsonl
ask "Which words follow these?" > $out/sft-reworded.jsonl
head -n 1 $out/sft.jsonl
[ "$(wc -l < $out/sft.jsonl)" -ge 10 ] || { echo "demo-sft: the text has too few lines of twelve words" >&2; exit 1; }

say "conversations to token shards"
"$MOAI_BIN/moai_tokenize" chat --tokenizer $out/tokenizer.model --input $out/sft.jsonl --output $out/sft-data --seq_length 127 \
    --validation_fraction 0 --no_progress
say "adapters of rank 16 beside the frozen model, two ranks"
mpirun -np 2 "$MOAI_BIN/moai_train" --config configs/demo/sft.json
say "what the model and the tuned model answer"
write() {
    file=$1
    shift
    "$MOAI_BIN/moai_generate" $out/run --messages "$file" --temperature 0 --max_new_tokens 40 --batch_size 32 "$@" 2> $out/sft-generate.log |
        awk '/^--- prompt [0-9]+$/ { if (n) print n "\t" text; n = $3; text = ""; next } { text = text (text == "" ? "" : " ") $0 }
             END { print n "\t" text }' | sort -n | cut -f 2-         # as they were done
}
write $out/sft-asked.jsonl > $out/sft-plain.txt
write $out/sft-asked.jsonl --adapter $out/sft > $out/sft-tuned.txt
write $out/sft-reworded.jsonl > $out/sft-plain-reworded.txt
write $out/sft-reworded.jsonl --adapter $out/sft > $out/sft-tuned-reworded.txt
for i in 1 21 41; do
    line() { sed -n "${i}p" "$1"; }
    echo "question: $(line $out/sft-lines.txt | cut -d ' ' -f 1-5) ...   expected: $(line $out/sft-answers.txt)"
    echo "    the model:       $(line $out/sft-plain.txt | cut -c 1-90)"
    echo "    the tuned model: $(line $out/sft-tuned.txt | cut -c 1-90)"
done
right() { paste $out/sft-answers.txt "$1" | awk -F '\t' '$1 == $2 { n++ } END { print n + 0 }'; }
all=$(wc -l < $out/sft-answers.txt)
say "the verdict, after $(($(date +%s) - begun)) s: answers that are right word for word, of $all"
echo "questions as trained:  the model $(right $out/sft-plain.txt), the tuned model $(right $out/sft-tuned.txt)"
echo "the same reworded:     the model $(right $out/sft-plain-reworded.txt), the tuned model $(right $out/sft-tuned-reworded.txt)"
[ "$(right $out/sft-tuned.txt)" -ge $((all * 3 / 4)) ] || { echo "demo-sft: three in four should be right" >&2; exit 1; }
