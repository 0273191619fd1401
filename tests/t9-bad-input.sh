#!/bin/sh
# What moai_train says to bad input: the file, key or rank and the value; every rank leaves within seconds, and nothing is lost.
set -u
export OMP_NUM_THREADS=1
train=$(cd "$MOAI_BIN" && pwd)/moai_train
dir=$TMPDIR
. tests/lib/check.sh
shown="$dir/out"
# refused STATUS RANKS TEXT [flags]: status and text, one line of it from all ranks together, within 20 s; 124 is timeout's
refused() {
    status=$1 ranks=$2 text=$3
    shift 3
    timeout 20 mpirun -np "$ranks" "$train" --model "$dir/model.json" --data "$dir/data" --output_dir "$dir/out-dir" --device cpu \
        --num_threads 1 --seq_length 16 --max_steps 2 --no_tensorboard "$@" > "$dir/out" 2>&1
    got=$?
    said=$(grep -v '; trying again in ' "$dir/out" | grep -c -F -- "$text")
    [ "$got" = "$status" ] && [ "$said" "$times" 1 ]
    check $? "$ranks ranks: \"$text\" once (is $said times), status $status (is $got)"
}
times=-eq
late() { times=-ge; refused "$@"; times=-eq; }    # what each rank finds by itself ends all, and more than one may be quick enough to tell
shape='"num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
       "max_position_embeddings": 64, "rope_theta": 10000'
model() { echo "{\"model_type\": \"${2:-qwen3}\", \"vocab_size\": ${3:-97}, $shape}" > "$dir/$1.json"; }

model model
mkdir "$dir/data"
"$MOAI_BIN/tests/tools/make_tokens" "$dir/data" 97 40 16 || exit 1
timeout 60 "$train" --model "$dir/model.json" --data "$dir/data" --output_dir "$dir/out-dir" --seq_length 16 --max_steps 2 --num_threads 1 \
    > "$dir/out" 2>&1
check $? "good input trains"
# takes ARGUMENTS...: a start of two steps that nothing is wrong with
takes() {
    timeout 60 "$train" --model "$dir/model.json" --data "$dir/data" --output_dir "$dir/takes-$tests_run" --seq_length 16 --max_steps 2 --num_threads 1 "$@" > "$dir/out" 2>&1
    check $? "taken: $*"
}
model padded qwen3 128
takes --model "$dir/padded.json"
sed 's/{/{"eos_token_id": [5, 1], /' "$dir/model.json" > "$dir/ends.json"
takes --model "$dir/ends.json"
mkdir "$dir/ends"
sed 's/{/{"eos_token_id": 5, /' "$dir/model.json" > "$dir/ends/config.json"
echo '{"eos_token_id": [5, 1]}' > "$dir/ends/generation_config.json"
takes --model "$dir/ends/config.json"
good() { cp -r "$dir/data" "$dir/$1"; }

# keys and values
refused 2 2 'unknown option --learning_rat; did you mean --learning_rate?' --learning_rat 1
echo '{"max_steps": 2, "warmup_stepz": 1}' > "$dir/run.json"
refused 2 2 'run.json: unknown key "warmup_stepz"; did you mean "warmup_steps"?' --config "$dir/run.json"
echo '{"seq_length": 16, "seed": [1]}' > "$dir/run.json"
refused 2 2 'run.json: seed is [1], must be an integer' --config "$dir/run.json"
echo '{"seq_length": 16 "seed": 1}' > "$dir/run.json"
refused 2 2 'run.json: line 1, column' --config "$dir/run.json"
refused 2 1 '--learning_rate is -1, must be between 0 and 1000' --learning_rate=-1
refused 2 1 'bf16 and fp16 are both true' --bf16 --fp16
refused 2 2 'gradient_checkpointing is streams, but the model of' --gradient_checkpointing streams
sed 's/{/{"hc_mult": 2, /' "$dir/model.json" > "$dir/two.json"
takes --model "$dir/two.json" --gradient_checkpointing streams
refused 2 2 'seq_length is 18, must be a multiple of 2 x context_parallel 2: 16 or 20' --context_parallel 2 --seq_length 18
refused 2 1 'seq_length is 16, must be a multiple of 2 x context_parallel 16: 32' --context_parallel 16
refused 2 2 'context_parallel is 2, and on a GPU this version has none; must be 1, or --device cpu' --context_parallel 2 --device cuda
refused 2 2 'world size 2 is not tensor_parallel 1 x context_parallel 4' --context_parallel 4
ldd "$train" | grep -q libcuda || refused 2 2 'device cuda: this build has no CUDA backend' --device cuda
refused 2 2 'global_batch_size 3 is not a multiple of per_device_train_batch_size 1 x data_parallel 2' --global_batch_size 3
refused 2 1 'seq_length 65 is larger than max_position_embeddings 64 of' --seq_length 65

