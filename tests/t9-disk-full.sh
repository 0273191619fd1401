#!/bin/sh
# A disk that fills while training (a small tmpfs): the failed save names the file, training goes on to its last step, and the
# checkpoints from before are whole and go on elsewhere.
set -u
export OMP_NUM_THREADS=1
dir=$TMPDIR
disk=$dir/disk
mkdir "$disk"
if ! mount -t tmpfs -o size=6m tmpfs "$disk" 2> /dev/null; then
    echo "1..0 # SKIP tmpfs cannot be mounted here"
    exit 0
fi
trap 'umount "$disk"' EXIT
. tests/lib/check.sh
shown="$dir/log"
train() {
    timeout 60 mpirun -np 2 "$MOAI_BIN/moai_train" --model "$dir/model.json" --data "$dir/data" --device cpu --num_threads 1 \
        --seq_length 16 --no_tensorboard --no_progress "$@" > "$dir/log" 2>&1
}
cat > "$dir/model.json" <<'END'
{"model_type": "qwen3", "vocab_size": 97, "num_hidden_layers": 2, "hidden_size": 96, "intermediate_size": 128,
 "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rope_theta": 10000}
END
mkdir "$dir/data" && "$MOAI_BIN/tests/tools/make_tokens" "$dir/data" 97 40 16 || exit 1

train --output_dir "$disk/out" --max_steps 12 --save_steps 1 --save_total_limit 0
status=$?
[ $status = 1 ]; check $? "a run whose last checkpoint could not be saved leaves with 1 (is $status)"
grep -q '^step 12/12' "$dir/log"; check $? "but it went on to its last step"
grep -q 'warning: checkpoint of step .* not saved: .*checkpoint-.*/rank-0000[01].h5.*: No space left on device' "$dir/log"
check $? "and said which file found no room"
grep -q 'warning: nothing has been saved since step [0-9]*: [0-9]* saves in a row have failed' "$dir/log"
check $? "and since when nothing is saved"
ls -d "$disk"/out/checkpoint-*.tmp > "$dir/log" 2>&1; [ $? != 0 ]; check $? "nothing half-written is left"
"$MOAI_BIN/moai_checkpoint" verify "$disk/out" > "$dir/log" 2>&1; check $? "the checkpoints from before are whole"
newest=$(find "$disk/out" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1)
train --output_dir "$dir/elsewhere" --max_steps 12 --save_steps 0 --resume_from_checkpoint "$newest"
check $? "and the newest goes on elsewhere"
done_testing
