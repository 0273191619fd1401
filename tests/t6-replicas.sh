#!/bin/sh
# replica_check_steps in a run: quiet on every layout; a rank whose memory turns a bit stops the run, named, and nothing is saved of it.
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200
for checks in 0 3; do
    layout dp2-$checks 2 --batch_size 1 --replica_check_steps $checks
    layout tp2-dp2-$checks 4 --tensor_parallel 2 --batch_size 2 --bf16 --replica_check_steps $checks
done
same_bits dp2-3 dp2-0
same_bits tp2-dp2-3 tp2-dp2-0

${MPICC:-mpicc} -shared -fPIC -o "$runs/gather_flip.so" tests/faults/gather_flip.c; check $? "the faulty gather is built"
# 6 buckets a step (embedding, 4 layers, head) and 6 at the start: call 39 is in step 6, the check before its save finds it
mpirun -np 2 -x LD_PRELOAD="$runs/gather_flip.so" -x FLIP_RANK=1 -x FLIP_AFTER=39 -x ASAN_OPTIONS=verify_asan_link_order=0 "$MOAI_BIN/moai_train" \
    --model "$runs/small.json" --data "$runs/corpus" --output_dir "$runs/flipped" --device cpu --num_threads 1 --seq_length 29 \
    --max_steps 20 --save_steps 2 --no_tensorboard --replica_check_steps 4 > "$runs/flipped.log" 2>&1
status=$?
[ $status = 1 ]; check $? "a rank that holds other weights: status 1 (is $status)"
grep -q '^moai: step 6: copies of model.*, differ: rank 0 (tp0 dp0 pp0) holds [0-9a-f]*; rank 1 (tp0 dp1 pp0) holds' "$runs/flipped.log"
check $? "named: $(grep '^moai:' "$runs/flipped.log")"
grep -q '"step":6,"event":"replicas_differ","text":"copies of model' "$runs/flipped/metrics.jsonl"; check $? "and logged"
[ -e "$runs/flipped/checkpoint-4/manifest.json" ] && [ ! -e "$runs/flipped/checkpoint-6" ]
check $? "the one before is kept, nothing is saved of this one"
done_testing
