#!/bin/bash
# t7-unknown.sh: a tokenizer without pieces for bytes: what it lacks becomes <unk>, which encode and audit count, and tell the first place of.
# needs: perl zstd
. tests/lib/check.sh
dir=$TMPDIR
shown="$dir/out"
tokenize=$MOAI_BIN/moai_tokenize
# a model of single characters: a to z, the space and the line end
perl -e 'sub v { my ($n, $s) = (shift, ""); for (; $n > 127; $n >>= 7) { $s .= chr($n & 127 | 128) } $s . chr $n }
    sub b { v($_[0] << 3 | 2) . v(length $_[1]) . $_[1] }
    sub piece { b(1, b(1, $_[0]) . v(2 << 3 | 5) . pack("f<", -1) . v(3 << 3) . v($_[1])) }
    print piece("<unk>", 2), piece("</s>", 3), map({ piece($_, 1) } "a" .. "z", "\xE2\x96\x81", "\n"), b(2, v(3 << 3) . v(4)),
        b(3, v(3 << 3) . v(0) . v(4 << 3) . v(0))' > "$dir/char.model"
encode() { "${launch[@]}" "$tokenize" encode --tokenizer "$dir/char.model" --validation_fraction 0 --no_progress --output "$dir/$1" "${@:2}" > "$dir/out" 2>&1; }
says() { grep -q -e "$2" "$dir/out"; check $? "$1: $(grep -m 1 -e unk "$dir/out" | sed "s|$dir/||g" | cut -c 1-180)"; }
launch=()

yes 'only what the model knows' | head -n 60000 > "$dir/plain.txt"
sed '43210s/$/ and {more} {of it}/' "$dir/plain.txt" > "$dir/one.txt"
sed 's/e/{/' "$dir/plain.txt" > "$dir/many.txt"
perl -ne 'chomp; print "{\"id\": $., \"text\": \"first\\n$_\"}\n"' "$dir/one.txt" > "$dir/one.jsonl"
zstd -q "$dir/one.jsonl" -o "$dir/packed.jsonl.zst"

encode none --input "$dir/plain.txt" --document_separator line && ! grep -q unk "$dir/out"; check $? "all is known: not a word of it"
"$tokenize" audit "$dir/none" > "$dir/out" 2>&1 && ! grep -q unk "$dir/out"; check $? "nor from audit"
encode whole --input "$dir/one.txt"
says "in the midst of a document" 'encode: 4 of the tokens, 0.0003 %, are <unk>, the first: .*/one.txt:43210 ("{")'
grep -q warning "$dir/out"; [ $? = 1 ]; check $? "so few are told, not warned about"
"$tokenize" audit "$dir/whole" > "$dir/out" 2>&1; check $? "nor are they a fault to audit"
says "audit" 'unknown tokens (<unk>, id 0): 4, .* the first is token 11[0-9]* of .*/whole/train-00000.h5'
for launch in "" "mpirun -np 3"; do
    launch=($launch)
    encode lines --overwrite --input "$dir/plain.txt" "$dir/one.txt" "$dir/one.jsonl" --document_separator line
    says "in the second of three files ${launch[*]}" 'encode: 8 of the tokens, .*/one.txt:43210 ("{")'
    encode json --overwrite --input "$dir/one.jsonl" --num_threads 3
    says "in JSON lines ${launch[*]}" 'encode: 4 of the tokens, .*/one.jsonl:43210 ("{")'
    encode packed --overwrite --input "$dir/packed.jsonl.zst"
    says "in packed ones ${launch[*]}" 'encode: 4 of the tokens, .*/packed.jsonl.zst:43210 ("{")'
    encode piped --overwrite --input - --format jsonl < "$dir/one.jsonl"
    says "in a pipe ${launch[*]}" 'encode: 4 of the tokens, .*-:43210 ("{")'
    encode many --overwrite --input "$dir/plain.txt" "$dir/many.txt" --document_separator line
    says "many ${launch[*]}" '^warning: 60000 of the tokens, 1.[0-9]* %, are <unk>: .*/char.model has no piece for what stood there, and it is lost; the first: .*/many.txt:1 ("{")'
done
"$tokenize" audit "$dir/many" > "$dir/out" 2>&1; status=$?
[ $status = 0 ] && grep -q '^warning: 1.[0-9]* % of the tokens are <unk>' "$dir/out" && tail -n 1 "$dir/out" | grep -q ': 0 faults$'
says "audit warns, and finds no fault" 'unknown tokens (<unk>, id 0): 60000'
done_testing
