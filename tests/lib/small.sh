# shellcheck shell=sh
# small.sh: sourced by tests that start small runs: a model in $dir/model.json, tokens for it in $dir/data, and the words of check.sh.
set -u
export OMP_NUM_THREADS=1
dir=$TMPDIR
. tests/lib/check.sh
shown="$dir/out"
cat > "$dir/model.json" <<JSON
{"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 6, "num_key_value_heads": 2,
 "head_dim": 8, "vocab_size": 97, "max_position_embeddings": 64, "rope_theta": 10000}
JSON
mkdir "$dir/data" && "$MOAI_BIN/tests/tools/make_tokens" "$dir/data" 97 4000 32 || exit 1
