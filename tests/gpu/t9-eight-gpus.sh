#!/bin/sh
# TP2 x PP2 x DP2 on eight GPUs trains what one trains: kernels of five NCCL communicators (tp, dp, two of pp, and embed with a tied head) are on
# each GPU at once.  The same bits twice, fp32 to 1e-5, bf16 to rounding; with fewer than eight GPUs, TP2 x PP2 on four.
. tests/gpu/gpus.sh

[ "$device" != cpu ] || gpus=8
[ "$gpus" -ge 4 ] || skip_all "four or eight GPUs are needed, $gpus here"
model small 4 28 4 true
data corpus 100

n=4
[ "$gpus" -lt 8 ] || n=8
axes="--tensor_parallel 2 --pipeline_parallel 2"
layout one 1 --batch_size 2 --deterministic
even bf16 1 --bf16 --batch_size 2 --deterministic
# shellcheck disable=SC2086
{
    layout many $n $axes --batch_size 2 --deterministic
    layout again $n $axes --batch_size 2 --deterministic
    even bf16-many $n $axes --bf16 --batch_size 1 --deterministic
    even bf16-full $n $axes --bf16 --batch_size 1 --deterministic --gradient_checkpointing full
    layout timed $n $axes --batch_size 1
}
agree many one
same_bits again many
agree timed one
agree bf16-many bf16 1e-2
same_bits bf16-full bf16-many
done_testing
