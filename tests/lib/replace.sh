# shellcheck shell=sh
# replace.sh: sourced by t7-replace.sh and slow/t7-replace.sh: a data set while encode writes or replaces it.  What is there afterwards is
# the old set or the new one, whole, or none where there was none; the message says what happened; the next encode needs no help.
#
#   replace_test TWICE KILLS FULL     so often: two encodes at once, an encode killed, the disk filled under one
. tests/lib/check.sh
dir=$TMPDIR
shown="$dir/log"
tokenize=$MOAI_BIN/moai_tokenize

# Two texts and two tokenizers, so that nothing of the two sets is the same.
cat src/*/*.c > "$dir/a.txt"
cat io/*/*.c README.md > "$dir/b.txt"
"$tokenize" train --input "$dir/a.txt" --vocab_size 500 --output "$dir/tok-a" > "$dir/log" 2>&1 &&
    "$tokenize" train --input "$dir/b.txt" --vocab_size 600 --output "$dir/tok-b" > "$dir/log" 2>&1 || exit 1

# encode a|b DIR OPTION...
encode() {
    which=$1 to=$2
    shift 2
    # shellcheck disable=SC2086
    $launch "$tokenize" encode --tokenizer "$dir/tok-$which.model" --input "$dir/$which.txt" --document_separator blank_line \
        --shard_tokens 25000 --output "$to" --num_threads 1 --no_progress "$@"
}
# What a set is, whatever its files are called: the hashes of its shards and of its tokenizer, when audit finds no fault.
set_of() {
    [ -e "$1/manifest.json" ] || { echo none; return; }
    "$tokenize" audit "$1" > "$dir/audit" 2>&1 || { echo damaged; return; }
    sed '$d' "$1/manifest.json" | grep -o '"xxh3": "[^"]*"\|"tokenizer_sha256": "[^"]*"' | sha256sum
}
# Names that lie there and are no part of the set.
others_in() {
    for name in $(ls -A "$1"); do
        [ "$name" = manifest.json ] || grep -q "\"$name\"" "$1/manifest.json" || echo "$name"
    done
}
# Each round in turn: a first encode, one over the other set.
prepare() {
    set=$dir/set/$1
    mkdir -p "$dir/set"
    rm -rf "$set"
    before=none option=
    [ $(($1 % 2)) = 0 ] || { cp -r "$dir/old" "$set"; before=$old option=--overwrite; }
    [ $(($1 % 3)) = 0 ] && launch="mpirun -np 2" || launch=
}
# whole SET: as before, or new
whole() { now=$(set_of "$1"); [ "$now" = "$before" ] || [ "$now" = "$new" ]; }
# goes_on SET: the next encode replaces what is there, and nothing else is left
goes_on() {
    launch=
    encode b "$1" --overwrite > "$dir/log" 2>&1 && [ "$(set_of "$1")" = "$new" ] && [ -z "$(others_in "$1")" ]
}

twice() {
    wrong=0 n=0 refused=0
    while [ $n -lt "$1" ]; do
        n=$((n + 1))
        prepare $n
        # each with a place of its own for Open MPI's files: one that ends removes what the other is about to use
        mkdir -p "$dir/mpi-1" "$dir/mpi-2"
        (export OMPI_MCA_orte_tmpdir_base="$dir/mpi-1"; encode b "$set" $option > "$dir/first" 2>&1) & first=$!
        (export OMPI_MCA_orte_tmpdir_base="$dir/mpi-2"; encode b "$set" $option > "$dir/second" 2>&1); second_status=$?
        wait $first; first_status=$?
        cat "$dir/first" "$dir/second" > "$dir/log"
        # both may pass where one came after the other
        [ "$(set_of "$set")" = "$new" ] && [ -z "$(others_in "$set")" ] || { wrong=1; break; }
        case $first_status$second_status in
        00) ;;
        01 | 10)
            refused=$((refused + 1))
            grep -q "output $set: another job is writing there (host $(hostname) pid [0-9]* job\|exists already" "$dir/log" || { wrong=1; break; } ;;
        *) wrong=1; break ;;
        esac
        rm -rf "$set"
    done
    [ $wrong = 0 ]; check $? "$n times two encodes into one directory: one set, whole; $refused were refused"
}

