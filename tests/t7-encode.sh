#!/bin/bash
# t7-encode.sh: moai_tokenize from the command line: the same shards whatever the threads and ranks, what other programs see in them,
# damage found by audit, bad input refused on all ranks.
# needs: perl:JSON::PP zstd
set -u
tokenize=$MOAI_BIN/moai_tokenize
n=0 failed=0
ok() {                                        # ok WHAT COMMAND...: the command succeeds
    local what=$1; shift
    n=$((n + 1))
    if "$@" > "$TMPDIR/out" 2>&1; then echo "ok $n - $what"; else
        failed=1; echo "not ok $n - $what"; sed 's/^/# /' "$TMPDIR/out"
    fi
}
refuses() {                                   # refuses WHAT STATUS WORDS COMMAND...: ends with the status and says the words
    local what=$1 status=$2 words=$3; shift 3
    n=$((n + 1))
    timeout 60 "$@" > "$TMPDIR/out" 2>&1; local got=$?
    if [ $got = "$status" ] && grep -q -- "$words" "$TMPDIR/out"; then echo "ok $n - $what: $(grep -m 1 -- "$words" "$TMPDIR/out")"; else
        failed=1; echo "not ok $n - $what: status $got, not $status, or no \"$words\""; sed 's/^/# /' "$TMPDIR/out"
    fi
}
flip() { perl -e 'open F, "+<", $ARGV[0]; seek F, $ARGV[1], 0; read F, $b, 1; seek F, $ARGV[1], 0; print F chr(ord($b) ^ 64)' "$1" "$2"; }
tmp=$TMPDIR
. tests/lib/has.sh

