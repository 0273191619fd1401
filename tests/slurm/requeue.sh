#!/bin/bash
# A job on four nodes: left alone, it finishes; warned of its time limit, it saves, goes back into the queue and ends as the same run.
. tests/slurm/scenario.sh
prepare

run_file finish tensor_parallel 2
submit finish
ended COMPLETED
starts 1
samples_once

run_file usr1 tensor_parallel 2
submit usr1
at_step 15
scancel --batch --signal=USR1 "$job"
ended COMPLETED
starts 2
samples_once
same_bits usr1 finish

done_testing
