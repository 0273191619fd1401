#!/bin/sh
# Every layout of 1 to 8 ranks x with and without gradient accumulation x recomputation mode, for 4 and 8 layers, and TP above the KV heads.
. tests/lib/layouts.sh

data corpus 200

# battery MODEL LAYOUT...: a layout is NAME:RANKS:TP:PP; the first is the one that the others must agree with
battery() {
    use_model=$1
    shift
    reference=$use_model-${1%%:*}-steps-none
    for entry; do
        IFS=: read -r name ranks tp pp <<EOF
$entry
EOF
        dp=$((ranks / tp / pp))
        for batch in steps once; do
            size=1
            [ $batch = steps ] || size=$((8 / dp))
            base=$use_model-$name-$batch
            for mode in none selective full; do
                layout "$base-$mode" "$ranks" --tensor_parallel "$tp" --pipeline_parallel "$pp" --batch_size $size \
                    --gradient_checkpointing $mode
                [ $mode = none ] || same_bits "$base-$mode" "$base-none"
            done
            [ "$base-none" = "$reference" ] || agree "$base-none" "$reference"
            layout "$base-again" "$ranks" --tensor_parallel "$tp" --pipeline_parallel "$pp" --batch_size $size
            same_bits "$base-again" "$base-none"
        done
    done
}

for layers in 4 8; do
    model "layers$layers" "$layers" 28 4
    battery "layers$layers" one:1:1:1 tp2:2:2:1 tp4:4:4:1 pp2:2:1:2 pp3:3:1:3 dp2:2:1:1 dp4:4:1:1 tp2-pp2:4:2:2 tp2-dp2:4:2:1 \
        pp2-dp2:4:1:2 tp2-pp2-dp2:8:2:2
done
model heads14 4 14 2
battery heads14 one:1:1:1 tp2:2:2:1 tp14:14:14:1
model heads16 4 16 4
battery heads16 one:1:1:1 tp8:8:8:1
model tied 4 28 4 true
battery tied one:1:1:1 tp2-pp2:4:2:2 pp3:3:1:3
done_testing
