#!/bin/bash
# t7-inputs.sh: thousands of inputs: on a long command line, by lists and by directories, with and without mpirun; which files of a
# directory are read, and in what order.
# needs: perl zstd
. tests/lib/check.sh
dir=$TMPDIR
shown="$dir/out"
tokenize=$(realpath "$MOAI_BIN")/moai_tokenize
"$tokenize" train --input src/*/*.c --vocab_size 500 --output "$dir/tok" > "$dir/out" 2>&1 || exit 1
encode() { "${launch[@]}" "$tokenize" encode --tokenizer "$dir/tok.model" --validation_fraction 0.1 --no_progress "$@" > "$dir/out" 2>&1; }
same() { diff -r "$dir/$1" "$dir/$2" > "$dir/out" 2>&1; check $? "$3"; }
launch=()

# ---- 3000 names of 60 bytes: more than the 128 KiB that Open MPI has room for ----
mkdir "$dir/many"
perl -e 'for (1 .. 3000) { open F, ">", sprintf "%s/document-%06d-some-longer-name-than-usual-for-a-file.txt", $ARGV[0], $_; print F "text $_\n" }' "$dir/many"
(ulimit -n 64; encode --input "$dir"/many/*.txt --output "$dir/argv"); check $? "3000 names, $(echo "$dir"/many/*.txt | wc -c) bytes, with 64 descriptors: $(head -n 1 "$dir/out" | cut -c 1-90)"
encode --input "$dir/many" --output "$dir/directory"; check $? "a directory"
same argv directory "gives the same"
ls "$dir"/many/*.txt > "$dir/list"
encode --input_list "$dir/list" --output "$dir/listed"; check $? "a list"
same argv listed "gives the same"
encode --input_list - --output "$dir/piped" < "$dir/list"; check $? "a list on standard input"
same argv piped "gives the same"
launch=(mpirun -np 3)
encode --input_list - --output "$dir/ranks" < "$dir/list"; check $? "read by one of three ranks"
same argv ranks "gives the same"
encode --input_list "$dir/list" --output "$dir/ranks2"; check $? "a list on three ranks"
same argv ranks2 "gives the same"
launch=()
printf '\xef\xbb\xbf' > "$dir/crlf"; sed 's/$/\r/; s/^/\r\n/' "$dir/list" >> "$dir/crlf"
encode --input_list "$dir/crlf" --output "$dir/crlf-out"; check $? "a list from an editor on Windows, with empty lines"
same argv crlf-out "gives the same"
find "$dir/many" -type f -print0 | LC_ALL=C sort -z > "$dir/nul"
encode --input_list "$dir/nul" --output "$dir/nul-out"; check $? "names that end with NUL"
same argv nul-out "gives the same"
encode --input_list <(head -n 1000 "$dir/list") --input $(sed -n 1001,2000p "$dir/list") --input_list <(tail -n 1000 "$dir/list") --output "$dir/parts"
check $? "lists and names one after another"
same argv parts "gives the same"

# ---- a directory ----
mkdir -p "$dir/tree/b/c" "$dir/tree/.git" "$dir/elsewhere" "$dir/tree/a"
for f in b.txt b/1.txt b/c/2.JSONL a/z.txt b.md é.txt "with
newline.txt" a.txt; do echo "$f" > "$dir/tree/$f"; done
echo '{"text": "2"}' > "$dir/tree/b/c/2.JSONL"
echo '{"text": "linked"}' > "$dir/elsewhere/far.jsonl"
ln -s ../elsewhere "$dir/tree/link"; ln -s .. "$dir/tree/b/loop"
echo hidden > "$dir/tree/.git/x.txt"; echo hidden > "$dir/tree/.y.txt"; echo no > "$dir/tree/table.parquet"; echo no > "$dir/tree/b/table.parquet"; echo no > "$dir/tree/README"
encode --input "$dir/tree//" --output "$dir/tree-out"; check $? "a tree"
cp "$dir/out" "$dir/tree-said"
grep -q 'tree//: 3 files are passed over.*: 2 .parquet, 1 without an ending' "$dir/out"; check $? "says what it passes over"
grep -q 'tree/b/loop leads back to .*/tree: passed over' "$dir/out"; check $? "and a loop"
(cd "$dir/tree" && find -L . -name '.?*' -prune -o -type f -print0 2> /dev/null) | sed -z 's|^\./||' | grep -z -v 'parquet\|README' | LC_ALL=C sort -z | sed -z "s|^|$dir/tree/|" > "$dir/sorted"
encode --input_list "$dir/sorted" --output "$dir/sorted-out"; check $? "its $(tr -dc '\0' < "$dir/sorted" | wc -c) files in the order of their bytes"
same tree-out sorted-out "give the same"
grep -q 'warning: .*tree//: JSON lines and other texts are read alike: 1 .JSONL, 1 .jsonl, 1 .md, 6 .txt' "$dir/tree-said"; check $? "says what it reads, where texts are mixed"
mkdir "$dir/set"; cp "$dir/elsewhere/far.jsonl" "$dir/set/a.jsonl"; cp "$dir/elsewhere/far.jsonl" "$dir/set/b.json"; zstd -q "$dir/set/a.jsonl" -o "$dir/set/c.x.jsonl.zst"
for f in README.md LICENSE stats.csv page.html notes.txt; do echo "no JSON" > "$dir/set/$f"; done
encode --format jsonl --validation_fraction 0 --input "$dir/set" --output "$dir/set-out" && grep -q 'set: 1 .json, 1 .jsonl, 1 .jsonl.zst are read' "$dir/out" &&
    grep -q 'set: 5 files are passed over.* JSON lines: 1 .csv, 1 .html, 1 .md, 1 .txt, 1 without' "$dir/out"; check $? "a data set's README ends no --format jsonl"
