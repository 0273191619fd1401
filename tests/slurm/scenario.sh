# shellcheck shell=bash
# scenario.sh: sourced first by the tests of this directory; they go on inside a cluster of their own (tests/slurm/cluster).
#
#   run_file NAME [KEY VALUE ...]    NAME.json: what the jobs train, in $runs/NAME; all take the same steps of the same samples
#   submit NAME [OPTION ...]         sbatch slurm/pretrain.sh NAME.json with options of sbatch; sets $job; its log is $runs/NAME.log
#   at_step N                        waits until the job's metrics show step N
#   ended STATE                      waits until the job has left the queue: one TAP line, was it with that state?
#   starts N                         one TAP line: did the job start N times?
#   says TEXT                        one TAP line: does a line of its log match?
#   samples_once                     one TAP line: every step has other samples, all of them
#   kill_rank                        SIGKILL for one of its ranks
#   node_lost first | last           the job's batch node, or its last one, dies; node_back repairs it
#   damage FILE                      overwrites its middle
if [ -z "${MOAI_LAB:-}" ]; then
    why=$(tests/slurm/cluster 2>&1)
    case $? in
    0) exec tests/slurm/cluster "$0" ;;
    77) echo "1..0 # SKIP $why"; exit 0 ;;
    *) echo "Bail out! tests/slurm/cluster: $why"; exit 1 ;;
    esac
fi
. tests/lib/layouts.sh
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
        printf '{'
        [ $# = 0 ] || printf ' "%s": %s,' "$@"
        cat <<END
 "model": "$runs/small.json", "data": "$runs/corpus", "output_dir": "$runs/$name",
 "seq_length": 29, "global_batch_size": $batch, "max_steps": $steps, "learning_rate": 5e-4, "warmup_steps": 4, "save_steps": 10,
 "device": "cpu", "num_threads": 1, "tensorboard": false, "progress": false, "log_samples": true}
END
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
has_ended() { case $(job_field JobState) in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) ;; *) return 1 ;; esac }

story() { sed 's/^/# /' "$runs/$name.log"; }
ended() {
    local state
    wait_until 120 has_ended
    state=$(job_field JobState)
    [ "$state" = "$1" ]
    check $? "$name: the job ends, $state" || story
}

starts() {
    local n=$(($(job_field Restarts) + 1))
    [ $n = "$1" ]
    check $? "$name: started $n times, $1 expected" || story
}

says() {
    grep -q "$1" "$runs/$name.log"
    check $? "$name: says \"$1\"" || story
}

kill_rank() {
    local entry
    for entry in /proc/[0-9]*; do
        [ "$(readlink "$entry/exe")" = "$MOAI_BIN/moai_train" ] && kill -9 "${entry##*/}" && break
    done
}

node_lost() {
    lost=$(scontrol show hostnames "$(job_field NodeList)" | { [ "$1" = first ] && head -n 1 || tail -n 1; })
    node_kill "${lost#node}"
}
is_idle() { [ "$(sinfo -h -n "$lost" -o %t)" = idle ]; }
node_back() {
    node_start "${lost#node}"
    wait_until 30 is_idle
}

damage() { dd if=/dev/urandom of="$1" bs=1k seek=4 count=$(($(stat -c %s "$1") / 2048)) conv=notrunc status=none; }

samples_once() {
    local seen
    seen=$(sed -n 's/.*"sample_numbers":\[\([^]]*\)\].*/\1/p' "$runs/$name/metrics.jsonl" | tr ',' '\n' | sort -nu | wc -l)
    [ "$seen" = $((steps * batch)) ]
    check $? "$name: $seen different samples in $steps steps of $batch"
}
