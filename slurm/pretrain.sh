#!/bin/bash
# Starts a pretraining run and keeps it going until it has finished; what is trained is the run file's business.
#
#   sbatch slurm/pretrain.sh [RUN.json] [--key value ...]     one rank a GPU; without GPUs one for every --cpus-per-task cores
#   bash slurm/pretrain.sh [RUN.json] [--key value ...]       outside Slurm: NP local ranks, 4 unless NP= says otherwise
#
# Every start goes on from the newest good checkpoint of output_dir, on as many of the allocation's nodes as the run file's
# layout divides: data_parallel 0 takes what TP and PP leave, and with global_batch_size set a step is the same on any number.
#
#   USR1, 5 minutes before the time limit     the ranks finish the step and save; the job goes back into the queue
#     (USR2 and XCPU likewise)
#   preemption with a grace time              likewise; without one, as after a crash
#   a crash, a reported hang, a lost node     the job goes back into the queue, and starts on the nodes that Slurm has then
#   MOAI_RESTARTS (3) restarts in a row have  the job ends.  OUTPUT_DIR/restarts keeps step and count; sbatch counts anew
#     brought no newer checkpoint
#   status 2: the configuration is wrong      the job ends, its log says what is wrong
#   TERM: scancel --batch --signal=TERM       the ranks finish the step and save; the job ends
#     (HUP and INT, Ctrl-C, likewise; a second INT waits for nothing)
#   scancel                                   the same, if the save fits in Slurm's KillWait
#
# For your site: the #SBATCH lines and the settings below.  --nodes=4 waits for four, --nodes=2-4 starts with what is there; a
# range goes with --exclusive and without --ntasks-per-node, or Slurm holds a requeued job to the tasks of its first start.
# From the environment: MOAI_BIN, the directory of moai_train (build, or the PATH); MOAI_LAUNCH, srun or mpirun instead of the
# choice made here; MOAI_RESTARTS.
#SBATCH --job-name=moai
#SBATCH --nodes=2-4
#SBATCH --exclusive
#SBATCH --cpus-per-task=8
##SBATCH --gpus-per-node=8
##SBATCH --time=24:00:00
##SBATCH --account=
##SBATCH --partition=
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=moai-%j.log
set -u
caller=$PWD
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" || exit 1
say() { echo "pretrain.sh: $*"; }

# Settings of the libraries; what the environment already says stands.
setting() { [ -n "${!1+set}" ] || export "$1=$2"; }
setting NCCL_DEBUG WARN                                # a failed collective says why, and on which host
# setting NCCL_SOCKET_IFNAME ib0                       # site: the network that joins the nodes, for NCCL's start
# setting NCCL_IB_HCA mlx5                             # site: the adapters that carry the data
# setting OMPI_MCA_btl_tcp_if_include ib0              # site: likewise Open MPI, when it finds no fabric of its own
# setting OMPI_MCA_oob_tcp_if_include ib0              # site: and its daemons
setting SLURM_PMIX_FENCE tree                          # srun: Slurm's default, tree and ring mixed, let a rank out of MPI_Init
                                                       # before another could receive; that one crashed (22.05, 7 % of starts)
setting OMPI_MCA_hwloc_base_binding_policy core        # a rank keeps its cores, and its memory stays near them

# A node's ranks share its cores evenly, and rank i takes GPU i: all GPUs stay visible to each, or NCCL could not copy between
# them directly.  Slurm's CPUs are hardware threads or cores, as the site has set it; mpirun counts cores.
launch_on() {  # launch_on NODES: sets launch
    local ranks=$(($1 * per_node)) cpus=$((SLURM_CPUS_ON_NODE / per_node)) cores
    case ${MOAI_LAUNCH:-$(srun --mpi=list 2>&1 | grep -qw pmix && echo srun)} in
    srun)
        launch=(srun --mpi=pmix --nodes="$1" --ntasks=$ranks --ntasks-per-node="$per_node" --cpus-per-task=$cpus
                --cpu-bind=cores --kill-on-bad-exit=1 ${SLURM_GPUS_ON_NODE:+--gpu-bind=none}) ;;
    *)
        cores=$(lscpu -p=socket,core | grep -v '#' | sort -u | wc -l)
        [ "$cores" -lt "$SLURM_CPUS_ON_NODE" ] || cores=$SLURM_CPUS_ON_NODE
        setting OMPI_MCA_rmaps_base_mapping_policy "ppr:$per_node:node:PE=$((cores / per_node))"
        export SLURM_TASKS_PER_NODE="$per_node(x$SLURM_JOB_NUM_NODES)"       # mpirun's slots
        launch=(mpirun -np $ranks) ;;
    esac
}

# The most nodes of the allocation whose ranks the run file's layout divides; what --plan says of all of them if none will do.
fit_layout() {
    local all=$SLURM_JOB_NUM_NODES why said
    per_node=${SLURM_NTASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-$((SLURM_CPUS_ON_NODE / ${SLURM_CPUS_PER_TASK:-1}))}}
    for ((nodes = all; nodes > 0; nodes--)); do
        plan=$("$program" --config "$run" "$@" --plan --plan_ranks $((nodes * per_node)) 2>&1); status=$?
        [ $status = 2 ] || break
        why=${why:-$plan}
    done
    if [ $nodes != 0 ] && [ $status != 0 ]; then
        say "moai_train --plan fails with status $status"
        echo "$plan"
        exit $status
    fi
    if [ $nodes = 0 ]; then
        say "$all nodes x $per_node ranks: the run file does not allow it, nor any fewer nodes; not requeued"
        echo "$why"
        exit 2
    fi
    [ $nodes = $all ] || said=", $((all - nodes)) idle: ${why##*moai: }"
    say "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $nodes nodes x $per_node ranks of $SLURM_JOB_NODELIST${said:-}"
    output=$(sed -n 's/^output  *//p' <<< "$plan")
    launch_on $nodes
}