encode --validation_fraction 0 --input "$dir/set" --output "$dir/set-out" --overwrite && grep -q 'alike: 1 .jsonl, 1 .jsonl.zst, 1 .md, 1 .txt' "$dir/out"; check $? "and is warned about without"
encode --input "$dir/tree/link/far.jsonl" "$dir/elsewhere/far.jsonl" "$dir/elsewhere" --validation_fraction 0 --output "$dir/twice" && grep -q '2 of the 3 inputs are files that were named before, such as .*far.jsonl' "$dir/out"
check $? "files named twice are warned about"
mkdir "$dir/none" "$dir/dangling"; touch "$dir/none/a.parquet"; ln -s nowhere "$dir/dangling/x.txt"
refused 2 'none: no file below it has the name of a text or of JSON lines; there are 1 .parquet' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input "$dir/none"
refused 1 'dangling/x.txt: a link to nothing' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input "$dir/dangling"

# ---- lists that are none ----
echo > "$dir/empty"; printf 'src/corpus/audit.c\nno-such.txt\n' > "$dir/wrong"; iconv -f UTF-8 -t UTF-16 "$dir/list" > "$dir/utf16"
refused 2 'empty: no name in this list' mpirun -np 2 "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/empty"
refused 2 'wrong, line 2: no-such.txt: No such file or directory; it is looked for from ' mpirun -np 2 "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/wrong"
printf '# comment\n' > "$dir/comment"; printf 'a.txt\rb.txt\r' > "$dir/cr"; zstd -q "$dir/list" -o "$dir/list.zst"; printf 'src/corpus/audit.c\0no\033-such.txt\0' > "$dir/nuls"
refused 2 'comment, line 1: # comment: No such file or directory; a list has no comments' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/comment"
refused 2 'cr, line 1: a.txt?b.txt: No such file or directory; CR alone ends no line' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/cr"
refused 2 'list.zst: is zstd: a list is of names' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/list.zst"
refused 2 'nuls, name 2: no?-such.txt: No such file' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/nuls"
refused 2 'utf16: begins with the mark of UTF-16' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/utf16"
refused 2 'no-list: No such file' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list "$dir/no-list"
refused 2 'standard input (-) can be read once' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f" --input_list - --input -
refused 2 'input or --input_list is needed' "$tokenize" encode --tokenizer "$dir/tok.model" --output "$dir/f"
[ ! -e "$dir/f" ]; check $? "nothing is made for them"
"$tokenize" train --input_list "$dir/list" --vocab_size 280 --output "$dir/t1" > "$dir/out" 2>&1 && "$tokenize" train --input "$dir/many" --vocab_size 280 --output "$dir/t2" > "$dir/out" 2>&1 &&
    cmp "$dir/t1.model" "$dir/t2.model"; check $? "train takes lists and directories too"
done_testing
