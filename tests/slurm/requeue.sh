#!/bin/bash
# A job on four nodes that is left alone, warned of its time limit, robbed of a rank, and that outlives its controller.
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
says "saved before the time limit"
samples_once
same_bits usr1 finish

# the controller comes back in time to pass the warning on, and is away again when the job wants to go back into the queue
run_file controller tensor_parallel 2
MOAI_LAUNCH=mpirun submit controller
at_step 5
controller_stop
at_step 7
controller_start
wait_until 20 scancel --batch --signal=USR1 "$job"
controller_stop
sleep 2
controller_start
ended COMPLETED
starts 2
samples_once
same_bits controller finish

run_file killed tensor_parallel 2
submit killed
at_step 15
kill_rank
ended COMPLETED
starts 2
says "the ranks failed with status"
samples_once
same_bits killed finish

done_testing
