#!/bin/sh
# Two GPUs train what one trains: TP2, PP2 and DP2 in fp32 to 1e-5, in bf16 to rounding, each twice with the same bits, and seen in traces.
# needs: perl:JSON::PP
. tests/gpu/gpus.sh

[ "$gpus" -ge 2 ] || skip_all "$gpus GPU here"
model small 4 28 4
data corpus 100

layout one 1 --batch_size 2 --deterministic
even bf16 1 --bf16 --batch_size 2 --deterministic
# STAGES LAYERS MICRO_BATCHES of a rank, as trace.pl asks for them
for how in tp2:tensor_parallel:1:4:4 pp2:pipeline_parallel:2:2:4 dp2:data_parallel:1:4:2; do
    IFS=: read -r name axis stages layers micro <<EOF_HOW
$how
EOF_HOW
    layout "$name" 2 --$axis 2 --batch_size 2 --deterministic
    layout "$name-observed" 2 --$axis 2 --batch_size 2 --deterministic --profile_step 3
    agree "$name" one
    same_bits "$name-observed" "$name"
    for rank in 0 1; do
        story=$(perl tests/lib/trace.pl "$runs/$name-observed/profile/rank-$rank.json" $rank $((stages == 2 ? rank : 0)) "$stages" "$layers" "$micro")
        check $? "$name: the trace of rank $rank holds the step: products of $story FLOP"
    done
    even "bf16-$name" 2 --$axis 2 --bf16 --batch_size 2 --deterministic
    even "bf16-$name-full" 2 --$axis 2 --bf16 --batch_size 2 --deterministic --gradient_checkpointing full
    agree "bf16-$name" bf16 1e-2
    same_bits "bf16-$name-full" "bf16-$name"
done
halves resumed 2 --pipeline_parallel 2 --batch_size 2 --deterministic -- 2 --pipeline_parallel 2 --batch_size 2 --deterministic
same_bits resumed pp2
halves moved 2 --tensor_parallel 2 --batch_size 2 -- 2 --data_parallel 2 --batch_size 2
agree moved one

sed 's/"rms_norm_eps"/"hc_mult": 4, "hc_init_alpha": 0.5, &/' "$runs/even.json" > "$runs/more.json"
mv "$runs/more.json" "$runs/even.json"
for dtype in fp32 bf16; do
    flags="--batch_size 2 --deterministic --adam_epsilon 1e-3" apart=1e-5
    [ $dtype = fp32 ] || flags="$flags --$dtype" apart=3e-2
    # shellcheck disable=SC2086
    even "streams-$dtype" 1 $flags
    for axis in tensor pipeline data; do
        # shellcheck disable=SC2086
        {
            even "streams-$dtype-$axis" 2 $flags --${axis}_parallel 2
            even "streams-$dtype-$axis-groups" 2 $flags --${axis}_parallel 2 --gradient_checkpointing streams
        }
        agree "streams-$dtype-$axis" "streams-$dtype" $apart
        same_bits "streams-$dtype-$axis-groups" "streams-$dtype-$axis"
    done
done
done_testing
