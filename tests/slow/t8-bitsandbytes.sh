#!/bin/sh
# A model exported in 4 bits is what bitsandbytes makes of it, byte for byte, and loads in Transformers; adapters that were
# trained here load in PEFT: both with our logits.
# needs: python:torch python:transformers python:peft python:bitsandbytes
. tests/lib/layouts.sh
golden=tests/golden ids=5,9,11,3,50,7,8,9
logits() { "$MOAI_BIN/moai_generate" "$@" --input_ids $ids --num_threads 1 >> "$runs/log" 2>&1; }
mkdir "$runs/data" && "$MOAI_BIN/tests/tools/make_tokens" "$runs/data" 53 2000 32
"$MOAI_BIN/moai_checkpoint" export $golden/blocks "$runs/plain" > "$runs/log" 2>&1 &&
    "$MOAI_BIN/moai_checkpoint" export --quantization nf4 $golden/blocks "$runs/nf4" >> "$runs/log" 2>&1 &&
    logits "$runs/nf4" --logits_out "$runs/nf4.bin" &&
    "$MOAI_BIN/moai_train" --model_name_or_path "$runs/plain" --data "$runs/data" --output_dir "$runs/lora" --lora_rank 4 --seq_length 32 \
        --max_steps 20 --learning_rate 1e-2 --num_threads 1 --no_tensorboard >> "$runs/log" 2>&1 &&
    "$MOAI_BIN/moai_checkpoint" export --adapter "$runs/lora/checkpoint-20" "$runs/peft" >> "$runs/log" 2>&1 &&
    logits "$runs/plain" --adapter "$runs/lora" --logits_out "$runs/lora.bin"
check $? "exported, trained, and logits written"
shown="$runs/log"
relay 4 "" "$PYTHON" tests/slow/t8-bitsandbytes.py "$runs/plain" "$runs/nf4" "$runs/nf4.bin" "$runs/plain" "$runs/peft" \
    "$runs/lora.bin" $ids
done_testing
