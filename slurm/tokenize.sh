#!/bin/bash
# Encodes text to token shards with all cores of the allocation's nodes, and audits what it wrote.
#
#   sbatch slurm/tokenize.sh OUTPUT --tokenizer tok/tokenizer.model --input books/*.txt [--key value ...]
#                                   the keys of moai_tokenize encode
#
# The shards are the same on any number of nodes.  Inputs and OUTPUT lie where all nodes see them, with room for twice the shards.
# When a node dies Slurm starts the job again, from the beginning.
# For your site: the #SBATCH lines.  MOAI_BIN: directory of moai_tokenize (build, or the PATH).
#SBATCH --job-name=moai-tokenize
#SBATCH --nodes=1-4
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=moai-tokenize-%j.log
set -u
cd "${SLURM_SUBMIT_DIR:?start it with sbatch, or run moai_tokenize itself}" || exit 1
output=${1:?tokenize.sh: the first argument is the directory for the shards}
shift
program="${MOAI_BIN:-build}/moai_tokenize"
[ -x "$program" ] || program=$(command -v moai_tokenize) || { echo "tokenize.sh: no moai_tokenize in ${MOAI_BIN:-build}: run make"; exit 2; }

# One rank a node, a thread on each of its cores.  SLURM_PMIX_FENCE: see pretrain.sh.
export SLURM_PMIX_FENCE=tree OMPI_MCA_hwloc_base_binding_policy=none
if srun --mpi=list 2>&1 | grep -qw pmix; then
    launch=(srun --mpi=pmix --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1
            --cpus-per-task="$SLURM_CPUS_ON_NODE" --kill-on-bad-exit=1)
else
    launch=(mpirun --map-by ppr:1:node)
fi
"${launch[@]}" "$program" encode --no_progress --output "$output" "$@" < /dev/null || exit
exec "$program" audit "$output"