# ---- the texts: this repository's own files, as .txt, zstd, and .jsonl ----
cat src/*/*.c > "$tmp/all.txt"
perl -0pe 's/\n\n+/\n---\n/g' README.md src/*/*.h > "$tmp/marked.txt" 2> /dev/null
for f in io/*/*.c; do perl -MJSON::PP -0ne 'print JSON::PP->new->ascii->encode({name => $ARGV, text => $_}), "\n"' "$f"; done > "$tmp/files.jsonl"
zstd -q "$tmp/files.jsonl" -o "$tmp/more.jsonl.zst"
inputs="$tmp/all.txt $tmp/files.jsonl $tmp/more.jsonl.zst"
ok "train" $tokenize train --input $inputs --vocab_size 700 --output "$tmp/new/tok"
encode="$tokenize encode --tokenizer $tmp/new/tok.model --document_separator blank_line --shard_tokens 20000 --validation_fraction 0.1"
ok "encode with one thread" $encode --input $inputs --output "$tmp/a" --num_threads 1
ok "encode with three threads" $encode --input $inputs --output "$tmp/b" --num_threads 3
ok "the same bytes" diff -r "$tmp/a" "$tmp/b"
ok "encode on three ranks" mpirun -np 3 $encode --input $inputs --output "$tmp/c" --num_threads 2
ok "the same bytes" diff -r "$tmp/a" "$tmp/c"
ok "several shards in each split" test -f "$tmp/a/train-00003.h5" -a -f "$tmp/a/validation-00000.h5"
ok "nothing else is left" test "$(ls -A "$tmp/c" | grep -cv -e '^train-' -e '^validation-' -e '^manifest.json$' -e '^tokenizer.model$')" = 0
ok "audit finds no fault" $tokenize audit "$tmp/a"
ok "audit of a lone shard" $tokenize audit "$tmp/a/train-00000.h5"
ok "inspect" $tokenize inspect "$tmp/a/manifest.json"
ok "bigram" $tokenize bigram "$tmp/a/manifest.json"
ok "exactly 7 documents for validation" sh -c "$encode --input $inputs --output $tmp/d --overwrite --validation_fraction 0 2>&1 > /dev/null;
    $tokenize encode --tokenizer $tmp/new/tok.model --document_separator blank_line --validation_documents 7 --input $inputs --output $tmp/d \
    --overwrite 2>&1 | grep -q '+ 7 documents'"
ok "an overwritten set is whole, its old shards gone" sh -c "$tokenize audit $tmp/d && test ! -e $tmp/d/train-00001.h5"

# ---- what others see ----
if has h5dump; then
    ok "h5dump shows tokens, documents and attributes" sh -c "h5dump -H -p $tmp/a/train-00000.h5 | tr -s ' \n' ' ' |
    grep -q 'ATTRIBUTE \"eos\".*ATTRIBUTE \"format\".*ATTRIBUTE \"pad\".*ATTRIBUTE \"tokenizer_sha256\".*ATTRIBUTE \"version\".*ATTRIBUTE \"vocab_size\".*DATASET \"documents\" { DATATYPE H5T_STD_U64LE.*FLETCHER32.*DATASET \"tokens\" { DATATYPE H5T_STD_U16LE.*CHUNKED.*FLETCHER32'"
else
    n=$((n + 1)); echo "ok $n - what h5dump shows # SKIP h5dump is missing"
fi
if has python:h5py; then
    cat > "$tmp/look.py" <<'PY'
import h5py, json, hashlib, sys
d = sys.argv[1]
m = json.load(open(d + "/manifest.json"))
sha = hashlib.sha256(open(d + "/tokenizer.model", "rb").read()).hexdigest()
assert m["tokenizer_sha256"] == sha and m["vocab_size"] == 700, m
for s in m["splits"].values():
    for x in s:
        f = h5py.File(d + "/" + x["file"], "r")
        t, o = f["tokens"][...], f["documents"][...]
        assert str(t.dtype) == "uint16" and str(o.dtype) == "uint64" and len(t) == x["tokens"] and len(o) == x["documents"] + 1
        assert f.attrs["format"] in ("moai-tokens", b"moai-tokens") and f.attrs["version"] == 1 and f.attrs["vocab_size"] == 700
        a = f.attrs["tokenizer_sha256"]
        assert (a.decode() if isinstance(a, bytes) else a) == sha
        assert o[0] == 0 and o[-1] == len(t) and (t[o[1:].astype(int) - 1] == f.attrs["eos"]).all() and t.max() < 700
PY
    ok "h5py reads what is documented" ${PYTHON:-python3} "$tmp/look.py" "$tmp/a"
    cat > "$tmp/foreign.py" <<'PY'
import h5py, numpy, sys
f = h5py.File(sys.argv[1], "w"); f["data"] = numpy.arange(9)
f = h5py.File(sys.argv[2], "w"); f["tokens"] = numpy.arange(9, dtype="uint16"); f["documents"] = numpy.array([0, 9], dtype="uint64")
f.attrs.update(format="moai-tokens", version=1, vocab_size=700, eos=2, pad=0, tokenizer_sha256="x")
attributes = dict(format="moai-tokens", version=1, vocab_size=700, eos=2, pad=0, tokenizer_sha256="x")
def shard(path, tokens, documents, chunk=3, type=None, precision=0, **how):
    f = h5py.File(path, "w", **how)
    tokens_type = numpy.dtype("uint16")
    if precision:
        kind = type.copy(); kind.set_precision(precision)
        space = h5py.h5s.create_simple((len(tokens),)); plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((chunk,)); plist.set_fletcher32()
        h5py.h5d.create(f.id, b"tokens", kind, space, plist).write(h5py.h5s.ALL, h5py.h5s.ALL, numpy.array(tokens, tokens_type))
    else:
        f.create_dataset("tokens", data=numpy.array(tokens, tokens_type), chunks=(chunk,), fletcher32=True, maxshape=(None,))
    f.create_dataset("documents", data=numpy.array(documents, dtype="uint64"), chunks=(3,), fletcher32=True)
    f.attrs.update(attributes)
    f.close()
t = [5, 6, 2, 7, 2, 8, 9, 10, 2]
shard(sys.argv[3] + "/good.h5", t, [0, 3, 5, 9])
shard(sys.argv[3] + "/large.h5", t[:6] + [700] + t[7:], [0, 3, 5, 9])
shard(sys.argv[3] + "/open.h5", t, [0, 4, 5, 9])
shard(sys.argv[3] + "/back.h5", t, [0, 5, 3, 9])
shard(sys.argv[3] + "/far.h5", t, [0, 3, 5, 12])
shard(sys.argv[3] + "/late.h5", t, [3, 5, 9])
shard(sys.argv[3] + "/merged.h5", t, [0, 5, 9])
shard(sys.argv[3] + "/block.h5", t, [0, 3, 5, 9], userblock_size=512)
shard(sys.argv[3] + "/narrow.h5", t, [0, 3, 5, 9], type=h5py.h5t.STD_U16LE, precision=12)
f = h5py.File(sys.argv[3] + "/link.h5", "w")
f["tokens"] = h5py.ExternalLink("good.h5", "tokens"); f["documents"] = h5py.ExternalLink("good.h5", "documents")
f.attrs.update(attributes)
n = 2**48 + 9                                 # a document of that many tokens, of which none is there
f = h5py.File(sys.argv[4], "w")
f.create_dataset("tokens", (n,), dtype="uint16", chunks=(2**24,), fletcher32=True)
f.create_dataset("documents", data=numpy.array([0, n], dtype="uint64"), chunks=(2,), fletcher32=True)
f.attrs.update(attributes)
f = h5py.File(sys.argv[4] + ".small", "w")
f.create_dataset("tokens", (n,), dtype="uint16", chunks=(1,), fletcher32=True)
f.create_dataset("documents", data=numpy.array([0, n], dtype="uint64"), chunks=(2,), fletcher32=True)
f.attrs.update(attributes)
PY
    mkdir -p "$tmp/sparse"; sparse=$tmp/sparse
    truncate -s 512T "$sparse/x" 2> /dev/null || { [ ! -w /dev/shm ] || { sparse=$(mktemp -d /dev/shm/moai.XXXXXX); trap 'rm -rf "$sparse"' EXIT; }; }
    ${PYTHON:-python3} "$tmp/foreign.py" "$tmp/foreign.h5" "$tmp/plain.h5" "$tmp" "$sparse/sparse.h5"
    if truncate -s 600T "$sparse/sparse.h5" "$sparse/sparse.h5.small" 2> /dev/null; then
        refuses "2^48 chunks" 1 'claims 281474976710666 chunks: not enough memory' env ASAN_OPTIONS=allocator_may_return_null=1 $tokenize audit "$sparse/sparse.h5.small"
        refuses "a document of 2^48 tokens that are not there" 1 '281474976710656 to 562949953421311 *1 ' $tokenize audit "$sparse/sparse.h5"
    else
        n=$((n + 1)); echo "ok $n - a document of 2^48 tokens # SKIP no file system here holds so long a sparse file"
    fi
    refuses "a foreign HDF5 file" 1 'not a token shard' $tokenize audit "$tmp/foreign.h5"
    ok "a shard made by h5py is a shard" $tokenize audit "$tmp/good.h5"
    refuses "an id beyond the vocabulary" 1 'large.h5: token 6 is id 700, not below vocab_size 700' $tokenize audit "$tmp/large.h5"
    refuses "a document that does not end with eos" 1 'open.h5: document 0 ends at token 3 with id 7, not eos 2' $tokenize audit "$tmp/open.h5"
    refuses "documents out of order" 1 'back.h5: document 1 runs from token 5 to 3' $tokenize audit "$tmp/back.h5"
    refuses "a document beyond the tokens" 1 'far.h5: the last document ends at token 12 of 9' $tokenize audit "$tmp/far.h5"
    refuses "tokens before the first document" 1 'late.h5: document 0 starts at token 3' $tokenize audit "$tmp/late.h5"
    refuses "two documents in one" 1 'merged.h5: 1 eos inside documents' $tokenize audit "$tmp/merged.h5"
    refuses "a user block, behind which the library counts" 1 'block.h5: has a user block of 512 bytes' $tokenize audit "$tmp/block.h5"
    refuses "tokens of other bits" 1 '/tokens is not little-endian uint16' $tokenize audit "$tmp/narrow.h5"
    refuses "tokens in another file" 1 '/tokens is a link to elsewhere' $tokenize audit "$tmp/link.h5"
    refuses "tokens without checksums" 1 '/tokens is not in chunks' $tokenize audit "$tmp/plain.h5"
else
    n=$((n + 1)); echo "ok $n - what h5py reads and writes # SKIP python:h5py is missing"
fi

# ---- damage ----
shard=$tmp/b/train-00001.h5
size=$(stat -c %s "$shard")
flip "$shard" $((size / 2))
refuses "a flipped token" 1 "FAULT $shard: /tokens .*damaged" $tokenize audit "$tmp/b"
refuses "and by itself" 1 "FAULT $shard" $tokenize audit "$shard"
refuses "a bigram of it" 1 "$shard" $tokenize bigram "$tmp/b"
flip "$shard" $((size / 2))
flip "$shard" $((size - 3))
refuses "a flipped byte elsewhere" 1 "FAULT $shard: hash" $tokenize audit "$tmp/b"
truncate -s -100 "$shard"
refuses "a shard cut short" 1 "FAULT $shard: .*bytes, the manifest says" $tokenize audit "$tmp/b"
rm "$shard"
refuses "a missing shard" 1 "FAULT $shard: No such file" $tokenize audit "$tmp/b"
flip "$tmp/b/tokenizer.model" 99
refuses "another tokenizer beside the shards" 1 'FAULT .*tokenizer.model: sha256' $tokenize audit "$tmp/b"
refuses "no manifest" 1 'No such file' $tokenize audit "$tmp/nothing"

# ---- bad input ----
refuses "shards that exist" 1 'manifest.json: exists already; --overwrite' $encode --input $inputs --output "$tmp/a"
ok "which are untouched" diff -r "$tmp/a" "$tmp/c"

# ---- what is another's is not overwritten ----
mkdir -p "$tmp/other" "$tmp/checkpoint"
echo '{"name": "an app", "icons": []}' > "$tmp/other/manifest.json"
echo '{"format": "moai-checkpoint"}' > "$tmp/checkpoint/manifest.json"
small="--input $tmp/all.txt"
refuses "a manifest.json of something else" 2 'other/manifest.json: is no manifest of token shards' $encode $small --output "$tmp/other" --overwrite
refuses "a checkpoint" 2 'checkpoint is a checkpoint' $encode $small --output "$tmp/checkpoint" --overwrite
refuses "a place in a checkpoint" 2 'checkpoint/data lies in the checkpoint' $encode $small --output "$tmp/checkpoint/data"
refuses "a tokenizer in a checkpoint" 2 'checkpoint/tok lies in the checkpoint' $tokenize train $small --vocab_size 500 --output "$tmp/checkpoint/tok"
ok "they are untouched" sh -c "[ \"\$(ls -A $tmp/other $tmp/checkpoint | tr '\n' ' ')\" = '$tmp/checkpoint: manifest.json  $tmp/other: manifest.json ' ] &&
    grep -q icons $tmp/other/manifest.json && grep -q checkpoint $tmp/checkpoint/manifest.json"

# ---- replaced, and nothing else touched ----
small="--input $tmp/tiny.txt --document_separator line --validation_fraction 0"
seq 1 50 | sed 's/$/ little lines/' > "$tmp/tiny.txt"
$tokenize train --input io/*/*.c --vocab_size 500 --output "$tmp/new/other" > "$tmp/out" 2>&1
ok "a tokenizer that lies in the output is not written over" sh -c "mkdir $tmp/own && cp $tmp/new/tok.model $tmp/own/tokenizer.model &&
    $tokenize encode --tokenizer $tmp/new/other.model $small --output $tmp/own && cmp $tmp/new/tok.model $tmp/own/tokenizer.model && $tokenize audit $tmp/own"
