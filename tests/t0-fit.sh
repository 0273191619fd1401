#!/bin/sh
# What fits into how much memory: the plan's figures against the choice of recomputation, the refusal and the way out.
set -u
. tests/lib/check.sh
shown="$TMPDIR/out"
plan() { "$MOAI_BIN/moai_train" --plan --model configs/moai-3b.json --bf16 --device cuda "$@" > "$TMPDIR/out" 2>&1; }
# the GiB that a rank takes
need() { plan --device_memory 10000 "$@" && sed -n 's/^fit .* takes \([0-9.]*\) GiB.*/\1/p' "$TMPDIR/out"; }

none=$(need --gradient_checkpointing none)
selective=$(need --gradient_checkpointing selective)
keep_attention=$(need --gradient_checkpointing keep_attention)
full=$(need --gradient_checkpointing full)
echo "$none $selective $keep_attention $full" | awk '{ exit !(NF == 4 && $1 > $2 + 1 && $2 > $3 + 1 && $3 > $4 + 0.5) }'
check $? "none, selective, keep_attention, full take less and less: $none, $selective, $keep_attention, $full GiB"
echo "$full" | awk '{ exit !($1 > 16 * 5167084288 / 2^30) }'
check $? "never less than the state: $full GiB"

# just enough for a mode is what auto finds
for mode in none selective keep_attention full; do
    eval "enough=\$$mode"
    plan --device_memory "$(echo "$enough" | awk '{ print $1 + 0.001 }')" && grep -q "recomputation $mode\$" "$TMPDIR/out"
    check $? "auto with $enough GiB is $mode"
done
plan --device_memory "$(echo "$selective" | awk '{ print $1 - 0.001 }')" --gradient_checkpointing selective &&
    grep -q 'it does not fit: .* would fit with --gradient_checkpointing keep_attention (' "$TMPDIR/out"
check $? "a MiB less: the way out is more recomputation"

# with streams there is a mode between, which a model without them does not have
sed 's/"rms_norm_eps"/"hc_mult": 4, &/' configs/moai-3b.json > "$TMPDIR/streams.json"
last=
for mode in none streams selective keep_attention full; do
    enough=$(need --model "$TMPDIR/streams.json" --gradient_checkpointing $mode)
    echo "$enough ${last:-1000}" | awk '{ exit !(NF == 2 && $1 < $2 - 0.5) }' && last=$enough &&
        plan --model "$TMPDIR/streams.json" --device_memory "$(echo "$enough" | awk '{ print $1 + 0.001 }')" && grep -q "recomputation $mode\$" "$TMPDIR/out"
    check $? "4 streams: auto with $enough GiB is $mode"
done
enough=$(need --model "$TMPDIR/streams.json" --gradient_checkpointing none)
plan --model "$TMPDIR/streams.json" --device_memory "$(echo "$enough" | awk '{ print $1 - 0.001 }')" --gradient_checkpointing none &&
    grep -q 'would fit with --gradient_checkpointing streams (' "$TMPDIR/out"
check $? "4 streams: the way out is to make them again"
plan --gradient_checkpointing streams
[ $? = 2 ] && grep -q 'gradient_checkpointing is streams, but the model of configs/moai-3b.json has one residual stream' "$TMPDIR/out"
check $? "one stream: $(tail -n 1 "$TMPDIR/out" | cut -c 1-150)"

# the way out that is named is one
way=$(plan --device_memory 60 --batch_size 4; sed -n 's/.*would fit with \(.*\) on \([0-9]*\) ranks with as much each.*/\1 --plan_ranks \2/p' "$TMPDIR/out")
# shellcheck disable=SC2086
[ -n "$way" ] && plan --device_memory 60 --batch_size 4 $way && ! grep -q 'does not fit' "$TMPDIR/out"
check $? "60 GiB: $way fits"

# found LAYOUT GIB [FLAGS]: what the first rank of a pair of H200 had in use after a step of 32 samples of 4096
found() {
    layout=$1 use=$2
    shift 2
    planned=$(need --batch_size 2 --global_batch_size 32 --seq_length 4096 "$@")
    echo "$planned $use" | awk '{ exit !(NF == 2 && $1 > 0.995 * $2 && $1 < 1.005 * $2) }'
    check $? "$layout: planned $planned GiB, found $use"
}
found "one card" 113.79
found "DP 2" 85.76 --plan_ranks 2
found "PP 2" 75.58 --plan_ranks 2 --pipeline_parallel 2
found "TP 2" 71.50 --plan_ranks 2 --tensor_parallel 2 --batch_size 4

# communicators beside the axes: tied embeddings on two stages, copies of KV heads
backend() { plan --device_memory 10000 "$@" && awk 'table { print $(NF - 1); exit } / stage  layers / { table = 1 }' "$TMPDIR/out"; }
sed 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' configs/moai-3b.json > "$TMPDIR/tied.json"
two=$(backend --plan_ranks 2 --pipeline_parallel 2)
three=$(backend --plan_ranks 2 --pipeline_parallel 2 --model "$TMPDIR/tied.json")
one=$(backend --plan_ranks 4 --tensor_parallel 4)
copies=$(backend --plan_ranks 28 --tensor_parallel 28)
echo "$two $three $one $copies" | awk '{ exit !(NF == 4 && $2 > $1 + 0.5 && $4 > $3 + 0.5) }'
check $? "NCCL's buffers: PP 2 $two GiB, with a tied embedding $three; TP 4 $one, TP 28 $copies"

# cuDNN's deterministic backward keeps the gradients of 2 x 28 x 4096^2 scores, 1.75 GiB; of a 32,768 long sequence our own kernels keep none
fast=$(backend --batch_size 2 --seq_length 4096)
same=$(backend --batch_size 2 --seq_length 4096 --deterministic)
long=$(backend --batch_size 1 --seq_length 32768 --deterministic)
echo "$fast $same $long" | awk '{ exit !(NF == 3 && $2 - $1 > 1.75 - 0.11 && $2 - $1 < 1.75 - 0.10 && $3 < $2 - 1.7) }'
check $? "attention's workspace is in the plan: $fast GiB, deterministic $same, of a long sequence $long"

"$MOAI_BIN/moai_train" --model configs/moai-3b.json --data nowhere --device cpu --device_memory 1 --output_dir "$TMPDIR/none" > "$TMPDIR/out" 2>&1
[ $? = 2 ] && grep -q 'moai: a rank needs [0-9.]* GiB and may take 1; ' "$TMPDIR/out" && grep -q 'memory per rank' "$TMPDIR/out" && [ ! -e "$TMPDIR/none" ]
check $? "a start that does not fit: the plan, both figures, status 2, nothing made"
plan --device_memory 0.0001 && grep -q 'GiB of the 0.0001 that device_memory gives it$' "$TMPDIR/out" &&
    grep -q 'GiB and may take 0.0001; ' "$TMPDIR/out"
check $? "device_memory is said as it was given"
done_testing
