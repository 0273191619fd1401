#!/bin/sh
# Calls of the I/O layer that fail on purpose while a run saves or reads its data (tests/lib/faulty_io.c): training goes on to its last step, what is in place
# verifies, and a run that goes on from it is the undisturbed one, bit for bit.
. tests/lib/layouts.sh
export ASAN_OPTIONS=verify_asan_link_order=0
${CC:-gcc} -D_GNU_SOURCE -shared -fPIC -O1 -Wall -o "$runs/faulty_io.so" tests/lib/faulty_io.c -ldl || exit 1

model small 2 4 2
data corpus 100
train() {
    run=$1
    shift
    timeout 120 mpirun -np 2 env "$@" "$MOAI_BIN/moai_train" --model "$runs/small.json" --data "$runs/corpus" --output_dir "$runs/$run" \
        --device cpu --num_threads 1 --seq_length 29 --global_batch_size 4 --max_steps 30 --save_steps 2 --save_total_limit 2 \
        --no_tensorboard --no_progress --log_samples $flags > "$runs/$run.log" 2>&1
}
count() { grep -c "\"event\":\"$2\"" "$runs/$1/metrics.jsonl"; }

# with_faults NAME FAULTS: a run of 24 steps under faults, then without them to the end
with_faults() {
    flags="--stop_at_step 24 ${3:-}"
    train "$1" LD_PRELOAD="$runs/faulty_io.so" FAULTY_IO="$2"
    status=$? failures=$(count "$1" save_failed) saves=$(count "$1" saved)
    grep -q '^step 24/30' "$runs/$1.log" && [ $status -le 1 ] && [ "$failures" -gt 0 ]
    check $? "$2: goes on to step 24, status $status; $saves saves, $failures failed: $(sed -n 's/.*"save_failed","text":"\([^"]*\)".*/\1/p' "$runs/$1/metrics.jsonl" | head -n 1 | sed "s|$runs/||")"
    [ "$status" = 0 ] || [ ! -e "$runs/$1/checkpoint-24" ]; check $? "status 1 means that the last one is not there"
    "$MOAI_BIN/moai_checkpoint" verify "$runs/$1" > "$runs/log" 2>&1
    good=$? left=$(grep -c 'complete and undamaged' "$runs/log")
    [ "$saves" = 0 ] || { [ $good = 0 ] && [ "$left" -gt 0 ]; }; check $? "the $left in place verify"
    flags="--resume_from_checkpoint auto"
    train "$1" A=B
    check $? "without faults it goes on: $(grep -m 1 ^resumed "$runs/$1.log" | sed 's|.*/||')"
    same_bits "$1" straight
}

flags=
train straight A=B
with_faults no-space pwrite:211:ENOSPC
with_faults flips flip:307
with_faults mixed fsync:13:EIO,rename:5:EIO,write:17:EIO,pread:1009:EIO
if [ "${ALL_FAULTS:-}" ]; then                # tests/slow/t9-io-faults.sh
    with_faults writes pwrite:401:EIO
    with_faults syncs fsync:7:EIO
    with_faults names rename:3:EIO
    with_faults small write:5:ENOSPC
    with_faults reads pread:503:EIO
    with_faults never fsync:1:EIO
    with_faults blocking pwrite:211:ENOSPC,fsync:17:EIO,rename:5:EIO --no_async_save
    with_faults blocking-flips flip:307 --no_async_save
fi

# data that cannot be read at once: another try, of the file opened anew, and the same bits
reads_again() {
    flags=
    train "$1" LD_PRELOAD="$runs/faulty_io.so" FAULTY_PATH=/corpus/train FAULTY_IO="$2"
    status=$? told=$(grep -c "^warning: \[rank .*/corpus/train-.*: $3; trying again in 1 s$" "$runs/$1.log")
    [ $status = 0 ] && [ "$told" -gt 0 ]; check $? "$2 of shards: status $status, $told warnings, as $(grep -m 1 'trying again' "$runs/$1.log" | sed "s|$runs/||")"
    same_bits "$1" straight
}
reads_again data-reads pread:37:EIO '.*Input/output error.*'
reads_again data-stale stale:47 '.*Stale file handle.*'
flags="--stop_at_step 24"
train halves LD_PRELOAD="$runs/faulty_io.so" FAULTY_IO=short:2
[ $? = 0 ] && [ "$(count halves save_failed)" = 0 ] && "$MOAI_BIN/moai_checkpoint" verify "$runs/halves" > "$runs/log" 2>&1
check $? "writes that write half are gone on with"
done_testing
