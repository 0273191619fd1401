# shellcheck shell=sh
# gpus.sh: sourced by the tests of whole runs on GPUs, beside layouts.sh, whose words it has.  `make test-gpu` runs them with `-d cuda`; with
# `-d cpu` they run without a GPU, which shows that the scripts are right.
#
#   $gpus                       how many there are (with -d cpu: 2, the ranks that share the host)
#   skip_all REASON             ends the script: nothing of it can be tested here
#   even ...                    `layout` of a model whose heads suit cuDNN: 64 wide, sequences of 128 tokens
# shellcheck source=tests/lib/layouts.sh
. tests/lib/layouts.sh

gpus=2
if [ "$device" != cpu ]; then
    gpus=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU')
    [ -z "${CUDA_VISIBLE_DEVICES:-}" ] || gpus=$(echo "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | grep -c .)
fi

skip_all() {
    echo "1..0 # SKIP $1"
    exit 0
}

cat > "$runs/even.json" <<EOF_MODEL
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 4, "hidden_size": 192, "intermediate_size": 512,
 "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000, "max_position_embeddings": 256,
 "rms_norm_eps": 1e-6, "initializer_range": 0.05, "rope_theta": 10000, "tie_word_embeddings": false}
EOF_MODEL
even_data() {
    mkdir -p "$runs/even-corpus"
    "$MOAI_BIN/tests/tools/make_tokens" "$runs/even-corpus" 1000 500 128 || exit 1
}
even() {
    [ -d "$runs/even-corpus" ] || even_data
    odd_model=$use_model odd_data=$use_data
    use_model=even use_data=even-corpus
    layout "$@" --seq_length 128
    use_model=$odd_model use_data=$odd_data
}