refused 2 1 'global_batch_size 1073741824 is 1073741824 micro-batches a step, more than 1048576' --global_batch_size 1073741824
refused 2 1 '68719476736 samples a step, more than 1073741824' --gradient_accumulation_steps 1048576 --batch_size 65536
refused 2 1 'more than 16777216 ranks in a process grid of tensor_parallel 4096' --plan --tensor_parallel 4096 --data_parallel 65536 --pipeline_parallel 1024

# layout
refused 2 4 'num_attention_heads 6 is not divisible by tensor_parallel 4' --tensor_parallel 4
refused 2 3 'tensor_parallel 3 neither divides num_key_value_heads 2 nor is a multiple of it' --tensor_parallel 3
refused 2 3 'world size 3 is not tensor_parallel 2' --tensor_parallel 2
refused 2 4 'world size 4 is not tensor_parallel 1 x context_parallel 1 x data_parallel 3' --data_parallel 3
refused 2 3 'pipeline_parallel 3 is larger than num_hidden_layers 2' --pipeline_parallel 3

# the model file
model llama llama
refused 2 2 'llama.json: model_type is "llama", must be "qwen3"' --model "$dir/llama.json"
refused 2 2 "--model $dir/nowhere.json: No such file or directory" --model "$dir/nowhere.json"
mkdir "$dir/shape" && cp "$dir/model.json" "$dir/shape/config.json"
refused 2 2 "--model $dir/shape is a directory; the model file in it is --model $dir/shape/config.json" --model "$dir/shape"
refused 2 1 "--model $dir/data is a directory without a config.json" --model "$dir/data"
# rank 0 reads the small files: the others need none, even where the name leads nowhere
mkdir "$dir/host0" && cp "$dir/model.json" "$dir/host0"
echo "{\"seq_length\": 16, \"model\": \"model.json\", \"data\": \"$dir/data\", \"output_dir\": \"$dir/host-out\", \"max_steps\": 2}" > "$dir/host0/job.json"
flags="--config job.json --device cpu --num_threads 1 --no_tensorboard"
timeout 20 mpirun -np 1 --wdir "$dir/host0" "$train" $flags : -np 1 --wdir "$dir" "$train" $flags > "$dir/out" 2>&1
check $? "run file and model file on the host of rank 0 only"
timeout 20 mpirun -np 1 --wdir "$dir" "$train" $flags : -np 1 --wdir "$dir/host0" "$train" $flags > "$dir/out" 2>&1
got=$?
[ $got = 2 ] && [ "$(grep -c "^moai: job.json: No such file" "$dir/out")" = 1 ]
check $? "on another only: rank 0 says that there is none, once, status 2 (is $got)"
# a path that leads elsewhere on another host
mkdir "$dir/elsewhere"
timeout 20 mpirun -np 1 --wdir "$dir" "$train" --model "$dir/model.json" --data data --seq_length 16 --output_dir "$dir/mount" : \
    -np 1 --wdir "$dir/elsewhere" "$train" --model "$dir/model.json" --data data --seq_length 16 --output_dir "$dir/mount" > "$dir/out" 2>&1
got=$?
[ $got = 1 ] && [ "$(grep -c "^moai: rank 1 .*data/train-0000.*: No such file" "$dir/out")" = 1 ]
check $? "data that one of 2 ranks does not find: likewise, status 1 (is $got)"
model fewer qwen3 96
refused 2 2 "data: the shards have vocab_size 97, more than the model's 96" --model "$dir/fewer.json"

