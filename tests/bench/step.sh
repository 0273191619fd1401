#!/bin/sh
# The training step against its products alone, then, where $PYTHON has torch, the same step in PyTorch.
threads=${MOAI_BENCH_THREADS:-2}
for numbers in --no_bf16 --bf16; do
    "$MOAI_BIN/tests/bench/bench-step" --plan --model configs/bench.json --seq_length 1024 --num_threads "$threads" $numbers || exit 1
done
if "$PYTHON" -c 'import torch' 2> /dev/null; then
    exec "$PYTHON" -W ignore tests/bench/torch_step.py --threads "$threads"
fi
echo "PyTorch: $PYTHON has none, so there is no comparison; PYTHON=... names another"
