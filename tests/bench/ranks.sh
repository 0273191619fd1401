#!/bin/sh
# What ranks cost: four ranks of one thread on two cores, in several layouts, against one rank of two threads at the same work: 8
# micro-batches of one sample a step.  One table; each figure is a layout's best step of all rounds, as other work on the machine
# only ever slows a step down.
#   ROUNDS=2 STEPS=6 HIDDEN=512 LAYERS=8 SEQ=256 CORES=0,1 tests/run tests/bench/ranks.sh
set -eu
unset OMPI_MCA_btl_vader_single_copy_mechanism    # tests/run forbids it; a run lets process_start find out
ROUNDS=${ROUNDS:-2} STEPS=${STEPS:-6} HIDDEN=${HIDDEN:-512} LAYERS=${LAYERS:-8} SEQ=${SEQ:-256} CORES=${CORES:-0,1}

cat > "$TMPDIR/model.json" <<EOF
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": $LAYERS, "hidden_size": $HIDDEN,
 "intermediate_size": $((HIDDEN * 11 / 4)), "num_attention_heads": 28, "num_key_value_heads": 4, "head_dim": $((HIDDEN / 16)),
 "vocab_size": 4096, "max_position_embeddings": $SEQ, "rms_norm_eps": 1e-6, "rope_theta": 10000}
EOF
mkdir "$TMPDIR/data"
"$MOAI_BIN/tests/tools/make_tokens" "$TMPDIR/data" 4096 64 "$SEQ"

# best_step NAME RANKS THREADS FLAGS: adds the run's best step, in seconds, to NAME.best
best_step() {
    name=$1 ranks=$2 threads=$3
    shift 3
    rm -rf "$TMPDIR/out"
    OMP_NUM_THREADS=$threads OMP_PROC_BIND=false taskset -c "$CORES" mpirun -np "$ranks" "$MOAI_BIN/moai_train" --model "$TMPDIR/model.json" \
        --data "$TMPDIR/data" --output_dir "$TMPDIR/out" --device cpu --num_threads "$threads" --seq_length "$SEQ" --batch_size 1 \
        --global_batch_size 8 --max_steps "$STEPS" --save_steps 0 --no_save_on_exit --no_tensorboard --no_progress "$@" \
        > "$TMPDIR/log" 2>&1 || { cat "$TMPDIR/log"; exit 1; }
    sed -n 's/.*"step_seconds":\([0-9.e+-]*\).*/\1/p' "$TMPDIR/out/metrics.jsonl" | tail -n +2 | sort -g | head -n 1 >> "$TMPDIR/$name.best"
}

for _ in $(seq "$ROUNDS"); do
    best_step one 1 2
    best_step tp4 4 1 --tensor_parallel 4
    best_step pp4 4 1 --pipeline_parallel 4
    best_step dp4 4 1
    best_step tp2-pp2 4 1 --tensor_parallel 2 --pipeline_parallel 2
    best_step tp2-dp2 4 1 --tensor_parallel 2
    best_step pp2-dp2 4 1 --pipeline_parallel 2
done

one=$(sort -g "$TMPDIR/one.best" | head -n 1)
echo "$LAYERS layers, hidden $HIDDEN, $SEQ tokens a sample, fp32, 8 micro-batches a step, on cores $CORES of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
printf '%-24s %10s %10s %8s\n' layout s/step tokens/s loss
for name in one tp4 pp4 dp4 tp2-pp2 tp2-dp2 pp2-dp2; do
    sort -g "$TMPDIR/$name.best" | head -n 1 | awk -v one="$one" -v tokens=$((8 * SEQ)) -v name="$name" \
        '{ printf "%-24s %10.3f %10.0f %7.1f%%\n", name == "one" ? "1 rank x 2 threads" : "4 ranks, " name, $1, tokens / $1, 100 * (1 - one / $1) }'
done
