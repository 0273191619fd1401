#!/bin/sh
# The output directory is one job's, the same on every rank, and a run that goes on from a checkpoint by name finds no later ones there.
unset SLURM_JOB_ID
. tests/lib/small.sh
cat > "$dir/run.json" <<END
{"model": "$dir/model.json", "data": "$dir/data", "device": "cpu", "num_threads": 1, "seq_length": 32, "global_batch_size": 4,
 "lr_scheduler_type": "constant", "max_steps": 1000000, "save_steps": 5, "tensorboard": false, "progress": false}
END
bin=$(realpath "$MOAI_BIN")
train="timeout 60 $MOAI_BIN/moai_train --config $dir/run.json"

# shellcheck disable=SC2086
{
    # going on from a checkpoint by name
    $train --output_dir "$dir/back" --stop_at_step 20 --save_total_limit 0 > "$dir/out" 2>&1 || exit 1
    refused 2 "output_dir $dir/back holds checkpoint-20, checkpoint-15, later than $dir/back/checkpoint-10: move them away" \
        $train --output_dir "$dir/back" --resume_from_checkpoint "$dir/back/checkpoint-10"
    mkdir "$dir/later" && mv "$dir/back/checkpoint-15" "$dir/back/checkpoint-20" "$dir/later"
    $train --output_dir "$dir/back" --resume_from_checkpoint "$dir/back/checkpoint-10" --stop_at_step 12 > "$dir/out" 2>&1
    check $? "with those moved away it goes on: $(grep ^resumed "$dir/out" | sed 's|.*/||')"

    # a checkpoint is no place for a run, a model, tokens: the outer run removes it with all in it
    refused 2 "output_dir $dir/back/checkpoint-10 is a checkpoint; to go on from it: --output_dir $dir/back --resume_from_checkpoint $dir/back/checkpoint-10$" \
        $train --output_dir "$dir/back/checkpoint-10" --stop_at_step 1
    cd "$dir/back" && refused 2 "output_dir checkpoint-10/ is a checkpoint; to go on from it: --output_dir . --resume" "$bin/moai_train" --config "$dir/run.json" --output_dir checkpoint-10/
    cd "$OLDPWD" || exit 1
    refused 2 "output_dir $dir/back/checkpoint-5/a/b lies in the checkpoint .*/back/checkpoint-5, " $train --output_dir "$dir/back/checkpoint-5/a/b"
    refused 2 "output_dir $dir/back/checkpoint-40 is a checkpoint, or where its run saves one" $train --output_dir "$dir/back/checkpoint-40"
    refused 2 "output_dir $dir/back/checkpoint-40.tmp is a checkpoint, or where" mpirun -np 2 $train --output_dir "$dir/back/checkpoint-40.tmp"
    ln -s back/checkpoint-5 "$dir/link"
    refused 2 "output_dir $dir/link/x lies in the checkpoint .*/back/checkpoint-5, " $train --output_dir "$dir/link/x"
    refused 2 "HF_DIR $dir/back/checkpoint-5/hf lies in the checkpoint" "$MOAI_BIN/moai_checkpoint" export "$dir/back/checkpoint-10" "$dir/back/checkpoint-5/hf"
    [ ! -e "$dir/back/checkpoint-40" ] && [ ! -e "$dir/back/checkpoint-5/a" ] && "$MOAI_BIN/moai_checkpoint" verify "$dir/back" > "$dir/out" 2>&1
    check $? "nothing was made there"
    $train --output_dir "$dir/checkpoint-1" --stop_at_step 1 > "$dir/out" 2>&1; check $? "a run that is called checkpoint-1, in no other's directory"

    # what an earlier program let in there stays
    mkdir "$dir/back/checkpoint-5/inner" && echo '{}' > "$dir/back/checkpoint-5/inner/metrics.jsonl" && echo good > "$dir/back/checkpoint-10/notes"
    $train --output_dir "$dir/back" --resume_from_checkpoint auto --stop_at_step 20 --save_total_limit 1 > "$dir/out" 2>&1
    check $? "save_total_limit 1"
    grep -q "checkpoint-5 stays: .*checkpoint-5/inner/metrics.jsonl in it is no part of a checkpoint" "$dir/out" && [ -s "$dir/back/checkpoint-5/inner/metrics.jsonl" ] &&
        [ ! -e "$dir/back/checkpoint-10" ] && [ -e "$dir/back/checkpoint-20" ]
    check $? "another run in a checkpoint keeps it, notes do not"
    rm -r "$dir/back/checkpoint-5"

    # a job is at work
    "$MOAI_BIN/moai_checkpoint" export "$dir/back/checkpoint-20" "$dir/hf" > "$dir/out" 2>&1 || exit 1
    refused 2 "output_dir $dir/hf is a Hugging Face model: .moai_checkpoint import $dir/hf RUN. makes RUN/checkpoint-0" $train --output_dir "$dir/hf"
    "$MOAI_BIN/moai_train" --config "$dir/run.json" --save_steps 0 --output_dir "$dir/run" > "$dir/first" 2>&1 &
    pid=$! n=0
    until grep -q '"step":12,' "$dir/run/metrics.jsonl" 2> /dev/null || [ $n -ge 300 ]; do sleep 0.1; n=$((n + 1)); done
    refused 1 "output_dir $dir/run: another job is writing there (host $(hostname) pid $pid job -)" \
        $train --output_dir "$dir/run" --resume_from_checkpoint auto
    refused 1 "another job is writing there (host $(hostname) pid $pid job -)" "$MOAI_BIN/moai_checkpoint" import "$dir/hf" "$dir/run"
    echo 'host of-a-lost-node pid 7 job 77' > "$dir/run/.lock"
    refused 0 'still locked by an earlier start of this job (host of-a-lost-node' \
        env SLURM_JOB_ID=77 "$MOAI_BIN/moai_checkpoint" import "$dir/hf" "$dir/run"
    kill -9 $pid; check $? "meanwhile it went on"
    wait $pid 2> /dev/null
    $train --output_dir "$dir/run" --resume_from_checkpoint auto --stop_at_step 1 > "$dir/out" 2>&1; check $? "after SIGKILL the directory is free"

    # the same name, another directory
    mkdir "$dir/here" "$dir/there"
    refused 1 'output_dir out is not the directory that rank 0 sees' mpirun -np 1 --wdir "$dir/here" "$(realpath "$MOAI_BIN")/moai_train" \
        --config "$dir/run.json" --output_dir out : -np 1 --wdir "$dir/there" "$(realpath "$MOAI_BIN")/moai_train" --config "$dir/run.json" --output_dir out
}
find "$dir/here" "$dir/there" "$dir/back" -name '.probe*' | grep -q .; [ $? = 1 ]; check $? "nothing is left of the looking"
done_testing
