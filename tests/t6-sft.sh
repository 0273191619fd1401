#!/bin/sh
# t6-sft.sh: tuning on examples (--mode sft): each by itself, of which the trained tokens count.  The loss is the sum
# over those of a step, divided by their number, however they are packed, divided into micro-batches and spread over 1
# to 8 ranks; with adapters too.
# needs: mpirun
. tests/lib/layouts.sh

model small 4 28 4
mkdir "$runs/examples"
"$MOAI_BIN/tests/tools/make_examples" "$runs/examples" 331 400 28 || exit 1
"$MOAI_BIN/moai_tokenize" audit "$runs/examples" > "$runs/audit"
check $? "the examples: $(tail -n 1 "$runs/audit")"
use_data=examples
sft="--mode sft --eval_steps 10" learning_rate=2e-3
# shellcheck disable=SC2086
tune() { layout "$@" $sft; }
tune one 1
learns one
grep -q '^train .* examples in .* samples: .* of them trained' "$runs/one.log"
check $? "$(grep '^train ' "$runs/one.log")"
grep -q 'of the split .train. have more than 30 tokens' "$runs/one.log" &&
    grep -q 'have no trained token' "$runs/one.log"
check $? "$(grep -c '^warning: .* left out' "$runs/one.log") kinds of examples are left out and counted"
tune one-1 1 --per_device_train_batch_size 1
tune one-2 1 --per_device_train_batch_size 2 --gradient_checkpointing full
tune one-8 1 --per_device_train_batch_size 8 --gradient_checkpointing selective
tune none 1 --gradient_checkpointing none
tune full 1 --gradient_checkpointing full
tune tp2 2 --tensor_parallel 2
tune tp4 4 --tensor_parallel 4 --per_device_train_batch_size 2
tune pp2 2 --pipeline_parallel 2
tune pp3 3 --pipeline_parallel 3 --gradient_checkpointing full
tune dp2 2 --per_device_train_batch_size 2
tune dp4 4 --per_device_train_batch_size 1
tune 222 8 --tensor_parallel 2 --pipeline_parallel 2
for mode in none full; do same_bits $mode one; done
for layout in one-1 one-2 one-8 tp2 tp4 pp2 pp3 dp2 dp4 222; do agree $layout one; done
# shellcheck disable=SC2086
halves moved 2 $sft --tensor_parallel 2 -- 2 $sft --pipeline_parallel 2
agree moved one
# shellcheck disable=SC2086
halves again 1 $sft -- 1 $sft
same_bits again one

# one step over all examples: whether they are packed or not
value() { sed -n "s/.*\"$2\":\([0-9.e+-]*\).*/\1/p" "$runs/$1/metrics.jsonl" | head -n 1; }
samples() { sed -n 's/^train .* examples in \([0-9]*\) samples.*/\1/p' "$runs/$1.log"; }
tune apart 1 --no_packing
steps=1
tune all-packed 1 --warmup_steps 0 --global_batch_size "$(samples one)"
tune all-apart 1 --warmup_steps 0 --global_batch_size "$(samples apart)" --no_packing
[ "$(samples one)" -lt $(($(samples apart) * 2 / 3)) ]
check $? "$(samples apart) examples are packed into $(samples one) samples"
[ "$(value all-packed trained_tokens)" = "$(value all-apart trained_tokens)" ]
check $? "of the same $(value all-apart trained_tokens) trained tokens"
for what in loss grad_norm eval_loss; do
    close=$(awk -v a="$(value all-packed $what)" -v b="$(value all-apart $what)" \
        'BEGIN { print a - b < 1e-6 * b && b - a < 1e-6 * b }')
    [ "$close" = 1 ]
    check $? "packed and apart $what is the same: $(value all-packed $what), $(value all-apart $what)"
done
mixed=$(value apart loss)
[ "$mixed" != "$(value one loss)" ]
check $? "(eight samples of one are others than of the other: $mixed)"

# adapters
steps=20 learning_rate=2e-2
sft="$sft --model_name_or_path $runs/one/checkpoint-20 --lora_rank 3 --lora_dropout 0.1"
tune lora 1
tune lora-tp2 2 --tensor_parallel 2
tune lora-222 8 --tensor_parallel 2 --pipeline_parallel 2 --gradient_checkpointing full
agree lora-tp2 lora
agree lora-222 lora

# epochs: steps from the samples
sft="--mode sft"
steps=1000
tune epochs 1 --num_train_epochs 1.5 --warmup_steps 0 --warmup_ratio 0.1
wanted=$(awk -v n="$(samples one)" 'BEGIN { x = 1.5 * n / 8; print x == int(x) ? x : int(x) + 1 }')
[ "$(grep -c '"loss"' "$runs/epochs/metrics.jsonl")" = "$wanted" ]
check $? "1.5 epochs are $wanted steps: $(grep '^epochs' "$runs/epochs.log")"

refused() {
    what=$1
    shift
    "$MOAI_BIN/moai_train" --model "$runs/small.json" --data "$runs/examples" --output_dir "$runs/refused" \
        --seq_length 29 "$@" > "$runs/refused.log" 2>&1
    [ $? = 2 ] && grep -q "$what" "$runs/refused.log"
    check $? "$what: $(tail -n 1 "$runs/refused.log")"
}
refused "mode is pretrain: --mode sft"
refused "none is left" --mode sft --seq_length 2
refused "one of them says how long the run is" --mode sft --num_train_epochs 2 --max_steps 7
refused "packing is false" --no_packing
done_testing
