#!/bin/sh
# A run that stops at step 10 and goes on is the run that never stopped: the same bits on the same layout, the same model on another,
# every sample once an epoch.  13 samples a step short of the epoch's 100: the border falls inside step 13, in an accumulation.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 100

layout one 1 --batch_size 2
layout tp2-pp2 4 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1
halves one-resumed 1 --batch_size 2 -- 1 --batch_size 2
halves tp2-pp2-resumed 4 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1 -- 4 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1
halves tp2-pp2-to-dp4 4 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1 -- 4 --batch_size 1
halves tp2-pp2-to-one 4 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1 -- 1 --batch_size 8
same_bits one-resumed one
same_bits tp2-pp2-resumed tp2-pp2
agree tp2-pp2-to-dp4 one
agree tp2-pp2-to-one one

# the samples of the first epoch, as the resumed run took them: each of the 100 once; and then 60 others, all different
grep -h '"sample_numbers"' "$runs/tp2-pp2-to-dp4/metrics.jsonl" | sed 's/.*"sample_numbers":\[\([^]]*\)\].*/\1/' | tr ',' '\n' > "$runs/samples"
[ "$(wc -l < "$runs/samples")" = 160 ]; check $? "20 steps took 160 samples: $(wc -l < "$runs/samples")"
[ "$(head -n 96 "$runs/samples" | sort -n | uniq -d | wc -l)" = 0 ]; check $? "the 12 steps within the first epoch repeat none"
[ "$(head -n 104 "$runs/samples" | sort -nu | wc -l)" = 100 ]; check $? "with the step across the border all 100 have been seen: $(head -n 104 "$runs/samples" | sort -nu | wc -l)"
[ "$(tail -n 56 "$runs/samples" | sort -n | uniq -d | wc -l)" = 0 ]; check $? "the 7 steps within the second epoch repeat none"
done_testing
