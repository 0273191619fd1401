#!/bin/sh
# --profile_step: the traces of a TP2 x PP2 run hold every op of the step, in the schedule's order, and change nothing; nor do those of DP2,
# whose gather of the weights begins in one step and ends in the next.
# needs: perl:JSON::PP
. tests/lib/layouts.sh

model small 4 28 4
data corpus 100
steps=4
flags="--tensor_parallel 2 --pipeline_parallel 2 --batch_size 1"

# shellcheck disable=SC2086
layout plain 4 $flags
# shellcheck disable=SC2086
layout observed 4 $flags --profile_step 3
same_bits observed plain
products=0
for rank in 0 1 2 3; do
    story=$(perl tests/lib/trace.pl "$runs/observed/profile/rank-$rank.json" $rank $((rank / 2)) 2 2 8)
    check $? "rank $rank: the whole schedule, no two events of a lane at once"
    case $story in *[!0-9]* | '') echo "$story" | head -n 10 ;; *) products=$((products + story)) ;; esac
done
# 8 micro-batches of 29 tokens, which TP2 fills up to 30: forward, dx and dw of each matrix but the embedding
expected=$((6 * 8 * 30 * (4 * (60 * (224 + 2 * 32) + 224 * 60 + 3 * 60 * 151) + 331 * 60)))
[ $products = $expected ]; check $? "the products of all ranks: $products FLOP, expected $expected"
grep -q 'wait tp all_gather' "$runs/observed.log"; check $? "rank 0 says where the step's time went"
[ ! -e "$runs/plain/profile" ]; check $? "without the flag there is no trace"

layout dp2 2 --data_parallel 2 --batch_size 1
layout dp2-observed 2 --data_parallel 2 --batch_size 1 --profile_step 3
layout dp2-at-last 2 --data_parallel 2 --batch_size 1 --profile_step 4
for run in dp2-observed dp2-at-last; do
    same_bits $run dp2
    for rank in 0 1; do
        story=$(perl tests/lib/trace.pl "$runs/$run/profile/rank-$rank.json" $rank 0 1 4 4)
        check $? "$run, rank $rank: the whole schedule"
        case $story in *[!0-9]* | '') echo "$story" | head -n 10 ;; esac
    done
done

layout late 1 --profile_step 9
grep -q 'profile_step is 9, must not exceed max_steps 4' "$runs/late.log"; check $? "a step that will not come is refused"
done_testing
