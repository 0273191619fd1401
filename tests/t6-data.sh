#!/bin/sh
# Data parallelism with ZeRO-1, alone and with the other axes: 20 steps of fp32 against one rank, samples included.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200
layout one 1 --batch_size 1
layout dp2 2 --batch_size 1
layout dp2-again 2 --batch_size 1
layout dp4-at-once 4 --batch_size 2
layout tp2-dp2 4 --tensor_parallel 2 --batch_size 2
layout pp2-dp2 4 --pipeline_parallel 2 --batch_size 1 --gradient_checkpointing selective
layout tp2-pp2-dp2 8 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1
agree dp2 one
same_bits dp2-again dp2
agree dp4-at-once one
agree tp2-dp2 one
agree pp2-dp2 one
agree tp2-pp2-dp2 one
done_testing
