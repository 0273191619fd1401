#!/bin/sh
# To Hugging Face and back: weights trained here and exported give Transformers the logits, loss and gradients that they
# give our model; directories that Transformers wrote (sharded, bf16, tied) likewise, and exported again are the same.
# Needs a Python with torch, transformers from 5 on (4 knows no rope_parameters) and safetensors: PYTHON=..., else one
# is made in the build directory with pip.
. tests/lib/layouts.sh

has_libraries() {
    "$1" -c 'import torch, transformers, safetensors; assert int(transformers.__version__.split(".")[0]) >= 5' > /dev/null 2>&1
}
make_venv() {
    "${PYTHON:-python3}" -m venv "$1" || return 1
    pip="$1/bin/pip install -q"
    $pip torch
    $pip transformers safetensors
}
python=${PYTHON:-python3}
if ! has_libraries "$python"; then
    python=$MOAI_BIN/hf-venv/bin/python
    has_libraries "$python" || make_venv "$MOAI_BIN/hf-venv" > "$runs/log" 2>&1
    if ! has_libraries "$python"; then
        sed 's/^/# /' "$runs/log"
        echo "Bail out! no Python with torch, transformers and safetensors: give one as PYTHON=..."
        exit 1
    fi
fi

# try WHAT COMMAND...: its output shows when it fails
try() {
    what=$1
    shift
    "$@" > "$runs/log" 2>&1
    status=$?
    [ $status = 0 ] || sed 's/^/# /' "$runs/log"
    check $status "$what"
}
hf() { "$python" -B tests/slow/t9-hf-roundtrip.py "$@"; }
# compare WHAT WEIGHTS RESULTS: our model with these weights against what Transformers computed
compare() {
    try "$1" "$MOAI_BIN/tests/t2-golden" "$runs/$2" "$runs/$3"
    sed -n 's/^ok [0-9]* - [^:]*: /# /p' "$runs/log"
}
# greedy WEIGHTS HF_DIR: the most likely tokens one after another, with a cache here and there
greedy() {
    ours=$(mpirun -np 2 "$MOAI_BIN/moai_generate" "$runs/$1" --input_ids 7,21,3,40 --max_new_tokens 40 --temperature 0 \
        --ignore_eos --jsonl --num_threads 1 2> "$runs/log" | sed -n 's/.*"ids": *\[\([0-9, ]*\)\].*/\1/p' | tr -d ' ')
    theirs=$(hf greedy "$runs/$2" 7,21,3,40 40 2>> "$runs/log")
    [ -n "$ours" ] && [ "$ours" = "$theirs" ]
    status=$?
    [ $status = 0 ] || sed 's/^/# /' "$runs/log"
    check $status "moai_generate on 2 ranks writes $ours, Transformers $theirs"
}
checkpoint() { "$MOAI_BIN/moai_checkpoint" "$@"; }

# train and export
data corpus 64
steps=6 learning_rate=1e-2
model small 3 14 2
model tied 3 4 4 true
for use_model in small tied; do
    run=$use_model-run
    layout "$run" 4 --tensor_parallel 2 --pipeline_parallel 2
    saved=$run/checkpoint-6
    for dtype in float32 bfloat16; do
        out=$run-$dtype
        try "$use_model: export $dtype" \
            checkpoint export "$runs/$saved" "$runs/$out" --dtype $dtype --max_shard_size 100KB
        [ "$(find "$runs/$out" -name '*.safetensors' | wc -l)" -gt 1 ]
        check $? "in shards of 100 kB"
        try "Transformers loads it" hf results "$runs/$out" "$runs/$out-results"
        compare "and computes what our model does from it" "$out" "$out-results"
    done
    compare "and what our model does from the checkpoint" "$saved" "$run-float32-results"
done

# import
for kind in sharded bf16; do
    dtype=float32
    [ $kind = bf16 ] && dtype=bfloat16
    try "Transformers writes a $kind directory" hf make $kind "$runs/$kind"
    try "import it" checkpoint import "$runs/$kind" "$runs/$kind-run"
    try "Transformers computes from the directory" hf results "$runs/$kind" "$runs/$kind-results"
    compare "what our model does from the checkpoint" $kind-run/checkpoint-0 $kind-results
    greedy $kind-run/checkpoint-0 $kind
    try "export it again" checkpoint export "$runs/$kind-run/checkpoint-0" "$runs/$kind-again" --dtype $dtype
    try "the same tensors and configuration" hf same "$runs/$kind" "$runs/$kind-again"
done

# train on from imported weights
cp "$runs/sharded/config.json" "$runs/imported.json"
use_model=imported steps=20
layout sharded-run 2 --tensor_parallel 2 --resume_from_checkpoint auto
learns sharded-run

# files that nothing here reads: in, through a run, and out
tokenize=$MOAI_BIN/moai_tokenize
cat src/*/*.c > "$runs/text"
{ "$tokenize" train --input "$runs/text" --vocab_size 600 --output "$runs/tok" && "$tokenize" encode --tokenizer "$runs/tok.model" \
    --input "$runs/text" --output "$runs/tok-data" --no_progress; } > "$runs/log" 2>&1
check $? "a tokenizer and its tokens"
sed 's/"vocab_size": [0-9]*/"vocab_size": 640/' "$runs/small.json" > "$runs/padded.json"
# steps_of NAME N ARGUMENTS...
steps_of() {
    name=$1 n=$2
    shift 2
    try "$name: $n steps" "$MOAI_BIN/moai_train" --model "$runs/padded.json" --data "$runs/tok-data" --output_dir "$runs/$name" --seq_length 32 \
        --max_steps "$n" --lr_scheduler_type constant --no_tensorboard "$@"
}
steps_of dressed-first 2
try "export" checkpoint export "$runs/dressed-first/checkpoint-2" "$runs/dressed"
rm "$runs/dressed/tokenizer.model"
try "Transformers gives it chat templates and a generation config" hf dress "$runs/dressed"
try "import" checkpoint import "$runs/dressed" "$runs/dressed-run"
steps_of dressed-run 4 --resume_from_checkpoint auto
try "export again" checkpoint export "$runs/dressed-run/checkpoint-4" "$runs/dressed-again"
try "AutoTokenizer and GenerationConfig are as they were" hf dressed "$runs/dressed" "$runs/dressed-again" "$runs/text"
done_testing
