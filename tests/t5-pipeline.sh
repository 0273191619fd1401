#!/bin/sh
# The pipeline trains the same model: 20 steps of fp32 on PP 2, 3 (uneven) and with TP, against one rank.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200
layout one 1 --batch_size 1
layout pp2 2 --pipeline_parallel 2 --batch_size 1
layout pp2-again 2 --pipeline_parallel 2 --batch_size 1
layout pp2-full 2 --pipeline_parallel 2 --batch_size 1 --gradient_checkpointing full
layout pp2-at-once 2 --pipeline_parallel 2 --batch_size 8
layout pp3 3 --pipeline_parallel 3 --batch_size 1
layout tp2-pp2 4 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 2
agree pp2 one
same_bits pp2-again pp2
same_bits pp2-full pp2
agree pp2-at-once one
agree pp3 one
agree tp2-pp2 one

model tied 4 28 4 true
use_model=tied
layout tied-one 1 --batch_size 1
layout tied-pp3 3 --pipeline_parallel 3 --batch_size 2
agree tied-pp3 tied-one
done_testing
