#!/bin/sh
# The golden models on two GPUs: gradients against Transformers', steps against torch.optim.AdamW.
. tests/gpu/gpus.sh

[ "$gpus" -ge 2 ] || skip_all "$gpus GPU here"
mpirun -np 2 "$MOAI_BIN/tests/t2-golden-ranks" "$@"
