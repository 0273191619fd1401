#!/bin/sh
# Training on one GPU: the CPU's model; the same bits twice, in every recomputation mode, over a resume and under observation.
# needs: perl:JSON::PP
. tests/gpu/gpus.sh

model small 4 28 4
data corpus 100
one="--batch_size 2 --deterministic"

# fp32
# shellcheck disable=SC2086
{
    layout one 1 $one
    layout one-again 1 $one
    layout one-selective 1 $one --gradient_checkpointing selective
    layout one-full 1 $one --gradient_checkpointing full
    layout one-observed 1 $one --profile_step 3
    halves one-resumed 1 $one -- 1 $one
    layout one-fastest 1 --batch_size 2
    layout one-cpu 1 --batch_size 2 --device cpu
}
learns one
for other in again selective full observed resumed; do same_bits one-$other one; done
agree one one-cpu
agree one-fastest one-cpu
story=$(perl tests/lib/trace.pl "$runs/one-observed/profile/rank-0.json" 0 0 1 4 4)
check $? "the trace of a step: the whole schedule, no two events of a lane at once, products of $story FLOP"

# 2 bytes a number: what rounding does to the loss in 20 steps, not what it does to a gradient
for dtype in bf16 fp16; do
    flags="--batch_size 2 --deterministic --$dtype"
    # shellcheck disable=SC2086
    {
        even $dtype 1 $flags
        even $dtype-again 1 $flags
        even $dtype-selective 1 $flags --gradient_checkpointing selective
        even $dtype-full 1 $flags --gradient_checkpointing full
        even $dtype-half 1 $flags --stop_at_step 10
        mv "$runs/$dtype-half" "$runs/$dtype-resumed"
        even $dtype-resumed 1 $flags --resume_from_checkpoint auto
        even $dtype-fastest 1 --batch_size 2 --$dtype
        even $dtype-cpu 1 $flags --device cpu
    }
    learns $dtype
    for other in again selective full resumed; do same_bits $dtype-$other $dtype; done
    agree $dtype $dtype-cpu 1e-2
    agree $dtype-fastest $dtype-cpu 1e-2
done

# 4 streams, in groups of 2 layers and a last one
sed 's/"rms_norm_eps"/"hc_mult": 4, "hc_init_alpha": 0.5, &/; s/"num_hidden_layers": 4/"num_hidden_layers": 7/' "$runs/even.json" > "$runs/more.json"
mv "$runs/more.json" "$runs/even.json"
for dtype in fp32 bf16 fp16; do
    flags="--batch_size 2 --deterministic --adam_epsilon 1e-3"
    [ $dtype = fp32 ] || flags="$flags --$dtype"
    for mode in none streams selective keep_attention full; do
        # shellcheck disable=SC2086
        even streams-$dtype-$mode 1 $flags --gradient_checkpointing $mode
    done
    for mode in streams selective keep_attention full; do same_bits streams-$dtype-$mode streams-$dtype-none; done
done
done_testing