ok "nor where it is the one to encode with" sh -c "mkdir $tmp/self && cp $tmp/new/tok.model $tmp/self/tokenizer.model &&
    $tokenize encode --tokenizer $tmp/self/tokenizer.model $small --output $tmp/self && cmp $tmp/new/tok.model $tmp/self/tokenizer.model && $tokenize audit $tmp/self"
for way in plain symlink hardlink other-spelling; do
    $tokenize encode --tokenizer "$tmp/new/tok.model" $small --output "$tmp/set-$way" > "$tmp/out" 2>&1
    case $way in
    plain) as=$tmp/set-plain/tokenizer.model ;;
    symlink) as=$tmp/link.model; ln -s "$tmp/set-symlink/tokenizer.model" "$as" ;;
    hardlink) as=$tmp/hard.model; ln "$tmp/set-hardlink/tokenizer.model" "$as" ;;
    *) as=$tmp/new/../set-other-spelling/./tokenizer.model ;;
    esac
    ok "a set's own tokenizer encodes over it, $way" sh -c "$tokenize encode --tokenizer $as $small --output $tmp/set-$way --overwrite &&
        cmp $tmp/new/tok.model $tmp/set-$way/tokenizer.model && cmp $tmp/new/tok.model $as && $tokenize audit $tmp/set-$way"
