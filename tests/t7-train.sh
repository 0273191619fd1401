#!/bin/sh
# moai_tokenize train beside others: one job for a model, an existing one goes only when asked and when the new one is whole, also when
# the trainer is killed or the disk is full.
# needs: perl
. tests/lib/check.sh
dir=$TMPDIR
shown="$dir/out"
tokenize=$MOAI_BIN/moai_tokenize
mkdir "$dir/to" "$dir/new"
cat src/*/*.c > "$dir/text.txt"
train() { "$tokenize" train --input "$dir/text.txt" --vocab_size 500 --output "$dir/to/tok" "$@" > "$dir/out" 2>&1; }
# those DIR: its model and list of pieces are the old ones, the new ones, or none
those() {
    now=$(cd "$1" && cat tok.model tok.vocab 2> /dev/null | sha256sum)
    [ "$now" = "$old" ] || [ "$now" = "$new" ]
}

"$tokenize" train --input "$dir/text.txt" --vocab_size 450 --output "$dir/new/tok" > "$dir/out" 2>&1 || exit 1
new=$(cat "$dir/new/tok.model" "$dir/new/tok.vocab" | sha256sum)
train && [ "$(ls -A "$dir/to")" = "tok.model
tok.vocab" ]; check $? "a model and the list of its pieces, nothing else: $(tail -n 1 "$dir/out" | sed 's|/[^ ]*/||g')"
old=$(cat "$dir/to/tok.model" "$dir/to/tok.vocab" | sha256sum)
[ "$(wc -l < "$dir/to/tok.vocab")" = 500 ] && [ "$(sed -n 3p "$dir/to/tok.vocab")" = "$(printf '<|endoftext|>\t0')" ]; check $? "a piece a line"
refused 1 'tok.model: exists already; --overwrite replaces it' train
refused 2 'missing.txt: No such file' train --overwrite --input "$dir/missing.txt"
refused 2 'later.txt: No such file' train --input "$dir/later.txt" --output "$dir/nowhere/tok"
[ ! -e "$dir/nowhere" ]; check $? "inputs are looked at before anything is made"
refused 2 'vocab_size 90000 does not suit the text: Vocabulary size too high' train --vocab_size 90000 --overwrite
refused 2 'vocab_size 270 does not suit the text: Vocabulary size is smaller' train --vocab_size 270 --overwrite
those "$dir/to" && [ "$now" = "$old" ] && [ "$(ls -A "$dir/to" | wc -l)" = 2 ]; check $? "the old model is as it was"
mkdir "$dir/list" && touch "$dir/list/tok.vocab"
refused 1 'tok.vocab: exists already' train --output "$dir/list/tok"

# while another one trains
: > "$dir/to/tok.model.lock"
"$tokenize" train --input src/*/*.c io/*/*.c --vocab_size 3000 --output "$dir/to/tok" --overwrite > "$dir/first" 2>&1 & pid=$!
until grep -q "pid $pid" "$dir/to/tok.model.lock" || ! kill -0 $pid 2> /dev/null; do sleep 0.02; done
refused 1 "output $dir/to/tok.model: another job is writing there (host $(hostname) pid $pid job" train --overwrite
kill -9 $pid; wait $pid 2> /dev/null
those "$dir/to"; check $? "killed, it leaves the old model"
train --vocab_size 450 --overwrite && those "$dir/to" && [ "$now" = "$new" ] && [ "$(ls -A "$dir/to" | wc -l)" = 2 ]
check $? "and stands in nobody's way"

# killed as names change
wrong=0 n=0
while [ $n -lt "${KILLS:-6}" ]; do
    n=$((n + 1))
    train --overwrite || { wrong=1; break; }
    perl -e '$p = fork // die; if (!$p) { open STDOUT, ">", "/dev/null"; open STDERR, ">&STDOUT"; exec @ARGV[1 .. $#ARGV] }
        for (1 .. 20000) { last if -s "$ARGV[0].vocab.tmp" || waitpid $p, 1; select undef, undef, undef, 0.0005 }
        select undef, undef, undef, 0.003 * rand; kill 9, $p; waitpid $p, 0' "$dir/to/tok" \
        "$tokenize" train --input "$dir/text.txt" --vocab_size 450 --output "$dir/to/tok" --overwrite
    train > "$dir/out"                    # refused, but what was broken off is settled
    those "$dir/to" && [ "$(ls -A "$dir/to" | wc -l)" = 2 ] || { wrong=1; ls -A "$dir/to" >> "$dir/out"; break; }
done
[ $wrong = 0 ]; check $? "killed $n times as names change: the old model or the new one"

mkdir "$dir/disk"
if mount -t tmpfs -o size=100k tmpfs "$dir/disk" 2> /dev/null; then
    cp "$dir/to"/tok.* "$dir/disk"
    head -c 65000 /dev/zero > "$dir/disk/fill" 2> /dev/null
    refused 1 'tok.model.tmp: No space left on device' "$tokenize" train --input "$dir/text.txt" --vocab_size 2500 --output "$dir/disk/tok" --overwrite
    rm "$dir/disk/fill"; head -c 40000 /dev/zero > "$dir/disk/fill"
    cat > "$dir/later.pl" <<'END'
$p = fork // die; exec @ARGV[1 .. $#ARGV] if !$p;
open F, ">", "$ARGV[0]/more"; select undef, undef, undef, 0.0005 until -s "$ARGV[0]/tok.model.tmp";
syswrite F, "x" x 4096 until waitpid $p, 1;
exit $? >> 8
END
    refused 1 'tok.vocab.tmp: cannot write: No space left on device\|tok.model.tmp: .*No space left on device' perl "$dir/later.pl" "$dir/disk" \
        "$tokenize" train --input "$dir/text.txt" --vocab_size 1500 --output "$dir/disk/tok" --overwrite
    old=$(cat "$dir/to/tok.model" "$dir/to/tok.vocab" | sha256sum)
    those "$dir/disk" && [ "$now" = "$old" ] && ! ls -A "$dir/disk" | grep -q 'tmp\|lock'; check $? "the old model is as it was, nothing lies beside it"
    umount "$dir/disk"
else
    check 0 "a full disk # SKIP tmpfs cannot be mounted here"
fi
done_testing
