#!/bin/sh
# A model with hyper-connections, trained here and exported, loads in Transformers by the code that is beside it: the same logits,
# the same text.
# needs: python:torch python:transformers
. tests/lib/layouts.sh
ids=5,9,11,3,50,7,8,9
mkdir "$runs/data" && "$MOAI_BIN/tests/tools/make_tokens" "$runs/data" 53 2000 32
for mixing in sinkhorn permutation; do
    out=$runs/$mixing head=$([ $mixing = sinkhorn ] && echo true || echo false)
    sed "s/\"head_dim\"/\"hc_mult\": 4, \"hc_mixing\": \"$mixing\", \"hc_init_alpha\": 1, \"hc_head\": $head, &/; s/\"eos_token_id\": [0-9]*/\"eos_token_id\": null/" \
        tests/golden/blocks/config.json > "$out.json"
    "$MOAI_BIN/moai_train" --model "$out.json" --data "$runs/data" --output_dir "$out" --seq_length 32 --max_steps 60 --learning_rate 1e-2 \
        --batch_size 8 --num_threads 1 --no_tensorboard > "$runs/log" 2>&1 &&
        "$MOAI_BIN/moai_checkpoint" export "$out/checkpoint-60" "$out-hf" >> "$runs/log" 2>&1 &&
        "$MOAI_BIN/moai_generate" "$out-hf" --input_ids $ids --num_threads 1 --logits_out "$out.bin" >> "$runs/log" 2>&1 &&
        "$MOAI_BIN/moai_generate" "$out-hf" --input_ids $ids --num_threads 1 --temperature 0 --max_new_tokens 16 > "$out.txt" 2>> "$runs/log"
    check $? "$mixing: trained, exported, written"
    shown=$runs/log
    relay 2 "$mixing: " "$PYTHON" tests/slow/t8-streams.py "$out-hf" "$out.bin" $ids "$(cat "$out.txt")"
done
done_testing