# the reason stays, however long a path is
long=$dir
while [ ${#long} -lt 3800 ]; do long=$long/$(printf '%050d' 0); done
mkdir -p "$long"
refused 2 2 'nowhere: No such file or directory' --data "$long/nowhere"
refused 2 2 'nowhere.json: No such file or directory' --model "$long/nowhere.json"
sed 's/97/"a"/' "$dir/model.json" > "$long/words.json"
refused 2 1 'words.json: vocab_size is "a", must be an integer' --model "$long/words.json"
echo '{"warmup_stepz": 1}' > "$long/run.json"
refused 2 1 'run.json: unknown key "warmup_stepz"; did you mean "warmup_steps"?' --config "$long/run.json"
echo '{"seed": [1]}' > "$long/run.json"
refused 2 1 'run.json: seed is [1], must be an integer' --config "$long/run.json"
refused 1 2 'run.json/out: cannot create directory: Not a directory' --output_dir "$long/run.json/out"
mkdir -p "$long/run/checkpoint-5" && echo '{' > "$long/run/checkpoint-5/manifest.json"
refused 1 2 'manifest.json: damaged: its last line is not the hash' --resume_from_checkpoint "$long/run/checkpoint-5"
"$MOAI_BIN/moai_checkpoint" ls "$long/run" > "$dir/out" 2>&1
grep -q 'checkpoint-5/manifest.json: damaged: its last line is not the hash' "$dir/out"; check $? "moai_checkpoint ls says why a checkpoint is none"

# the data
refused 2 2 "--data $dir/nothing: No such file or directory" --data "$dir/nothing"
refused 2 2 "--data $(find "$dir/data" -name 'train*.h5' | head -n 1) is a token shard; --data takes the directory of the shards, or its manifest.json" \
    --data "$(find "$dir/data" -name 'train*.h5' | head -n 1)"
refused 2 1 "--data $dir/shape holds no manifest.json" --data "$dir/shape"
echo 'Once upon a time.' > "$dir/story.txt"
refused 2 1 "--data $dir/story.txt is no manifest.json of token shards" --data "$dir/story.txt"
refused 2 2 "--tokenizer $dir/nowhere.model: No such file or directory" --tokenizer "$dir/nowhere.model"
mkdir "$dir/few" && "$MOAI_BIN/tests/tools/make_tokens" "$dir/few" 97 1 16 || exit 1
refused 2 2 'few: a split of 17 tokens has fewer than one sample of seq_length 32' --seq_length 32 --data "$dir/few" --output_dir "$dir/few-out"
shard=$(find "$dir/data" -name 'train*.h5' -exec basename {} \; | sort | head -n 1)
good missing; rm "$dir/missing/$shard"
refused 2 2 "missing/$shard: No such file or directory" --data "$dir/missing"
good cut; head -c 2000 "$dir/data/$shard" > "$dir/cut/$shard"
refused 2 2 "cut/$shard: 2000 bytes, the manifest says" --data "$dir/cut"
good foreign; head -c "$(wc -c < "$dir/data/$shard")" /dev/zero > "$dir/foreign/$shard"
refused 1 2 "foreign/$shard: cannot open as HDF5" --data "$dir/foreign"
if ! lacks "damaged tokens" python:h5py; then
good flipped
"$PYTHON" - "$dir/flipped/$shard" <<'END'
import h5py, sys
with h5py.File(sys.argv[1]) as f:
    at = f['tokens'].id.get_chunk_info(0).byte_offset + 40
with open(sys.argv[1], 'r+b') as f:
    f.seek(at)
    byte = f.read(1)
    f.seek(at)
    f.write(bytes([byte[0] ^ 16]))
END
late 1 4 "flipped/$shard: /tokens 0 to" --data "$dir/flipped" --max_steps 20 --output_dir "$dir/flipped-out"
good id
"$PYTHON" - "$dir/id/$shard" <<'END'
import h5py, sys
with h5py.File(sys.argv[1], 'r+') as f:
    f['tokens'][77] = 97
END
late 1 4 "id/$shard: token 77 is id 97, not below vocab_size 97" --data "$dir/id" --max_steps 20 --output_dir "$dir/id-out"
fi
sed 's/{/{"eos_token_id": 5, /' "$dir/model.json" > "$dir/eos.json"
refused 2 2 "data: documents end with token 1, eos_token_id of $dir/eos.json is 5" --model "$dir/eos.json"
sed 's/{/{"eos_token_id": [5, 6], /' "$dir/model.json" > "$dir/eos.json"
refused 2 2 "data: documents end with token 1, eos_token_id of $dir/eos.json is [5,6]" --model "$dir/eos.json"
echo 'not a tokenizer of this data' > "$dir/other.model"
refused 2 2 'data: the shards were made with tokenizer sha256 0' --tokenizer "$dir/other.model"

# the output directory: a file stands in the way (root may write where permissions say no)
echo precious > "$dir/file"
refused 1 2 "output_dir $dir/file is not writable" --output_dir "$dir/file"
[ "$(cat "$dir/file")" = precious ]; check $? "and the file is as it was"
refused 2 2 'out-dir holds checkpoint-2 of an earlier run'
"$MOAI_BIN/moai_checkpoint" verify "$dir/out-dir/checkpoint-2" > "$dir/out" 2>&1
check $? "after all that the checkpoint of the good run is whole"
refused 2 2 "$dir/no-checkpoint: not a checkpoint" --resume_from_checkpoint "$dir/no-checkpoint"
refused 2 2 "$dir/out-dir is no checkpoint; the newest in it is $dir/out-dir/checkpoint-2" --resume_from_checkpoint "$dir/out-dir" --output_dir "$dir/new"

# checkpoints
damaged() { mkdir "$dir/$1" && cp -r "$dir/out-dir/checkpoint-2" "$dir/$1/checkpoint-2"; }
damaged all; cp -r "$dir/out-dir/checkpoint-2" "$dir/all/checkpoint-1"
for n in 1 2; do printf '\377' | dd of="$dir/all/checkpoint-$n/manifest.json" bs=1 seek=500 conv=notrunc status=none; done
damaged flip; printf '\377' | dd of="$dir/flip/checkpoint-2/rank-00000.h5" bs=1 seek=5000 conv=notrunc status=none
again() { text=$1; shift; refused 1 2 "$text" --tensor_parallel 2 "$@"; }
disagrees() { text=$1; shift; refused 2 2 "$text" --tensor_parallel 2 "$@"; }
again 'flip/checkpoint-2/rank-00000.h5' --resume_from_checkpoint "$dir/flip/checkpoint-2"
damaged gone; rm "$dir/gone/checkpoint-2/rank-00000.h5"
again 'gone/checkpoint-2/rank-00000.h5: missing, though the manifest names it' --resume_from_checkpoint "$dir/gone/checkpoint-2"
sed 's/"intermediate_size": 32/"intermediate_size": 40/' "$dir/model.json" > "$dir/wider.json"
disagrees 'checkpoint-2 is of another model: intermediate_size' --model "$dir/wider.json" --resume_from_checkpoint "$dir/out-dir/checkpoint-2"
"$MOAI_BIN/moai_checkpoint" export "$dir/out-dir/checkpoint-2" "$dir/hf" > "$dir/out" 2>&1 && cp "$dir/other.model" "$dir/hf/tokenizer.model" &&
    "$MOAI_BIN/moai_checkpoint" import "$dir/hf" "$dir/foreign-weights" > "$dir/out" 2>&1
check $? "weights with a tokenizer of their own are imported"
refused 2 2 "$dir/hf is a Hugging Face model, no checkpoint: \`moai_checkpoint import $dir/hf RUN\`" --resume_from_checkpoint "$dir/hf" --output_dir "$dir/hf-out"
disagrees "foreign-weights/checkpoint-0: was trained with tokenizer $(sha256sum < "$dir/other.model" | cut -c 1-64), the data has 000" \
    --resume_from_checkpoint "$dir/foreign-weights/checkpoint-0" --output_dir "$dir/foreign-out"
disagrees 'was trained with seq_length 16, this run has 8' --seq_length 8 --resume_from_checkpoint "$dir/out-dir/checkpoint-2"
again "checkpoint-2/manifest.json: damaged" --output_dir "$dir/all" --resume_from_checkpoint auto
again "output_dir $dir/all: each of its 2 checkpoints is damaged" --output_dir "$dir/all" --resume_from_checkpoint auto
again "output_dir $dir/none holds no checkpoint" --output_dir "$dir/none" --resume_from_checkpoint latest

# keys that a resume may not change
mkdir "$dir/more" && "$MOAI_BIN/tests/tools/make_tokens" "$dir/more" 97 80 16 || exit 1
resume="--resume_from_checkpoint $dir/out-dir/checkpoint-2 --output_dir $dir/changed"
# shellcheck disable=SC2086
{
    refused 2 2 'was trained with 1 samples a step, this run has 2: set global_batch_size' $resume
    disagrees 'checkpoint-2: was trained on other data' $resume --data "$dir/more"
    disagrees 'checkpoint-2: seed 42, this run has 43' $resume --seed 43
    disagrees 'checkpoint-2: weight_decay was 0.1 when it was saved, this run has 0.2' $resume --weight_decay 0.2
    disagrees 'checkpoint-2: max_steps was 2 when it was saved, this run has 3, with other learning rates for steps already done' $resume --max_steps 3
    refused 2 2 'resume_allow names "seed"' $resume --resume_allow weight_decay,seed
    timeout 60 mpirun -np 2 "$train" --model "$dir/model.json" --data "$dir/data" --device cpu --num_threads 1 --seq_length 16 --max_steps 3 \
        --weight_decay 0.2 --resume_allow weight_decay,max_steps,global_batch_size $resume > "$dir/out" 2>&1
    check $? "with --resume_allow it goes on"
}

done_testing
