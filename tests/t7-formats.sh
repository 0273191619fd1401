#!/bin/bash
# t7-formats.sh: what moai_tokenize takes as text: formats by name and content, pipes on several ranks, what is replaced or left out counted.
# needs: zstd
set -u
dir=$TMPDIR
. tests/lib/check.sh
shown="$dir/out"
tokenize=$MOAI_BIN/moai_tokenize
cat src/*/*.h > "$dir/text.txt"
$tokenize train --input "$dir/text.txt" --vocab_size 400 --output "$dir/tok" > "$dir/out" 2>&1
check $? "train"
encode="$tokenize encode --tokenizer $dir/tok.model --validation_fraction 0 --no_progress --overwrite"
said() { grep -q -- "$1" "$dir/out"; }        # said WORDS: in what the last command printed

# ---- the same shards from a file and from what is none ----
for i in $(seq 300); do printf '{"id": %d, "text": "document %d of the file\\nand its second line"}\n' "$i" "$i"; done > "$dir/x.jsonl"
zstd -q "$dir/x.jsonl" -o "$dir/x.jsonl.zst"
$encode --input "$dir/x.jsonl" --output "$dir/want" > "$dir/out" 2>&1
check $? "JSON lines"
same() { diff "$dir/want/train-00000.h5" "$1/train-00000.h5" >> "$dir/out" 2>&1 && [ ! -e "$1/.parts" ]; check $? "$2: the same shard"; rm -rf "$1"; }
$encode --format jsonl --input - --output "$dir/a" < "$dir/x.jsonl" > "$dir/out" 2>&1
same "$dir/a" "standard input, a file"
cat "$dir/x.jsonl" | $encode --format jsonl --input /dev/stdin --output "$dir/a" > "$dir/out" 2>&1
same "$dir/a" "a pipe"
cat "$dir/x.jsonl.zst" | $encode --format jsonl --input - --output "$dir/a" > "$dir/out" 2>&1
same "$dir/a" "a pipe of zstd"
$encode --format jsonl --input <(cat "$dir/x.jsonl") --output "$dir/a" > "$dir/out" 2>&1
same "$dir/a" "a process's output"
mkfifo "$dir/fifo.jsonl"
cat "$dir/x.jsonl" > "$dir/fifo.jsonl" &
mpirun -np 3 $encode --input "$dir/fifo.jsonl" --output "$dir/a" > "$dir/out" 2>&1
same "$dir/a" "a FIFO on three ranks"
cat "$dir/x.jsonl" | mpirun -np 2 $encode --format jsonl --input - --output "$dir/a" > "$dir/out" 2>&1
same "$dir/a" "a pipe on two ranks"
mpirun -np 2 $encode --format jsonl --input - --output "$dir/a" < "$dir/x.jsonl" > "$dir/out" 2>&1
same "$dir/a" "a file as standard input on two ranks"
cp "$dir/x.jsonl" "$dir/X.NDJSON" && $encode --input "$dir/X.NDJSON" --output "$dir/a" > "$dir/out" 2>&1
same "$dir/a" "another name of JSON lines"
for packing in gzip:gz xz:xz bzip2:bz2; do
    program=${packing%:*} name=$dir/x.jsonl.${packing#*:}
    if command -v "$program" > /dev/null && (head -n 100 "$dir/x.jsonl" | $program -c && tail -n +101 "$dir/x.jsonl" | $program -c) > "$name"; then
        mpirun -np 2 $encode --input "$name" --output "$dir/a" > "$dir/out" 2>&1
        if said 'does not read'; then check 0 "$program # SKIP not built in"; else same "$dir/a" "$program, two members, two ranks"; fi
        head -c 900 "$name" > "$dir/cut.jsonl.${packing#*:}"
        ! $encode --input "$dir/cut.jsonl.${packing#*:}" --output "$dir/b" > "$dir/out" 2>&1 && said "cut.jsonl.${packing#*:}: "
        check $? "truncated $program"
    else
        check 0 "$program # SKIP no such program"
    fi
done

# ---- what is told by its name alone is refused, before work begins ----
refused() {                                   # refused STATUS WORDS WHAT ARGUMENTS...
    status=$1 words=$2 what=$3
    shift 3
    "$@" > "$dir/out" 2>&1
    got=$?
    [ $got = "$status" ] && said "$words" && ! said 'invalid_utf8'
    check $? "$what: status $got, $(head -c 150 "$dir/out" | head -n 1)"
}
refused 2 'name it .jsonl, or --format jsonl' "JSON lines from a pipe" $encode --input /dev/stdin --output "$dir/b" < "$dir/x.jsonl"
cp "$dir/x.jsonl" "$dir/x.jsonl.bak"
refused 2 'name it .jsonl, or --format jsonl' "and by another name, among others, on two ranks" \
    mpirun -np 2 $encode --input "$dir/text.txt" "$dir/x.jsonl.bak" --output "$dir/b"
refused 2 'name it .jsonl, or --format jsonl' "for a tokenizer" $tokenize train --input "$dir/text.txt" "$dir/x.jsonl.bak" --vocab_size 300 --output "$dir/t"
printf 'PAR1\025\004\025F\025JL\025\004\025\000\022\000\000#\210\020PAR1' > "$dir/x.parquet"
refused 2 'Apache Parquet' "Parquet" $encode --input "$dir/x.parquet" --output "$dir/b"
refused 2 'Apache Parquet' "with --invalid_utf8 replace" $encode --input "$dir/x.parquet" --output "$dir/b" --invalid_utf8 replace
refused 2 'Apache Parquet' "with --format txt, for a tokenizer" \
    $tokenize train --input "$dir/x.parquet" --vocab_size 300 --output "$dir/t" --format txt --invalid_utf8 replace
tar --format=v7 -cf "$dir/old.bak" -C "$dir" text.txt && refused 2 'a tar archive' "a tar archive of 1979's kind" $encode --input "$dir/old.bak" --output "$dir/b"
refused 2 'zero: nothing but NUL bytes' "zeros without end" $encode --input /dev/zero --output "$dir/b"
refused 2 'want: no file below it has the name of a text' "a directory without a text" $encode --input "$dir/text.txt" "$dir/want" --output "$dir/b"

# ---- what is no tokenizer ----
: > "$dir/empty.model"; echo '{"version": "1.0"}' > "$dir/tokenizer.json"; echo 'words' > "$dir/words.model"
with() { $tokenize encode --tokenizer "$1" --input "$dir/text.txt" --output "$dir/b"; }
refused 2 'empty.model: is empty' "an empty tokenizer" with "$dir/empty.model"
refused 2 'tokenizer.json: a model of type ""; byte-level BPE is read' "one of another kind" with "$dir/tokenizer.json"
refused 2 'want: is a directory: the tokenizer.model or tokenizer.json in it' "a directory" with "$dir/want"
refused 1 'words.model: cannot load as a SentencePiece model' "words" with "$dir/words.model"

# ---- separators that are nowhere ----
$encode --input "$dir/text.txt" --document_separator '<|end|>' --output "$dir/b" > "$dir/out" 2>&1 &&
    said '--document_separator <|end|>: there is no such line in the 1 texts'; check $? "a separator that is nowhere"
$encode --input "$dir/text.txt" "$dir/x.jsonl" --document_separator blank_line --output "$dir/b" > "$dir/out" 2>&1 && ! said 'no such line'
check $? "or in one of the texts"
$encode --input "$dir/x.jsonl" --document_separator '<|end|>' --output "$dir/b" > "$dir/out" 2>&1 && ! said 'no such line'; check $? "or not needed"
rm -rf "$dir/b"

# ---- what has no end is not waited for ----
ulimit -f 400000                              # in KiB: should it be copied all the same
refused 2 'Apache Parquet' "Parquet from a pipe, and zeros without end" timeout 60 $encode --input - --output "$dir/b" < <(cat "$dir/x.parquet" /dev/zero)
refused 2 'inside it is Apache Parquet' "packed" timeout 60 $encode --input - --output "$dir/b" < <(zstd -qc "$dir/x.parquet" && cat /dev/zero | zstd -qc)
refused 2 'urandom: ' "noise" timeout 60 $encode --input /dev/urandom --output "$dir/b"
[ -z "$(ls -A "$dir/b")" ]; check $? "nothing is left of them"

# ---- counted, and said at the end ----
(for i in $(seq 9000); do echo "line $i"; done; head -c 1000000 /dev/zero) > "$dir/nuls.txt"
! $encode --input "$dir/nuls.txt" --output "$dir/b" > "$dir/out" 2>&1 && said 'nuls.txt: byte 0x00 at offset .* (line 9001) is a NUL'
check $? "a text that ends in NULs ends the encode"
! $tokenize train --input "$dir/nuls.txt" --vocab_size 300 --output "$dir/t" > "$dir/out" 2>&1 && said 'nuls.txt: byte 0x00 at offset .* (line 9001) is a NUL'
check $? "and the training of a tokenizer"
printf '{"text": "one"}\n{"text": null}\n{"text": ""}\n{"text": "caf\xe9 \\ud800"}\nno JSON\n{"text": [1]}\n{"text": "three"}\n' > "$dir/odd.jsonl"
! $encode --input "$dir/odd.jsonl" --output "$dir/b" > "$dir/out" 2>&1 && said 'odd.jsonl:\|(line 4) is not UTF-8'
check $? "what is not UTF-8 ends the encode"
! $encode --input "$dir/odd.jsonl" --invalid_utf8 replace --output "$dir/b" > "$dir/out" 2>&1 && said "odd.jsonl:5: not JSON: expected an object near 'no JSON'"
check $? "and so does what is no JSON"
mpirun -np 2 $encode --input "$dir/odd.jsonl" --invalid_utf8 replace --bad_lines skip --output "$dir/b" > "$dir/out" 2>&1 &&
    said '3 + 0 documents' && said '2 documents without text were left out, 1 of them null' && said '2 characters that are not UTF-8, in 1 documents' &&
    said '2 lines of JSON were left out' && said 'left out: .*odd.jsonl:5: not JSON'
check $? "replaced, without text, left out: counted and named"
$tokenize train --input "$dir/text.txt" "$dir/odd.jsonl" --vocab_size 400 --output "$dir/t" --invalid_utf8 replace --bad_lines skip > "$dir/out" 2>&1 &&
    said '2 characters that are not UTF-8' && said '2 lines of JSON were left out.*odd.jsonl:5'
check $? "and when a tokenizer is trained"
done_testing
