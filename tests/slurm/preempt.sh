#!/bin/bash
# A job that gives way: to another one, and comes back; to its user, and goes on when submitted again.
. tests/slurm/scenario.sh
prepare

run_file finish tensor_parallel 2
submit finish
ended COMPLETED

run_file preempted tensor_parallel 2
submit preempted
at_step 15
sbatch --partition=urgent --nodes=4 --exclusive --output="$runs/urgent.log" --wrap "srun hostname" > /dev/null
ended COMPLETED
starts 2
says "saved for a job of more priority"
[ "$(sort -u "$runs/urgent.log" | grep -c node)" = 4 ]
check $? "the other job has run on all nodes meanwhile"
samples_once
same_bits preempted finish

run_file cancelled tensor_parallel 2
submit cancelled
at_step 15
scancel "$job"
ended CANCELLED
starts 1
submit cancelled
ended COMPLETED
starts 1
samples_once
same_bits cancelled finish

run_file told tensor_parallel 2
submit told
at_step 15
scancel --batch --signal=TERM "$job"
ended COMPLETED
starts 1
last=$(sed -n 's/^{"step":\([0-9]*\),"loss.*/\1/p' "$runs/told/metrics.jsonl" | tail -n 1)
[ "$last" -lt $steps ] && [ -e "$runs/told/checkpoint-$last/manifest.json" ]
check $? "told: left and saved after step $last of $steps"

done_testing
