#!/bin/sh
# t6-context.sh: context_parallel cuts samples among ranks: 20 steps of fp32 on it alone and with TP, PP, DP and all of them against one
# rank, with and without documents apart; every recomputation mode has the same bits; a run goes on with and without it.
# needs: mpirun
. tests/lib/layouts.sh

length=32
model small 4 28 4
model tied 4 28 4 true
sed 's/"rms_norm_eps"/"hc_mult": 4, "hc_init_alpha": 0.5, &/' "$runs/small.json" > "$runs/streams.json"
data corpus 200
cp="--context_parallel" tp="--tensor_parallel" pp="--pipeline_parallel"
# each NAME FLAGS: all layouts of a kind of run
each() {
    kind=$1
    shift
    layout "$kind" 1 "$@"
    layout "$kind-cp2" 2 $cp 2 "$@"
    layout "$kind-cp4" 4 $cp 4 --batch_size 2 "$@"
    layout "$kind-cp2-tp2" 4 $cp 2 $tp 2 "$@"
    layout "$kind-cp2-pp2" 4 $cp 2 $pp 2 "$@"
    layout "$kind-cp2-dp2" 4 $cp 2 --batch_size 2 "$@"
    layout "$kind-cp2-tp2-pp2" 8 $cp 2 $tp 2 $pp 2 --batch_size 2 "$@"
    for other in cp2 cp4 cp2-tp2 cp2-pp2 cp2-dp2 cp2-tp2-pp2; do agree "$kind-$other" "$kind"; done
}
each text --eval_steps 10 --eval_batches 1
each masked --document_mask --eval_steps 10 --eval_batches 1
learns text
learns masked-cp2
numbers() { sed -n 's/.*"loss":\([0-9.]*\).*"grad_norm":\([0-9.]*\).*/\1 \2/p' "$runs/$1/metrics.jsonl"; }
evals() { sed -n 's/.*"eval_loss":\([0-9.]*\).*/\1/p' "$runs/$1/metrics.jsonl" | paste -sd ' '; }
for kind in text masked; do
    echo "$(evals $kind) $(evals $kind-cp2) $(evals $kind-cp2-tp2-pp2)" | awk '
        { for (i = 1; i <= 2; i++) for (j = i + 2; j <= 6; j += 2) if (($j - $i) ^ 2 > (1e-5 * $i) ^ 2) bad = 1 }
        END { exit bad || NF != 6 }'
    check $? "$kind: evaluations on one rank, CP 2, all axes: $(evals $kind); $(evals $kind-cp2); $(evals $kind-cp2-tp2-pp2)"
done
for mode in none selective keep_attention full; do
    layout masked-$mode 2 $cp 2 --document_mask --eval_steps 10 --eval_batches 1 --gradient_checkpointing $mode
done
for mode in selective keep_attention full; do same_bits masked-$mode masked-none; done
same_bits masked-none masked-cp2
layout accumulated 2 $cp 2 --batch_size 1 --eval_steps 10 --eval_batches 1
layout at-once 2 $cp 2 --batch_size 8 --eval_steps 10 --eval_batches 1
for run in accumulated at-once; do agree $run text; done
layout checked 4 $cp 2 --batch_size 2 --replica_check_steps 5 --eval_steps 10 --eval_batches 1
same_bits checked text-cp2-dp2

for use_model in tied streams; do
    more="--adam_epsilon 1e-3"
    # shellcheck disable=SC2086
    layout $use_model 1 $more --batch_size 2
    # shellcheck disable=SC2086
    layout $use_model-cp2-pp2 4 $cp 2 $pp 2 $more
    # shellcheck disable=SC2086
    layout $use_model-cp2-tp2-full 4 $cp 2 $tp 2 $more --gradient_checkpointing full
    for other in cp2-pp2 cp2-tp2-full; do agree $use_model-$other $use_model; done
done
use_model=small

mkdir "$runs/examples"
"$MOAI_BIN/tests/tools/make_examples" "$runs/examples" 331 400 28 || exit 1
use_data=examples
layout sft 1 --mode sft --eval_steps 10
layout sft-cp2 2 $cp 2 --mode sft --eval_steps 10
layout sft-cp4-pp2 8 $cp 4 $pp 2 --mode sft --eval_steps 10 --batch_size 1
for other in cp2 cp4-pp2; do agree sft-$other sft; done
use_data=corpus

same="--eval_steps 10 --eval_batches 1"
# shellcheck disable=SC2086
halves cp2-again 2 $cp 2 $same -- 2 $cp 2 $same
same_bits cp2-again text-cp2
# shellcheck disable=SC2086
halves cp2-to-dp2 2 $cp 2 $same -- 2 --batch_size 2 $same
# shellcheck disable=SC2086
halves dp2-to-cp2 2 --batch_size 2 $same -- 2 $cp 2 $same
# shellcheck disable=SC2086
halves cp2-tp2-to-cp4 4 $cp 2 $tp 2 $same -- 4 $cp 4 $same
for other in cp2-to-dp2 dp2-to-cp2 cp2-tp2-to-cp4; do agree $other text; done
grep -h '"sample_numbers"' "$runs/cp2-to-dp2/metrics.jsonl" | sed 's/.*"sample_numbers":\[\([^]]*\)\].*/\1/' | tr ',' '\n' > "$runs/samples"
[ "$(wc -l < "$runs/samples")" = 160 ] && [ "$(sort -n "$runs/samples" | uniq -d | wc -l)" = 0 ]
check $? "20 steps took 160 samples, none twice: $(sort -nu "$runs/samples" | wc -l)"
done_testing
