#!/bin/bash
# What starting again cannot cure: the job ends with a line that says why, and does not come back.
. tests/slurm/scenario.sh
prepare

run_file too-wide tensor_parallel 2 pipeline_parallel 4
submit too-wide
ended FAILED
starts 1
says "4 nodes x 1 ranks: the run file does not allow it, nor any fewer nodes; not requeued"
says "world size 4 is not tensor_parallel 2 x context_parallel 1 x data_parallel any x pipeline_parallel 4"

run_file misspelt tensor_paralel 2
submit misspelt
ended FAILED
starts 1
says 'unknown key "tensor_paralel"; did you mean "tensor_parallel"?'

run_file other
submit other --nodes=1
ended COMPLETED
run_file other seed 7
submit other --nodes=1
ended FAILED
starts 1
says "checkpoint-40: seed 42, this run has 7"

# a shard that cannot be read: each start fails in its first step
cp -r "$runs/corpus" "$runs/whole"
for shard in "$runs"/corpus/train-*.h5; do damage "$shard"; done
run_file stuck
MOAI_RESTARTS=2 submit stuck --nodes=1
ended FAILED
starts 3
says "2 restarts in a row have not come further than step 0"
cp -r "$runs/whole/." "$runs/corpus"
submit stuck --nodes=1
ended COMPLETED
starts 1
samples_once

done_testing
