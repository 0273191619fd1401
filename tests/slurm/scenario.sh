# shellcheck shell=bash
# scenario.sh: sourced first by the tests of this directory; they go on inside a cluster of their own (tests/slurm/cluster).
#
#   run_file NAME [KEY VALUE ...]    NAME.json: what the jobs train, in $runs/NAME; all take the same steps of the same samples
#   submit NAME [OPTION ...]         sbatch slurm/pretrain.sh NAME.json with options of sbatch; sets $job; its log is $runs/NAME.log
#   at_step N                        waits until the job's metrics show step N
#   ended STATE                      waits until the job has left the queue: one TAP line, was it with that state?
#   starts N                         one TAP line: did the job start N times?
if [ -z "${MOAI_LAB:-}" ]; then
    why=$(tests/slurm/cluster 2>&1)
    case $? in
    0) exec tests/slurm/cluster "$0" ;;
    77) echo "1..0 # SKIP $why"; exit 0 ;;
    *) echo "Bail out! tests/slurm/cluster: $why"; exit 1 ;;
    esac
fi
. tests/layouts.sh
. tests/slurm/lab.sh
MOAI_BIN=$(realpath "$MOAI_BIN")
unset OMP_NUM_THREADS

# 40 steps of 24 samples, none of them twice; a step takes a tenth of a second, so that a fault can be aimed at it.
steps=40 batch=24
prepare() {
    model small 4 28 4
    data corpus 1000
}

run_file() {
    local name=$1
    shift
    {
        echo "{\"model\": \"$runs/small.json\", \"data\": \"$runs/corpus\", \"output_dir\": \"$runs/$name\", \"device\": \"cpu\", \"num_threads\": 1,"
        [ $# = 0 ] || printf ' "%s": %s,' "$@"
        echo " \"seq_length\": 29, \"global_batch_size\": $batch, \"max_steps\": $steps, \"learning_rate\": 5e-4, \"warmup_steps\": 4,"
        echo " \"save_steps\": 10, \"tensorboard\": false, \"progress\": false, \"log_samples\": true}"
    } > "$runs/$name.json"
}

submit() {
    name=$1
    shift
    job=$(sbatch --parsable --cpus-per-task=2 --output="$runs/$name.log" "$@" slurm/pretrain.sh "$runs/$name.json")
}

# wait_until SECONDS COMMAND...
wait_until() {
    local tries=$(($1 * 20))
    shift
    until "$@" || [ $((tries -= 1)) -lt 0 ]; do sleep 0.05; done
}

reached() { grep -q "^{\"step\":$1,\"loss" "$runs/$name/metrics.jsonl" 2> /dev/null; }
at_step() { wait_until 60 reached "$1"; }

job_field() { scontrol -o show job "$job" | sed -n "s/.* $1=\([^ ]*\).*/\1/p"; }
has_ended() { case $(job_field JobState) in PENDING | RUNNING | COMPLETING | REQUEUED | CONFIGURING) return 1 ;; esac }

story() { sed 's/^/# /' "$runs/$name.log"; }
ended() {
    local state
    wait_until 120 has_ended
    state=$(job_field JobState)
    [ "$state" = "$1" ]
    check $? "$name: the job ends, $state"
    [ "$state" = "$1" ] || story
}

starts() {
    local n=$(($(job_field Restarts) + 1))
    [ $n = "$1" ]
    check $? "$name: started $n times, $1 expected"
    [ $n = "$1" ] || story
}

# every sample of every step once
samples_once() {
    local all=$((steps * batch)) seen
    seen=$(grep -h '"sample_numbers"' "$runs/$name/metrics.jsonl" | sed 's/.*"sample_numbers":\[\([^]]*\)\].*/\1/' | tr ',' '\n' | sort -nu | wc -l)
    [ "$seen" = $all ]
    check $? "$name: $seen different samples in $steps steps of $batch"
}
