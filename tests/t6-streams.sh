#!/bin/sh
# Hyper-connections train the same model: 20 steps of fp32 with 4 streams on TP, PP, DP and all of them against one rank; every
# recomputation mode and a resumed run have the same bits.  The streams of the first layer are alike, and most gradients of its
# base are zero but for rounding: an eps of AdamW above that keeps it from making steps of them.
. tests/lib/layouts.sh

model plain 4 28 4
sed 's/"rms_norm_eps"/"hc_mult": 4, "hc_init_alpha": 0.5, &/' "$runs/plain.json" > "$runs/small.json"
data corpus 200
learning_rate=2e-3
streams() { name=$1 ranks=$2; shift 2; layout "$name" "$ranks" --adam_epsilon 1e-3 "$@"; }
streams one 1 --batch_size 2
streams one-full 1 --batch_size 2 --gradient_checkpointing full
streams one-selective 1 --batch_size 2 --gradient_checkpointing selective
streams one-streams 1 --batch_size 2 --gradient_checkpointing streams
learns one
for mode in full selective streams; do same_bits one-$mode one; done
streams tp2 2 --tensor_parallel 2 --batch_size 2
streams tp2-full 2 --tensor_parallel 2 --batch_size 2 --gradient_checkpointing full
streams tp4 4 --tensor_parallel 4 --batch_size 8
streams pp2 2 --pipeline_parallel 2 --batch_size 1
streams pp3 3 --pipeline_parallel 3 --batch_size 2
streams dp2 2 --batch_size 2
streams all 8 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1
same_bits tp2-full tp2
for other in tp2 tp4 pp2 pp3 dp2 all; do agree $other one; done
halves resumed 1 --batch_size 2 --adam_epsilon 1e-3 -- 1 --batch_size 2 --adam_epsilon 1e-3
same_bits resumed one
halves moved 2 --tensor_parallel 2 --batch_size 2 --adam_epsilon 1e-3 -- 2 --pipeline_parallel 2 --batch_size 2 --adam_epsilon 1e-3
agree moved one

# groups of layers whose streams are merged again: of one rank 3 at a time; of two stages 2, the last one of 1; of three 3, 2 / 2, 2, 1 / 1, ...
sed 's/"num_hidden_layers": 4/"num_hidden_layers": 15/' "$runs/small.json" > "$runs/deep.json"
use_model=deep steps=4
in_modes() {
    deep=$1 ranks=$2
    shift 2
    for mode in none streams selective keep_attention full; do streams "$deep-$mode" "$ranks" --batch_size 1 --gradient_checkpointing $mode "$@"; done
    for mode in streams selective keep_attention full; do same_bits "$deep-$mode" "$deep-none"; done
}
in_modes deep 1
in_modes deep-tp2-pp2 4 --tensor_parallel 2 --pipeline_parallel 2
streams deep-pp3 3 --pipeline_parallel 3 --batch_size 1 --gradient_checkpointing none
streams deep-pp3-streams 3 --pipeline_parallel 3 --batch_size 1 --gradient_checkpointing streams
same_bits deep-pp3-streams deep-pp3
agree deep-pp3 deep-none
kept() { "$MOAI_BIN/moai_train" --plan --model "$runs/deep.json" --device cpu --seq_length 29 --global_batch_size 8 "$@" | sed -n 's/^streams .*, kept every //p'; }
groups="$(kept --gradient_checkpointing none)/$(kept --gradient_checkpointing streams)/$(kept --gradient_checkpointing full --plan_ranks 2 --pipeline_parallel 2)"
groups="$groups/$(kept --gradient_checkpointing selective --plan_ranks 3 --pipeline_parallel 3)"
[ "$groups" = "/3 layers/2 layers/1 to 3 layers" ]
check $? "groups of one, two, three stages: $groups"
steps=20

sed 's/"hc_mult": 4/"hc_mult": 3, "hc_mixing": "permutation"/' "$runs/small.json" > "$runs/lite.json"
use_model=lite
streams lite 1 --batch_size 2
streams lite-all 8 --tensor_parallel 2 --pipeline_parallel 2 --batch_size 1 --gradient_checkpointing full
learns lite
agree lite-all lite

sed 's/"hc_mult": 4/"hc_mult": 1/' "$runs/small.json" > "$runs/single.json"
use_model=plain
layout plain 1 --batch_size 2
use_model=single
layout single 1 --batch_size 2
same_bits single plain
done_testing
