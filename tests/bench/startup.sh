#!/bin/sh
# What each rank opens and reads until the first step, on a data set of about 1000 shards: a new start, and from a checkpoint of the same
# layout, of another, and of one imported file.  Counted by strace (package strace); shared libraries and /proc, /sys, /dev do not count.
#   SHARDS=1000 RANKS=8 INTERMEDIATE=512 FLAGS="--tensor_parallel 2 --pipeline_parallel 2" MOAI_BIN=build tests/run tests/bench/startup.sh
set -eu
command -v strace > /dev/null || { echo "startup: skipped, strace is not installed"; exit 0; }
SHARDS=${SHARDS:-1000} RANKS=${RANKS:-8} FLAGS=${FLAGS:---tensor_parallel 2 --pipeline_parallel 2}
OTHER=${OTHER:---tensor_parallel 1 --pipeline_parallel 4}
export OMP_NUM_THREADS=1

cat > "$TMPDIR/model.json" <<JSON
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": ${INTERMEDIATE:-512},
 "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 64, "rope_theta": 10000}
JSON
cat src/*/*.[ch] > "$TMPDIR/text.txt"
"$MOAI_BIN/moai_tokenize" train --input "$TMPDIR/text.txt" --vocab_size 512 --output "$TMPDIR/tokenizer" > "$TMPDIR/log" 2>&1
encode() {
    "$MOAI_BIN/moai_tokenize" encode --tokenizer "$TMPDIR/tokenizer.model" --input "$TMPDIR/text.txt" --document_separator line \
        --output "$TMPDIR/data" --overwrite --shard_tokens "$1" --validation_fraction 0.05 --no_progress > "$TMPDIR/log" 2>&1
}
encode 100000000
encode $(($(sed -n 's/.*"tokens": \([0-9]*\).*/\1/p' "$TMPDIR/data/manifest.json" | head -n 1) / SHARDS))

# run DIR FLAGS: under strace, to the first step and no farther
run() {
    out=$1
    shift
    rm -f "$TMPDIR"/trace.*
    # shellcheck disable=SC2016
    mpirun -np "$RANKS" sh -c 'exec strace -qq -f -ttt -y -s 24 --seccomp-bpf -e trace=open,openat,read,pread64,readv,preadv,write -e signal=none \
        -o "$TMPDIR/trace.$OMPI_COMM_WORLD_RANK" "$@"' strace "$MOAI_BIN/moai_train" --model "$TMPDIR/model.json" --data "$TMPDIR/data" \
        --output_dir "$TMPDIR/$out" --device cpu --num_threads 1 --dataloader_num_workers 0 --seq_length 64 --global_batch_size 8 --max_steps 4 --save_steps 0 \
        --lr_scheduler_type constant --eval_steps 4 --eval_batches 1 --no_tensorboard --no_progress "$@" > "$TMPDIR/log" 2>&1 || { tail -n 20 "$TMPDIR/log"; exit 1; }
}

count() { perl tests/bench/startup.pl "$TMPDIR" "$RANKS" "$1"; }

echo "$(grep -c '"file"' "$TMPDIR/data/manifest.json") shards, $RANKS ranks, $FLAGS"
# shellcheck disable=SC2086
{
    run new $FLAGS
    count "a new start"
    run new $FLAGS --resume_from_checkpoint auto --max_steps 8
    count "from a checkpoint of the same layout"
    run other $OTHER --resume_from_checkpoint "$TMPDIR/new/checkpoint-4" --max_steps 8
    count "from a checkpoint of another layout, $OTHER"
    "$MOAI_BIN/moai_checkpoint" export "$TMPDIR/new/checkpoint-4" "$TMPDIR/hf" > "$TMPDIR/log" 2>&1
    "$MOAI_BIN/moai_checkpoint" import "$TMPDIR/hf" "$TMPDIR/imported" > "$TMPDIR/log" 2>&1
    run one $FLAGS --resume_from_checkpoint "$TMPDIR/imported/checkpoint-0"
    count "from an imported checkpoint of one file"
}
