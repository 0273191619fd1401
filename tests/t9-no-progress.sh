#!/bin/sh
# A run that no longer learns ends with status 1 and says since when; the good checkpoints from before stay, and no restart begins to count
# anew.  A run that has nothing to do says so.
. tests/lib/small.sh
# train OUTPUT FLAGS...: 20 steps are good; 900 for a learning rate is the end of it soon after
train() {
    output=$1
    shift
    timeout 120 "$MOAI_BIN/moai_train" --model "$dir/model.json" --data "$dir/data" --output_dir "$dir/$output" --device cpu --num_threads 1 \
        --seq_length 32 --global_batch_size 4 --lr_scheduler_type constant --no_tensorboard --save_steps 10 "$@" > "$dir/out" 2> "$dir/err"
    status=$?
}
shown="$dir/out $dir/err"
blow_up="--learning_rate 900 --max_grad_norm 0 --max_steps 200 --resume_allow learning_rate,max_grad_norm,max_steps --resume_from_checkpoint auto"
checkpoints() { (cd "$dir/$1" && echo checkpoint-*); }
skipped() { sed -n 's/^{"step":\([0-9]*\),"event":"skipped".*/\1/p' "$dir/$1/metrics.jsonl"; }
train good --max_steps 20
[ $status = 0 ] && [ "$(checkpoints good)" = "checkpoint-10 checkpoint-20" ]; check $? "20 good steps"
again() { cp -r "$dir/good" "$dir/$1"; }

again stops
# shellcheck disable=SC2086
train stops $blow_up --save_total_limit 2
first=$(skipped stops | head -n 1)
[ $status = 1 ] && [ "$(skipped stops | tr '\n' ' ')" = "$(seq "$first" $((first + 5)) | tr '\n' ' ')" ] &&
    grep -q "^moai: step $((first + 5)): the gradient norm is not finite; 6 steps in a row, since step $first, have left the weights as they were, and loss_spike_limit is 5$" "$dir/err"
check $? "status $status: $(grep '^moai:' "$dir/err")"
[ "$(grep -c '^warning: .*its update is left out; the run ends when more than 5 in a row are' "$dir/err")" = 1 ]; check $? "one warning, where it began"
[ "$(checkpoints stops)" = "checkpoint-10 checkpoint-20" ]; check $? "both good checkpoints are there, none from after: $(checkpoints stops)"
grep -q '"event":"no_progress"' "$dir/stops/metrics.jsonl"; check $? "the record says it"

again limit
# shellcheck disable=SC2086
train limit $blow_up --loss_spike_limit 2
[ $status = 1 ] && [ "$(skipped limit | wc -l)" = 3 ]; check $? "loss_spike_limit 2: $(skipped limit | wc -l) steps were left out"

# told to go within the row: saved, but nothing older goes for it; started again, again and again, it comes to its end
again restarts
# shellcheck disable=SC2086
{
    train restarts $blow_up --save_total_limit 1 --stop_at_step $((first + 2))
    [ $status = 0 ] && [ "$(checkpoints restarts)" = "checkpoint-10 checkpoint-20 checkpoint-$((first + 2))" ]
    check $? "ended within the row it keeps them: $(checkpoints restarts)"
    grep -q '"skips": {' "$dir/restarts/checkpoint-$((first + 2))/manifest.json"; check $? "and how many they are"
    train restarts $blow_up --save_total_limit 1 --stop_at_step $((first + 4))
    [ $status = 0 ] && ! grep -q '^warning' "$dir/err"; check $? "goes on"
    train restarts $blow_up --save_total_limit 1
    [ $status = 1 ] && grep -q "^moai: step $((first + 5)): .* 6 steps in a row, since step $first" "$dir/err"; check $? "and counts on: $(grep '^moai:' "$dir/err")"
    train restarts $blow_up --save_total_limit 1
    [ $status = 1 ] && [ "$(checkpoints restarts | wc -w)" = 4 ]; check $? "another start comes no further, and says so by its status"
}

# where fp16's scale comes down from 2^40 nothing is wrong
train fp16 --fp16 --initial_loss_scale 1099511627776 --max_steps 60 --save_steps 1 --save_total_limit 2
n=$(skipped fp16 | wc -l)
[ $status = 0 ] && [ "$n" -gt 8 ] && [ "$(checkpoints fp16)" = "checkpoint-59 checkpoint-60" ] && ! grep -q '^warning' "$dir/err"
check $? "$n overflows while the loss scale comes down are none of it: $(checkpoints fp16)"

# the last update leaves what fp16 cannot hold: nobody would know but for the evaluation
train nan --fp16 --learning_rate 300 --max_grad_norm 0 --max_steps 1 --eval_steps 100
[ $status = 1 ] && grep -q '^warning: evaluation at step 1: the loss is not finite$' "$dir/err"; check $? "status $status: $(grep '^warning' "$dir/err")"

# nothing to do
train good --max_steps 5 --resume_from_checkpoint auto
[ $status = 0 ] && grep -q "^nothing to do: max_steps 5 is reached, $dir/good/checkpoint-20 is of step 20$" "$dir/err"; check $? "$(grep '^nothing' "$dir/err")"
train good --max_steps 50 --stop_at_step 20 --resume_from_checkpoint auto
[ $status = 0 ] && grep -q "^nothing to do: stop_at_step 20 is reached, " "$dir/err"; check $? "$(grep '^nothing' "$dir/err")"
[ "$(checkpoints good)" = "checkpoint-10 checkpoint-20" ]; check $? "and nothing is done"
train other --max_steps 12 --resume_from_checkpoint "$dir/good"
[ $status = 2 ] && grep -q "^moai: $dir/good is no checkpoint; the newest in it is $dir/good/checkpoint-20$" "$dir/err"; check $? "$(grep '^moai:' "$dir/err")"
train zero --max_steps 0 --warmup_steps 0
[ $status = 0 ] && [ "$(checkpoints zero)" = checkpoint-0 ] && grep -q '^nothing to do: max_steps is 0; the initial weights are saved$' "$dir/err"
check $? "$(grep '^nothing' "$dir/err")"
"$MOAI_BIN/moai_checkpoint" export "$dir/zero/checkpoint-0" "$dir/hf" > "$dir/out" 2>&1 && "$MOAI_BIN/moai_checkpoint" verify "$dir/zero" > "$dir/out" 2>&1
check $? "random weights can be exported"
train zero --max_steps 20 --resume_from_checkpoint auto
sed -n 's/^\({"step":[0-9]*,"loss":[^,]*\),.*/\1/p' "$dir/zero/metrics.jsonl" > "$dir/a"
sed -n 's/^\({"step":[0-9]*,"loss":[^,]*\),.*/\1/p' "$dir/good/metrics.jsonl" > "$dir/b"
[ $status = 0 ] && [ "$(wc -l < "$dir/a")" = 20 ] && cmp -s "$dir/a" "$dir/b"; check $? "and what is trained from them is what is trained from the start"
done_testing
