#!/bin/sh
# export and import beside others: one job at a time, nothing old goes before the new is whole, and a killed one leaves nothing to do by hand.
# needs: perl:Fcntl
. tests/lib/check.sh
dir=$TMPDIR
shown="$dir/out"
tool=$MOAI_BIN/moai_checkpoint
"$tool" import tests/golden/tied "$dir/run" > "$dir/out" 2>&1 && "$tool" export "$dir/run/checkpoint-0" "$dir/fp32" > "$dir/out" 2>&1 &&
    "$tool" export --dtype bfloat16 "$dir/run/checkpoint-0" "$dir/bf16" > "$dir/out" 2>&1 || exit 1
to() { "$tool" export "$@" "$dir/run/checkpoint-0" "$dir/hf" > "$dir/out" 2>&1; }
same() { diff -r "$1" "$2" > "$dir/out" 2>&1; }
# hold FILE: another process has the lock
hold() {
    perl -MFcntl -e '$| = 1; open F, "+>>", $ARGV[0] or die; $l = pack "ssx4qqlx4", F_WRLCK, 0, 0, 0, 0;
        fcntl F, F_SETLK, $l or die; syswrite F, "host there pid 7 job -\n"; print "held\n"; sleep 60' "$1" > "$dir/held" &
    holder=$!
    until grep -q held "$dir/held" 2> /dev/null || ! kill -0 $holder 2> /dev/null; do sleep 0.05; done
}

hold "$dir/hf.lock"
refused 1 "HF_DIR $dir/hf: another job is writing there (host there pid 7 job -)" to
kill $holder; wait $holder 2> /dev/null
to; check $? "a lock file that nobody holds is in nobody's way"
same "$dir/hf" "$dir/fp32" && [ "$(ls -A "$dir" | grep -c '^hf')" = 1 ]; check $? "the export is whole, nothing lies beside it"
refused 1 'hf: exists and is not an empty directory; --overwrite' to --dtype bfloat16
same "$dir/hf" "$dir/fp32"; check $? "which leaves it as it was"
to --dtype bfloat16 --overwrite && same "$dir/hf" "$dir/bf16" && [ "$(ls -A "$dir" | grep -c '^hf')" = 1 ]; check $? "replaced when asked"
"$tool" export "$dir/hf" "$dir/hf" --overwrite > "$dir/out" 2>&1 && [ -s "$dir/hf/model.safetensors" ]; check $? "by itself too"
touch "$dir/hf/notes.txt"
refused 1 'hf holds notes.txt, which no export writes' to --overwrite
rm -r "$dir/hf"; mkdir "$dir/hf" "$dir/far"; ln -s far "$dir/link"
to && same "$dir/hf" "$dir/fp32"; check $? "an empty directory is taken"
"$tool" export "$dir/run/checkpoint-0" "$dir/link/" > "$dir/out" 2>&1 && same "$dir/far" "$dir/fp32" && [ -L "$dir/link" ]; check $? "also where it is a link"
"$tool" export "$dir/run/checkpoint-0" "$dir/not/yet/there" > "$dir/out" 2>&1 && same "$dir/not/yet/there" "$dir/fp32"; check $? "parents are made"
mkdir "$dir/mine.tmp"; echo dear > "$dir/mine.tmp/letter"
refused 1 'mine.tmp: exists, and no export wrote it' "$tool" export "$dir/run/checkpoint-0" "$dir/mine"
[ -s "$dir/mine.tmp/letter" ]; check $? "and it stays"
refused 2 'nothing is no checkpoint' "$tool" export "$dir/nothing" "$dir/from-nothing"
[ "$(ls -A "$dir" | grep -c '^from-nothing')" = 0 ]; check $? "without a source nothing is made"

# killed at any instant, on its way to a free name and to one that is taken
wrong=0 n=0
while [ $n -lt "${KILLS:-12}" ]; do
    n=$((n + 1))
    [ $((n % 2)) = 0 ] || rm -rf "$dir/hf"
    [ $((n % 4)) = 0 ] && type=float32 || type=bfloat16
    "$tool" export "$dir/run/checkpoint-0" "$dir/hf" --dtype $type --overwrite > /dev/null 2>&1 & pid=$!
    sleep "$(awk -v n=$n -v s=$$ 'BEGIN { srand(n + 1000 * s); printf "%.4f", 0.06 * rand() }')"
    kill -9 $pid 2> /dev/null; wait $pid 2> /dev/null
    rm -f "$dir/hf/.moai_export"
    [ ! -e "$dir/hf" ] || same "$dir/hf" "$dir/fp32" || same "$dir/hf" "$dir/bf16" || { wrong=1; break; }
    to --overwrite && same "$dir/hf" "$dir/fp32" && [ "$(ls -A "$dir" | grep -c '^hf')" = 1 ] || { wrong=$((wrong + 1)); ls -A "$dir" >> "$dir/out"; break; }
done
[ $wrong = 0 ]; check $? "killed $n times: the old one, the new one or none is there, and the next export needs no help"

hold "$dir/run/.lock"
refused 1 "OUTPUT_DIR $dir/run: another job is writing there" "$tool" import tests/golden/tied "$dir/run"
kill $holder; wait $holder 2> /dev/null
refused 1 'checkpoint-0: exists already; --overwrite' "$tool" import tests/golden/tied "$dir/run"
before=$(sha256sum < "$dir/run/checkpoint-0/manifest.json")
refused 2 'absent' "$tool" import --overwrite tests/golden/absent "$dir/run"
[ "$(sha256sum < "$dir/run/checkpoint-0/manifest.json")" = "$before" ]; check $? "what is there stays where there is nothing to import"
"$tool" import "$dir/bf16" "$dir/run" --overwrite > "$dir/out" 2>&1 && "$tool" verify "$dir/run" > "$dir/out" 2>&1 && [ "$(ls -A "$dir/run")" = checkpoint-0 ]
check $? "an import replaces when asked, and leaves nothing else"
[ "$(sha256sum < "$dir/run/checkpoint-0/manifest.json")" != "$before" ]; check $? "it is another"
done_testing