killed() {
    wrong=0 n=0 cut=0 late=0
    while [ $n -lt "$1" ]; do
        n=$((n + 1))
        prepare $n
        launch=''
        if [ $((n % 4)) = 0 ]; then          # while names change
            perl -e '$p = fork // die; if (!$p) { open STDOUT, ">", "/dev/null"; open STDERR, ">&STDOUT"; exec @ARGV[1 .. $#ARGV] }
                for (1 .. 20000) { last if -e "$ARGV[0]/.parts/names"; select undef, undef, undef, 0.0005 }
                select undef, undef, undef, 0.004 * rand; kill 9, $p; waitpid $p, 0' "$set" \
                "$tokenize" encode --tokenizer "$dir/tok-b.model" --input "$dir/b.txt" --document_separator blank_line \
                --shard_tokens 25000 --output "$set" --num_threads 1 --no_progress $option
        else
            encode b "$set" $option > "$dir/log" 2>&1 & pid=$!
            sleep "$(awk -v n=$n -v s=$$ -v t="$took" 'BEGIN { srand(n + 1000 * s); printf "%.4f", 1.1 * t * rand() }')"
            pkill -9 -P $pid; kill -9 $pid 2> /dev/null
            wait $pid 2> /dev/null
        fi
        whole "$set" || { wrong=1; cp "$dir/audit" "$dir/log"; ls -A "$set" >> "$dir/log"; break; }
        [ "$now" = "$new" ] && late=$((late + 1))
        [ -z "$(others_in "$set" 2> /dev/null)" ] || cut=$((cut + 1))
        goes_on "$set" || { wrong=1; ls -A "$set" >> "$dir/log"; break; }
        rm -rf "$set"
    done
    [ $wrong = 0 ]; check $? "killed $n times, $cut amid the work, $late behind the switch: a whole set or none, and the next encode needs no help"
}

filled() {
    if ! mkdir -p "$dir/disk" || ! mount -t tmpfs -o size=1m tmpfs "$dir/disk" 2> /dev/null; then
        check 0 "the disk filled under an encode # SKIP tmpfs cannot be mounted here"
        return
    fi
    wrong=0 n=0 full=0 size=$(du -sk "$dir/new" | cut -f 1)
    while [ $n -lt "$1" ]; do
        n=$((n + 1))
        prepare $n
        disk_set=$dir/disk/set
        mount -o remount,size=64m "$dir/disk" && rm -rf "$disk_set"
        [ ! -e "$set" ] || mv "$set" "$disk_set"
        mount -o remount,size=$(($(du -sk "$dir/disk" | cut -f 1) + n * 2 * size / $1))k "$dir/disk"
        # shellcheck disable=SC2086
        encode b "$disk_set" $option > "$dir/log" 2>&1
        status=$?
        mount -o remount,size=64m "$dir/disk"
        whole "$disk_set" || { wrong=1; cp "$dir/audit" "$dir/log"; break; }
        if [ $status = 0 ]; then
            [ "$now" = "$new" ] || { wrong=1; break; }
        else
            full=$((full + 1))
            [ $status = 1 ] && [ "$now" = "$before" ] && grep -q 'No space left on device' "$dir/log" || { wrong=1; break; }
        fi
        goes_on "$disk_set" || { wrong=1; break; }
    done
    [ $wrong = 0 ]; check $? "$n sizes of a disk, too small $full times: said so, the set from before whole, the next encode needs no help"
    umount "$dir/disk"
}

# A run that reads the set which is replaced goes on with it.
in_use() {
    launch='' before=$old set=$dir/set/run
    cp -r "$dir/old" "$set"
    cat > "$dir/model.json" <<END
{"model_type": "qwen3", "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
 "head_dim": 8, "vocab_size": 600, "max_position_embeddings": 64, "rope_theta": 10000}
END
    OMP_NUM_THREADS=1 "$MOAI_BIN/moai_train" --model "$dir/model.json" --data "$set" --output_dir "$dir/run" --device cpu --seq_length 16 \
        --max_steps 1000000 --save_steps 0 --no_tensorboard --no_progress --lr_scheduler_type constant > "$dir/run.log" 2>&1 & run=$!
    steps() { tail -n 1 "$dir/run/metrics.jsonl" 2> /dev/null | sed -n 's/.*"step":\([0-9]*\),.*/\1/p'; }
    reaches() { for _ in $(seq 600); do [ "$(steps)" -ge "$1" ] 2> /dev/null && return; kill -0 $run 2> /dev/null || return; sleep 0.1; done; return 1; }
    reaches 1
    encode b "$set" --overwrite > "$dir/log" 2>&1 && [ "$(set_of "$set")" = "$new" ] &&
        grep -q "^warning: $set: another job still reads the shards that were replaced" "$dir/log"
    check $? "a set that a run reads is replaced, and its shards stay: $(others_in "$set" | tr '\n' ' ')"
    at=$(steps)
    reaches $((at + 300)); check $? "the run goes on, from step $at to $(steps)"
    encode a "$set" --overwrite > "$dir/log" 2>&1 && [ "$(set_of "$set")" = "$old" ] && [ "$(others_in "$set" | grep -c '^train')" -gt 2 ]
    check $? "replaced again, they are still there"
    kill -9 $run; wait $run 2> /dev/null
    goes_on "$set"; check $? "when it has ended the next encode removes them"
}

replace_test() {
    launch=
    encode a "$dir/old" > "$dir/log" 2>&1 && began=$(date +%s.%N) && encode b "$dir/new" > "$dir/log" 2>&1 || exit 1
    took=$(date +%s.%N | awk -v b="$began" '{ print $1 - b }')
    old=$(set_of "$dir/old") new=$(set_of "$dir/new")
    [ "$old" != "$new" ] && [ "$(ls "$dir/new" | wc -l)" -gt 6 ]; check $? "two sets, of $(ls "$dir/old" | wc -l) and $(ls "$dir/new" | wc -l) files"
    twice "$1"
    killed "$2"
    filled "$3"
    in_use
}
