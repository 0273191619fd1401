#!/bin/sh
# fp16 with dynamic loss scaling: the losses follow fp32's; an overflow is skipped and the scale halved, on all ranks of every layout;
# a resume goes on with the scale where it was.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200

# field NAME KEY: its value in each step
field() { sed -n 's/.*"'"$2"'":\([^,}]*\).*/\1/p' "$runs/$1/metrics.jsonl"; }

# follows A B PERCENT: losses of the same steps
follows() {
    field "$1" loss > "$runs/a"
    field "$2" loss > "$runs/b"
    story=$(paste -d ' ' "$runs/a" "$runs/b" | awk -v limit="$3" '
        { n++; d = 100 * ($1 - $2) / $2; if (d < 0) d = -d; if (d > worst) { worst = d; at = n } }
        END { printf "%d steps, %.3f %% apart at step %d", n, worst, at; exit !(n == '"$steps"' && worst <= limit) }')
    check $? "$1 follows $2 within $3 %: $story"
}

layout fp32 1 --batch_size 2
layout fp16 1 --batch_size 2 --fp16
learns fp16
follows fp16 fp32 0.2
[ "$(field fp16 loss_scale | sort -u)" = 65536 ] && [ "$(field fp16 skipped | tail -n 1)" = 0 ]
check $? "at the default scale nothing overflows"
grep -q 'numbers    fp16 with fp32 master weights and moments, dynamic loss scaling' "$runs/fp16.log"; check $? "the banner says fp16"

# 2^30 overflows; what follows depends on the gradients.  A window of 4 clean steps makes it double, and overflow, again.
overflow="--fp16 --initial_loss_scale 1073741824 --loss_scale_window 4"
# shellcheck disable=SC2086
{
    layout one 1 --batch_size 2 $overflow
    layout one-again 1 --batch_size 2 $overflow
    layout tp2 2 --tensor_parallel 2 --batch_size 2 $overflow
    layout pp2 2 --pipeline_parallel 2 --batch_size 2 $overflow --gradient_checkpointing full
    layout dp2 2 --batch_size 2 $overflow
    layout one-resumed 1 --batch_size 2 $overflow --stop_at_step 10
    layout one-resumed 1 --batch_size 2 $overflow --resume_from_checkpoint auto
    layout dp2-resumed 2 --batch_size 2 $overflow --stop_at_step 11
    layout dp2-resumed 2 --batch_size 2 $overflow --resume_from_checkpoint auto
}
scales=$(field one loss_scale | tr '\n' ' ') skipped=$(field one skipped | tail -n 1)
# each scale is half the one before when that step was skipped, twice it after 4 steps that were not
field one grad_norm > "$runs/norms"
field one loss_scale | paste -d ' ' - "$runs/norms" | awk '
    NR > 1 && $1 != want { bad = 1 }
    $2 == "null" { want = $1 / 2; clean = 0; overflows++; next }
    { want = $1; if (++clean == 4) { want = 2 * $1; clean = 0; doubled++ } }
    END { exit !(!bad && overflows >= 3 && doubled >= 1) }'
check $? "an overflow halves the scale, 4 clean steps double it: $scales"
[ "$skipped" = "$(grep -c null "$runs/norms")" ] && [ "$skipped" = "$(grep -c '"event":"skipped"' "$runs/one/metrics.jsonl")" ]
check $? "$skipped steps skipped, counted and logged"
grep -q '"step":1,"event":"skipped","text":"the gradient norm is not finite: .*loss scale 1.07374e+09, now 5.36871e+08' "$runs/one/metrics.jsonl"
check $? "the log says from what to what"
numbers_of() { sed -n 's/^{"step":1,"'"$1"'".*"sample_numbers":\[\([0-9,]*\)\].*/\1/p' "$runs/one/metrics.jsonl" | tr ',' '\n' | sort -n; }
[ "$(numbers_of event | wc -l)" = 8 ] && [ "$(numbers_of event)" = "$(numbers_of loss)" ]; check $? "and names the samples of the step"
grep -q '"updates": '$((steps - skipped)) "$runs/one/checkpoint-$steps/manifest.json"; check $? "a skipped step is no update: $((steps - skipped)) of them"
same_bits one-again one
same_bits one-resumed one
same_bits dp2-resumed dp2
for other in tp2 pp2 dp2; do
    follows $other one 0.2
    [ "$(field $other loss_scale | tr '\n' ' ')" = "$scales" ] && [ "$(field $other skipped | tail -n 1)" = "$skipped" ]
    check $? "$other has the scales and the skipped steps of one"
done
# steps that bring the scale down are on their way; at its least they count, and the run ends with the seventh: 5 may be left out in a row
layout least 2 --batch_size 2 --fp16 --initial_loss_scale 1099511627776 --min_loss_scale 549755813888 > "$runs/least.out"
[ "$(field least loss_scale | tr '\n' ' ' | tr -s ' ')" = "1099511627776 $(yes 549755813888 | head -n 6 | tr '\n' ' ')" ] &&
    [ "$(field least skipped | tail -n 1)" = 7 ]
check $? "the scale stays at its least: $(field least loss_scale | tr '\n' ' ')"
grep -q '^moai: step 7: the gradient norm is not finite; 7 steps in a row, since step 1, .* loss_spike_limit is 5$' "$runs/least.log"
check $? "and the run ends: $(grep '^moai:' "$runs/least.log")"
done_testing
