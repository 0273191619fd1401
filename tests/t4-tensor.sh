#!/bin/sh
# Tensor parallelism trains the same model: 20 steps of fp32 on TP 2, 4 and 14 against one rank.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200
layout one 1 --batch_size 2
layout one-full 1 --batch_size 2 --gradient_checkpointing full
layout one-selective 1 --batch_size 2 --gradient_checkpointing selective
learns one
same_bits one-full one
same_bits one-selective one

layout tp2 2 --tensor_parallel 2 --batch_size 2
layout tp2-again 2 --tensor_parallel 2 --batch_size 2
layout tp2-selective 2 --tensor_parallel 2 --batch_size 2 --gradient_checkpointing selective
layout tp4-at-once 4 --tensor_parallel 4 --batch_size 8
agree tp2 one
same_bits tp2-again tp2
same_bits tp2-selective tp2
agree tp4-at-once one

model narrow 3 14 2
use_model=narrow
layout narrow-one 1 --batch_size 1
layout narrow-tp14 14 --tensor_parallel 14 --batch_size 1
agree narrow-tp14 narrow-one
done_testing