newest_step() {  # of the complete checkpoints; 0: none
    local steps
    steps=$(cd "$output" 2> /dev/null && ls -d checkpoint-*[0-9]/manifest.json 2> /dev/null | tr -dc '0-9\n' | sort -n | tail -n 1)
    echo "${steps:-0}"
}

# OUTPUT_DIR/restarts: the newest step at the last start, and how many restarts in a row found no newer one.
count_restart() {
    local step count=0 now file=$output/restarts
    now=$(newest_step)
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
        { read -r step count < "$file"; } 2> /dev/null || step=$now count=$((SLURM_RESTART_COUNT - 1))   # lost: all count
        [ "$now" -gt "$step" ] && count=0 || count=$((count + 1))
    fi
    started_at=$now restarts=$count
    stop_without_progress $((restarts - 1))
    if ! mkdir -p "$output" || ! echo "$now $count" > "$file.new" || ! mv "$file.new" "$file"; then
        say "$file cannot be written: not started, or the restarts would not be counted"
        exit 1
    fi
}

stop_without_progress() {  # stop_without_progress RESTARTS: those behind us
    [ "$1" -ge "${MOAI_RESTARTS:-3}" ] || return
    say "$1 restarts in a row have not come further than step $started_at of $output: not requeued"
    exit 1
}

job_state() { squeue -h -j "$SLURM_JOB_ID" -o "%T %r" 2> /dev/null; }        # RUNNING None; nothing while the controller is away

# Has a job of more priority asked for our nodes since this start?  Slurm then sends TERM to the ranks, not to this script.
preempted() {
    local start asked
    start=$(scontrol -o show job "$SLURM_JOB_ID" 2> /dev/null)
    asked=${start##* PreemptTime=} start=${start##* StartTime=}
    [[ ${asked%% *} = [0-9]* && ! ${asked%% *} < ${start%% *} ]]
}

# A job that scancel ends, or that Slurm itself requeues since a node died, no longer runs: it is left to Slurm.
requeue() {
    local try refused=0
    [ "$(newest_step)" -gt "$started_at" ] || stop_without_progress "$restarts"
    say "$*; job $SLURM_JOB_ID goes back into the queue"
    for try in {1..60}; do
        case $(job_state) in
        RUNNING* | SIGNALING* | *TimeLimit) scontrol requeue "$SLURM_JOB_ID" && exit 0; [ $((refused += 1)) -lt 3 ] || exit 1 ;;
        ?*) exit 1 ;;
        esac
        sleep 10
    done
    say "the controller did not answer for 10 minutes"
    exit 1
}

on_usr1() {
    limit=1
    [ -z "$ranks" ] || kill -USR1 "$ranks"
}
on_int() {
    [ -z "$leave" ] || [ -z "$ranks" ] || kill -TERM "$ranks"
    on_term
}
on_term() {
    leave=1
    [ -z "$ranks" ] || kill -USR1 "$ranks"
    case ${SLURM_JOB_ID:+$(job_state)} in *TimeLimit) requeue "the time limit came before the checkpoint was complete" ;; esac
}

ranks= limit= leave= started_at=0 restarts=0
trap on_usr1 USR1 USR2 XCPU
trap on_term TERM HUP
trap on_int INT
if [ -n "${SLURM_JOB_ID:-}" ]; then
    run=configs/pretrain.json
else
    run=configs/demo/run.json
    # in a session of its own: mpirun would end the ranks at a terminal's Ctrl-C or when it closes, instead of passing on USR1
    launch=(setsid mpirun -np "${NP:-4}" --oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none)
    [ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    [ $# -gt 0 ] || [ -e $run ] || { say "no $run here: give a RUN.json" >&2; exit 2; }
    [ $# -gt 0 ] || [ -e output/demo/data/manifest.json ] || make demo-data || exit 1
fi
case ${1:-} in *.json) run=$1; shift; [ ! -e "$caller/$run" ] || run=$caller/$run ;; esac
program="${MOAI_BIN:-build}/moai_train"
[ -x "$program" ] || program=$(command -v moai_train) || { say "no moai_train in ${MOAI_BIN:-build} or the PATH: run make" >&2; exit 2; }
if [ -n "${SLURM_JOB_ID:-}" ]; then
    fit_layout "$@"
    count_restart
    [ -z "$limit" ] || requeue "no time is left"
fi
[ -z "$limit$leave" ] || exit 0

# A restart goes on from what this job has saved, wherever its first start was told to begin.
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || [ $started_at = 0 ] || set -- "$@" --resume_from_checkpoint latest
"${launch[@]}" "$program" --config "$run" --resume_from_checkpoint auto "$@" < /dev/null &
ranks=$!
while wait $ranks; status=$?; kill -0 $ranks 2> /dev/null; do :; done       # a signal ends a wait early
wait $ranks; status=$?

[ -n "${SLURM_JOB_ID:-}" ] && [ -z "$leave" ] || exit $status
case $status in
0)
    [ -z "$limit" ] || requeue "saved before the time limit"
    ! preempted || requeue "saved for a job of more priority"
    ;;
2) say "the configuration is wrong: not requeued" ;;
*) requeue "the ranks failed with status $status" ;;
esac
exit $status
