#!/bin/sh
# A program on a processor older than it was built for says what is missing, with status 2, and meets no unknown instruction.
# needs: qemu-x86_64 gcc
set -u
. tests/lib/check.sh
[ "$(uname -m)" = x86_64 ] || { echo "1..0 # SKIP this is no x86-64"; exit 0; }
shown="$TMPDIR/out"
# on CPU PROGRAM...: $status
on() {
    cpu=$1
    shift
    qemu-x86_64 -cpu "$cpu" "$@" > "$TMPDIR/out" 2>&1
    status=$?
}
# built ARCH: a small program that checks its processor as all do
built() {
    echo 'int main(void) { return 7; }' > "$TMPDIR/main.c"
    gcc -O2 -I. -D_GNU_SOURCE -march="$1" -c -o "$TMPDIR/needs.o" src/host/processor_needs.c &&
        gcc -O2 -I. -D_GNU_SOURCE -o "$TMPDIR/$1" "$TMPDIR/main.c" src/host/processor.c "$TMPDIR/needs.o"
    check $? "built for $1"
}
built x86-64
on qemu64 "$TMPDIR/x86-64"
[ $status = 7 ]; check $? "x86-64 starts on any"
built x86-64-v3
on Haswell "$TMPDIR/x86-64-v3"
[ $status = 7 ]; check $? "x86-64-v3 starts on a Haswell, here with status $status"
on Westmere "$TMPDIR/x86-64-v3"
[ $status = 2 ] && grep -q '^moai: x86-64-v3 was built for a newer processor: this one, Westmere.*, lacks movbe lzcnt (abm) bmi1 bmi2 avx f16c fma avx2\.' "$TMPDIR/out"
check $? "and on a Westmere names what that lacks, status 2 (is $status)"
on Haswell,-bmi2 "$TMPDIR/x86-64-v3"
[ $status = 2 ] && grep -q ', lacks bmi2\.' "$TMPDIR/out"; check $? "one extension is missed"
on Haswell,-xsave "$TMPDIR/x86-64-v3"
[ $status = 2 ] && grep -q ', lacks avx f16c fma avx2\.' "$TMPDIR/out"; check $? "so is a system that does not save the registers"
built x86-64-v4
on Haswell "$TMPDIR/x86-64-v4"
[ $status = 2 ] && grep -q ', lacks avx512f avx512dq avx512cd avx512bw avx512vl\.' "$TMPDIR/out"; check $? "x86-64-v4 is not for a Haswell"
nm "$MOAI_BIN/moai_train" | grep -q __asan_init && done_testing && exit     # which finds no room under the emulator
for program in moai_train moai_tokenize moai_checkpoint moai_generate; do
    on qemu64 "$MOAI_BIN/$program" --help
    [ $status = 0 ] || { [ $status = 2 ] && grep -q "^moai: $program was built for a newer processor" "$TMPDIR/out"; }
    check $? "$program runs there or says why not, status $status"
done
done_testing
