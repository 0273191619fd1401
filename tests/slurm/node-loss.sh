#!/bin/bash
# A node dies under the job: it goes on on the spare, or on fewer nodes, and ends as the run that was left alone.
. tests/slurm/scenario.sh
prepare

run_file pp3 pipeline_parallel 3
submit pp3 --nodes=3
ended COMPLETED
samples_once

# mpirun fails at once: the script sends the job back, it waits until Slurm has noticed too
run_file worker pipeline_parallel 3
MOAI_LAUNCH=mpirun submit worker --nodes=3
at_step 15
node_lost last
ended COMPLETED
starts 2
says "the ranks failed with status"
samples_once
same_bits worker pp3
node_back

# srun may wait for the dead node's ranks: Slurm requeues
run_file srun pipeline_parallel 3
submit srun --nodes=3
at_step 15
node_lost last
ended COMPLETED
starts 2
samples_once
same_bits srun pp3
node_back

# the script dies with its node; four nodes become three, of which TP 2 takes two
run_file batch tensor_parallel 2
submit batch
at_step 15
node_lost first
ended COMPLETED
starts 2
says "2 nodes x 1 ranks of .*, 1 idle: world size 3 is not tensor_parallel 2"
samples_once
agree batch pp3

done_testing
