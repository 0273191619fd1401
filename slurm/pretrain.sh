#!/bin/bash
# Starts or resumes a pretraining run; what is trained is the run file's business.
#
#   sbatch slurm/pretrain.sh [RUN.json] [--key value ...]     ranks: the allocation's tasks (--nodes, --ntasks-per-node)
#   bash slurm/pretrain.sh [RUN.json] [--key value ...]       outside Slurm: NP local ranks, 4 unless NP= says otherwise
#
# The run file gives tensor_parallel and pipeline_parallel; data_parallel 0 takes the ranks that are left.  The run goes on
# from the newest complete checkpoint of its output_dir.  Before the time limit Slurm sends USR1: the ranks finish the step and
# save, and the job is requeued.  TERM (scancel -b -s TERM) does the same without the requeue.
# MOAI_BIN: directory of moai_train (build, or the PATH).  MOAI_LAUNCH: "mpirun" or "srun --mpi=pmix" instead of the choice made here.
#SBATCH --job-name=moai
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=moai-%j.log
set -u
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" || exit 1

if [ -n "${SLURM_JOB_ID:-}" ]; then
    run=configs/pretrain.json
    if [ -n "${MOAI_LAUNCH:-}" ]; then read -ra launch <<< "$MOAI_LAUNCH"
    elif srun --mpi=list 2>&1 | grep -q pmix; then launch=(srun --mpi=pmix)
    else launch=(mpirun)
    fi
    [ "${launch[0]}" = srun ] || launch+=(-np "$SLURM_NTASKS")
else
    run=configs/demo/run.json
    launch=(mpirun -np "${NP:-4}" --oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none)
    [ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    [ $# -gt 0 ] || [ -e output/demo/data/manifest.json ] || make demo-data || exit 1
fi
case ${1:-} in *.json) run=$1; shift ;; esac
program="${MOAI_BIN:-build}/moai_train"
[ -x "$program" ] || program=$(command -v moai_train) || { echo "pretrain.sh: no moai_train in ${MOAI_BIN:-build} or the PATH: run make" >&2; exit 1; }

"${launch[@]}" "$program" --config "$run" --resume_from_checkpoint auto "$@" < /dev/null &
ranks=$! requeue=
trap 'requeue=1; kill -USR1 $ranks' USR1
trap 'kill -USR1 $ranks' TERM
while wait $ranks; status=$?; kill -0 $ranks 2> /dev/null; do :; done       # a signal ends a wait early
wait $ranks; status=$?

if [ -n "$requeue" ] && [ $status = 0 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    echo "pretrain.sh: saved; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
