#!/bin/sh
# `mpirun -np 32` on 28 layers is TP4 x DP2 x PP4, and trains what one rank trains.
. tests/lib/layouts.sh

model nano 28 28 4
use_model=nano
data corpus 200
layout one 1 --batch_size 1
layout np32 32 --tensor_parallel 4 --pipeline_parallel 4 --batch_size 1
grep -q '32 ranks = TP 4 x CP 1 x DP 2 x PP 4' "$runs/np32.log"
check $? "32 ranks are TP 4 x DP 2 x PP 4"
agree np32 one
done_testing
