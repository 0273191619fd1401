# shellcheck shell=sh
# layouts.sh: sourced by the tests that train one tiny model on many layouts and compare.
#
#   layout NAME RANKS [FLAGS]   trains NAME; with RANKS 1 without mpirun
#   halves NAME RANKS FLAGS -- RANKS FLAGS   trains NAME for 10 steps on the first layout, then from its checkpoint on the second
#   agree A B [TOLERANCE]       one TAP line: do the runs A and B agree to 1e-5 (0: the same bits)?
#   same_bits A B
#   learns A                    the loss has fallen
#   and the words of check.sh
#
# `-d DEVICE` as the script's arguments: what it trains on, cpu by default.
set -u
export OMP_NUM_THREADS=1
runs=$TMPDIR device=cpu
[ "${1:-}" != -d ] || device=$2
. tests/lib/check.sh

# model NAME LAYERS HEADS KV_HEADS [MORE KEYS]: sizes that no TP divides evenly, and head_dim * heads != hidden
model() {
    cat > "$runs/$1.json" <<EOF
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": $2, "hidden_size": 60,
 "intermediate_size": 151, "num_attention_heads": $3, "num_key_value_heads": $4, "head_dim": 8, "vocab_size": 331,
 "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "initializer_range": 0.05, "rope_theta": 10000, "tie_word_embeddings": ${5:-false}}
EOF
}

# data NAME SAMPLES [COUNT ...]: a corpus of that many samples of $length tokens (29), noise in the 8 that come at each COUNT
data() {
    name=$1 samples=$2
    shift 2
    mkdir -p "$runs/$name"
    "$MOAI_BIN/tests/tools/make_tokens" "$runs/$name" 331 "$samples" "$length" "$@" || exit 1
}

# what `layout` trains; every layout takes 8 samples a step
use_model=small use_data=corpus length=29
steps=20 learning_rate=5e-4
layout() {
    run=$1 ranks=$2
    shift 2
    start=
    [ "$ranks" = 1 ] || start="mpirun -np $ranks"
    # shellcheck disable=SC2086
    if ! $start "$MOAI_BIN/moai_train" --model "$runs/$use_model.json" --data "$runs/$use_data" --output_dir "$runs/$run" \
        --device "$device" --num_threads 1 --seq_length "$length" --global_batch_size 8 --max_steps $steps --learning_rate "$learning_rate" \
        --warmup_steps 4 --save_steps 0 --no_tensorboard --no_progress --log_samples "$@" > "$runs/$run.log" 2>&1; then
        echo "# $run on $ranks ranks, $*: failed"
        tail -n 20 "$runs/$run.log" | sed 's/^/# /'
    fi
}

halves() {
    halved=$1 ranks=$2 flags=
    shift 2
    while [ "$1" != -- ]; do flags="$flags $1"; shift; done
    shift
    # shellcheck disable=SC2086
    layout "$halved" "$ranks" $flags --stop_at_step 10
    ranks=$1
    shift
    layout "$halved" "$ranks" "$@" --resume_from_checkpoint auto
}

agree() {
    story=$("$MOAI_BIN/tests/tools/compare_runs" "$runs/$1" "$runs/$2" "${3:-1e-5}" 2>&1)
    status=$?
    [ $status = 0 ] || echo "$story" | sed 's/^#* */# /'
    check $status "$1 against $2: $(echo "$story" | tail -n 1)"
}

# Training does something: the loss falls by more than the noise of a batch.
learns() {
    ends=$(sed -n 's/.*"loss":\([0-9.e+-]*\).*/\1/p' "$runs/$1/metrics.jsonl" | sed -n '1p;$p' | tr '\n' ' ')
    echo "$ends" | awk '{ exit !(NF == 2 && $2 < $1 - 0.1) }'
    check $? "$1 learns: loss from and to $ends"
}

same_bits() { agree "$1" "$2" 0; }