done
ok "another tokenizer takes the place of the set's" sh -c "$tokenize encode --tokenizer $tmp/new/other.model $small --output $tmp/set-plain --overwrite &&
    $tokenize audit $tmp/set-plain && test \$(ls $tmp/set-plain/*.model | wc -l) = 1 && $tokenize inspect $tmp/set-plain/train-*.h5 | grep -q little"
mkdir "$tmp/shared" && cp "$tmp/a/train-00000.h5" "$tmp/shared/corpus.h5"
for name in "$tmp/shared/corpus.h5" ../shared/corpus.h5; do
    rm -rf "$tmp/made"; mkdir "$tmp/made"; cp "$tmp/a/train-00001.h5" "$tmp/made/train-00000.h5"
    sed "s|train-00000.h5|$name|" "$tmp/a/manifest.json" > "$tmp/made/manifest.json"
    refuses "a manifest that leads elsewhere is not followed" 0 "shards of the earlier manifest stay.*$name" $tokenize encode \
        --tokenizer "$tmp/new/tok.model" $small --output "$tmp/made" --overwrite
    ok "what it names stays, and so does what it does not name" sh -c "cmp $tmp/a/train-00000.h5 $tmp/shared/corpus.h5 &&
        cmp $tmp/a/train-00001.h5 $tmp/made/train-00000.h5 && $tokenize audit $tmp/made"
done
before=$(cat "$tmp"/d/* | sha256sum)
refuses "a misspelt input" 2 'missing.txt: No such file' $encode --input "$tmp/missing.txt" --output "$tmp/d" --overwrite
refuses "a missing tokenizer" 2 'missing.model' $tokenize encode --tokenizer "$tmp/missing.model" $small --output "$tmp/d" --overwrite
printf 'good\n\nbad \377\n' > "$tmp/bad.txt"
refuses "a bad byte in the midst" 1 'd: the set of shards from before stays' mpirun -np 2 $encode --input $inputs "$tmp/bad.txt" --output "$tmp/d" --overwrite
ok "each leaves the old set as it was" test "$(cat "$tmp"/d/* | sha256sum)" = "$before" -a ! -e "$tmp/d/.parts" -a ! -e "$tmp/d/.lock"
refuses "not UTF-8, on three ranks" 1 'bad.txt: byte 0xff at offset 10 (line 3) is not UTF-8' \
    mpirun -np 3 $encode --input $inputs "$tmp/bad.txt" --output "$tmp/e"
ok "no manifest is left" test ! -e "$tmp/e/manifest.json" -a ! -e "$tmp/e/.parts"
ok "replaced when asked" $encode --input "$tmp/bad.txt" --invalid_utf8 replace --output "$tmp/e" --validation_fraction 0
printf '{"text": "a"}\n{"text": 5}\n' > "$tmp/bad.jsonl"
refuses "a line of .jsonl without text" 1 'bad.jsonl:2: no text under the key' $encode --input "$tmp/bad.jsonl" --output "$tmp/f"
head -c 3000 "$tmp/more.jsonl.zst" > "$tmp/cut.jsonl.zst"
refuses "truncated zstd" 1 'cut.jsonl.zst: the zstd data is truncated' $encode --input "$tmp/cut.jsonl.zst" --output "$tmp/f"
: > "$tmp/empty.txt"
refuses "an empty text" 1 'empty.txt: no text in it' $encode --input "$tmp/empty.txt" --output "$tmp/f"
refuses "a missing text" 2 'missing.txt: No such file' mpirun -np 2 $encode --input "$tmp/missing.txt" --output "$tmp/f2"
refuses "a missing tokenizer" 2 'missing.model' $tokenize encode --tokenizer "$tmp/missing.model" --input $inputs --output "$tmp/f2"
ok "nothing is made for them" test ! -e "$tmp/f2"
refuses "an output that is a file" 1 'empty.txt' $encode --input $inputs --output "$tmp/empty.txt"
refuses "all documents for validation" 1 'none of 1 documents' $tokenize encode --tokenizer "$tmp/new/tok.model" --input "$tmp/all.txt" \
    --validation_fraction 1 --output "$tmp/f"
echo "one two three four five six" > "$tmp/tiny.txt"
refuses "a vocabulary too small for the bytes" 2 'vocab_size 100: must be above 261' \
    $tokenize train --input "$tmp/tiny.txt" --vocab_size 100 --output "$tmp/small"
refuses "a vocabulary too large for the text" 2 'Vocabulary size too high' \
    $tokenize train --input "$tmp/tiny.txt" --vocab_size 9000 --output "$tmp/large"
mkdir "$tmp/taken.model"
refuses "a tokenizer that cannot be written" 1 'taken.model' \
    $tokenize train --input "$tmp/tiny.txt" --vocab_size 280 --output "$tmp/taken"
refuses "an unknown option" 2 'unknown option --shard_token; did you mean --shard_tokens' $encode --shard_token 5 --input x --output "$tmp/f"
refuses "a value out of range" 2 'shard_tokens' $encode --input x --output "$tmp/f" --shard_tokens 0
refuses "a missing option" 2 'tokenizer is needed' $tokenize encode --input x --output "$tmp/f"
refuses "an unknown command" 2 'unknown command' $tokenize encdoe
refuses "help" 0 'Status: 0 well' $tokenize --help
refuses "help of a command" 0 'document_separator' $tokenize encode --help

# ---- 100 MB in one line ----
perl -e '$s = join " ", map { "word$_ of the line" } 1..5000; $s x= 1 + 100e6 / length $s; print substr $s, 0, 100e6' > "$tmp/line.txt"
ok "one line of 100 MB, which is warned about" sh -c "$tokenize encode --tokenizer $tmp/new/tok.model --input $tmp/line.txt --validation_fraction 0 \
    --output $tmp/g 2>&1 | grep -q 'line.txt: more than 64 MiB, and one document'"
ok "holds all of it" sh -c "$tokenize audit $tmp/g | grep -q 'tokens in 1 documents: 0 faults'"
echo "1..$n"
exit $failed
