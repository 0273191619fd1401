#!/bin/sh
# The training step against its products alone, then, where $PYTHON has torch, the same step in PyTorch.
threads=${MOAI_BENCH_THREADS:-2}
"$MOAI_BIN/tests/bench/bench-step" "$threads" || exit 1
if "$PYTHON" -c 'import torch' 2> /dev/null; then
    exec "$PYTHON" -W ignore tests/bench/torch_step.py --threads "$threads"
fi
echo "PyTorch: $PYTHON has none, so there is no comparison; PYTHON=... names another"
