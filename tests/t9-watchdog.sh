#!/bin/sh
# hang_timeout: a rank that stops is named with what the others wait in, and the job ends; a slow one is a straggler; a run without
# trouble says nothing of this.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200
# command NAME STEPS [FLAGS]: trains on TP2 x DP2 with 4 micro-batches a step
command() {
    run=$1 steps=$2
    shift 2
    echo "$MOAI_BIN/moai_train --model $runs/small.json --data $runs/corpus --output_dir $runs/$run --device cpu --num_threads 1 --seq_length 29
        --tensor_parallel 2 --global_batch_size 8 --batch_size 1 --max_steps $steps --save_steps 0 --no_save_on_exit --no_tensorboard $*"
}
ranks_of() { # ranks_of MPIRUN: the processes of its ranks, in rank order
    for p in $(cat /proc/[0-9]*/stat 2> /dev/null | awk -v parent="$1" '$4 == parent { print $1 }'); do
        echo "$(tr '\0' '\n' 2> /dev/null < "/proc/$p/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p') $p"
    done | sort -n | sed 's/.* //'
}
living() { for p in "$@"; do ! grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$p/status" 2> /dev/null || echo "$p"; done; } # zombies are not
# faulty NAME RANK SIGNAL: starts NAME, sends the signal to a rank after three steps, waits for the end: $status, $seconds, $victim, $left (processes)
faulty() {
    # shellcheck disable=SC2046
    mpirun -np 4 $(command "$1" 1000000 --hang_timeout 3) > "$runs/$1.log" 2>&1 &
    job=$! n=0
    until grep -q '"step":3,' "$runs/$1/metrics.jsonl" 2> /dev/null || [ $n -ge 600 ]; do sleep 0.1; n=$((n + 1)); done
    all=$(ranks_of $job)
    victim=$(echo "$all" | sed -n "$(($2 + 1))p")
    kill -s "$3" "$victim"
    began=$(date +%s) n=0
    while kill -0 $job 2> /dev/null && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
    seconds=$(($(date +%s) - began))
    kill -9 $job 2> /dev/null
    wait $job
    status=$?
    n=0
    while left=$(living $all) && [ -n "$left" ] && [ $n -lt 20 ]; do sleep 0.1; n=$((n + 1)); done
    [ -z "$left" ] || kill -9 $left
}
said() {
    grep -q "$2" "$runs/$1.log"
    said_status=$?
    [ $said_status = 0 ] || sed 's/^/# /' "$runs/$1.log" | tail -n 15
    check $said_status "$3"
}
op='\(all_gather\|reduce_scatter\|all_reduce\|broadcast\) [0-9]* over \(tp\|dp\|world\) of [0-9]* elements'
place='step [0-9]*'

for rank in 3 0; do
    faulty stop$rank $rank STOP
    [ $status = 1 ] && [ -z "$left" ]; check $? "SIGSTOP of rank $rank: the job ends after $seconds s with status 1 (is $status), no process is left ($left)"
    [ "$(grep -c '^moai: hang' "$runs/stop$rank.log")" = 1 ] && [ "$(grep -c '^  late' "$runs/stop$rank.log")" = 1 ]
    check $? "one report, one late rank"
    said stop$rank "^moai: hang: rank $rank is late; 3 of 4 ranks wait, the longest for [3-9]\.[0-9] s (hang_timeout 3)" "it names rank $rank"
    said stop$rank "^  late   rank $rank tp[01] cp0 pp0 dp[01] host $(hostname) pid $victim: does not answer, it is stopped or dead; last seen [0-9.]* s ago in $place.*; its last operation: $op, " \
        "what it did last is told"
    said stop$rank "^  waits  rank [0-3] tp[01] cp0 pp0 dp[01] host .* pid [0-9]*: for rank $rank, [0-9.]* s in $op in $place" "and the operation in which it is waited for"
done

${MPICC:-mpicc} -shared -fPIC -o "$runs/gather_slow.so" tests/faults/gather_slow.c; check $? "the slow gather is built"
# slowed NAME MILLISECONDS AFTER STEPS [FLAGS]: rank 2 is slow
slowed() {
    name=$1 ms=$2 after=$3 n_steps=$4
    shift 4
    # shellcheck disable=SC2046
    mpirun -np 4 -x LD_PRELOAD="$runs/gather_slow.so" -x SLOW_RANK=2 -x SLOW_MILLISECONDS="$ms" -x SLOW_AFTER="$after" -x ASAN_OPTIONS=verify_asan_link_order=0 \
        $(command "$name" "$n_steps" "$@") > "$runs/$name.log" 2>&1
    status=$?
}
slowed stuck 600000 300 1000000 --hang_timeout 2
[ $status = 1 ]; check $? "a rank that computes for too long: status 1 (is $status)"
said stuck "^moai: hang: rank 2 is late; 3 of 4 ranks wait" "it is named"
said stuck "^  late   rank 2 .*: for [0-9.]* s in $place.*; its last operation: all_gather [0-9]* over .* elements, begun" "with the operation that it has entered"

# how long files take is not for us to say
${MPICC:-mpicc} -D_GNU_SOURCE -shared -fPIC -o "$runs/files_slow.so" tests/faults/files_slow.c; check $? "the slow disk is built"
# on_disk RANK CALL PART AFTER NAME STEPS [FLAGS]: a rank's files take more than twice hang_timeout, once
on_disk() {
    slow="-x SLOW_RANK=$1 -x SLOW_CALL=$2 -x SLOW_PART=$3 -x SLOW_AFTER=$4"
    shift 4
    # shellcheck disable=SC2046,SC2086
    mpirun -np 4 -x LD_PRELOAD="$runs/files_slow.so" $slow -x SLOW_SECONDS=10 -x ASAN_OPTIONS=verify_asan_link_order=0 \
        $(command "$@" --hang_timeout 4) > "$runs/$1.log" 2>&1
    status=$?
}
waits_for() { # waits_for NAME TEXT
    # shellcheck disable=SC2016
    [ $status = 0 ] && [ "$(sed -n 's/.*"step_seconds":\([0-9]*\).*/\1/p; s/.*"eval_seconds":\([0-9]*\).*/\1/p' "$runs/$1/metrics.jsonl" | sort -n | tail -n 1)" -ge "$3" ]
    slow_status=$?
    [ $slow_status = 0 ] || sed 's/^/# /' "$runs/$1.log" | tail -n 15
    check $slow_status "$2, status 0 (is $status)"
}
on_disk 2 pread corpus/train 40 read 16 --dataloader_num_workers 0
waits_for read "a slow read of the training data is no hang" 5
on_disk 2 pread corpus/train 40 ahead 16 --dataloader_num_workers 1 --dataloader_prefetch_factor 1
waits_for ahead "nor one by another thread" 5
on_disk 2 pread corpus/validation 14 judged 4 --eval_steps 2
waits_for judged "nor one in an evaluation" 5
on_disk 0 fflush metrics.jsonl 3 recorded 6
waits_for recorded "nor a slow metrics.jsonl" 0
data spiked 200 136
# step 15 is being saved when step 18 spikes
on_disk 3 fsync /checkpoint- 1 back 20 --data "$runs/spiked" --learning_rate 5e-3 --save_steps 15 --loss_spike_zscore 5 --loss_spike_window 10 \
    --loss_spike_action rollback
[ $status = 0 ] && grep -q '^rollback at step 15' "$runs/back.log"; check $? "a slow save that a run must go back to is no hang"

${MPICC:-mpicc} -shared -fPIC -o "$runs/mail_lost.so" tests/faults/mail_lost.c; check $? "the firewall is built"
# shellcheck disable=SC2046
mpirun -np 4 -x LD_PRELOAD="$runs/mail_lost.so" -x ASAN_OPTIONS=verify_asan_link_order=0 $(command walled 3 --hang_timeout 20) > "$runs/walled.log" 2>&1
[ $? = 0 ] && [ "$(grep -c '^warning: hang_timeout: no UDP comes to host other0 from 2 ranks' "$runs/walled.log")" = 1 ]
said_once=$?
[ $said_once = 0 ] || tail -n 15 "$runs/walled.log"
check $said_once "no datagrams between two hosts: one warning, and the run goes on"

slowed slow 40 0 18
[ $status = 0 ] && [ "$(grep -c '"event":"straggler".*rank 2 ' "$runs/slow/metrics.jsonl")" = 1 ]; check $? "a slow rank: one event, status 0 (is $status)"
said slow '^warning: step 1[0-8]: rank 2 tp0 .* was busy for [0-9.]* times its stage.s median ([0-9.]* s against [0-9.]* s) in each of the last 10 logged steps' "it is named"
! grep -q 'moai: hang' "$runs/slow.log"; check $? "and hangs nobody"
tail -n 1 "$runs/slow/metrics.jsonl" | grep -q '"busy_seconds_min":[0-9.e-]*,"busy_seconds_median":[0-9.e-]*,"busy_seconds_max":[0-9.e-]*,"slowest_rank":2'
check $? "the spread of the ranks is in metrics.jsonl"

faulty killed 1 KILL
[ $status != 0 ] && [ -z "$left" ] && ! grep -q 'moai: hang' "$runs/killed.log"; check $? "SIGKILL of a rank: the launcher ends the job, status $status"
# shellcheck disable=SC2046
mpirun -np 4 $(command quiet 30 --hang_timeout 20) > "$runs/quiet.log" 2>&1
# a rank that shares its core with another program is a straggler in truth: no word of that is asked for here
[ $? = 0 ] && ! grep -qi 'moai: hang\|late' "$runs/quiet.log"; check $? "a run without trouble says nothing of this"
done_testing
