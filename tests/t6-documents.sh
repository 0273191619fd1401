#!/bin/sh
# t6-documents.sh: document_mask keeps the documents of a sample apart, on every layout as on one rank, on the stages
# between the first and the last too; and it is another run than one without.
# needs: mpirun
. tests/lib/layouts.sh

model small 4 28 4
data corpus 200
masked="--document_mask --eval_steps 10 --eval_batches 1"
# shellcheck disable=SC2086
mask() { layout "$@" $masked; }
mask one 1
mask full 1 --gradient_checkpointing full
mask selective 1 --gradient_checkpointing selective
mask keep_attention 1 --gradient_checkpointing keep_attention
mask tp2 2 --tensor_parallel 2
mask tp4 4 --tensor_parallel 4 --per_device_train_batch_size 2
mask pp2 2 --pipeline_parallel 2
mask pp4 4 --pipeline_parallel 4
mask dp2 2 --per_device_train_batch_size 2
mask 222 8 --tensor_parallel 2 --pipeline_parallel 2
for mode in full selective keep_attention; do same_bits $mode one; done
for layout in tp2 tp4 pp2 pp4 dp2 222; do agree $layout one; done
learns one
layout plain 1
mask running-on 1 --no_reset_positions
numbers() { sed -n 's/.*"loss":\([0-9.]*\).*"grad_norm":\([0-9.]*\).*/\1 \2/p' "$runs/$1/metrics.jsonl"; }
[ "$(numbers one)" != "$(numbers plain)" ] && [ "$(numbers one)" != "$(numbers running-on)" ] && [ "$(numbers running-on)" != "$(numbers plain)" ]
check $? "masked, with positions that run on, and not masked are three runs: $(for r in one running-on plain; do numbers $r | sed -n '20s/ /, /p'; done | paste -sd ';')"
done_testing
