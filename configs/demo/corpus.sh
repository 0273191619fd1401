#!/bin/sh
# corpus.sh OUTPUT.txt: the demo's text, the King James Bible out of the Debian package bible-kjv (public domain outside the United Kingdom):
# a document per chapter, its name on the first line, then a line per verse without its number; a blank line between documents.
# Tokenizer and shards are made from it by
#   moai_tokenize train --input OUTPUT.txt --vocab_size 2048 --output DIR/tokenizer
#   moai_tokenize encode --tokenizer DIR/tokenizer.model --input OUTPUT.txt --document_separator blank_line \
#                        --validation_fraction 0.05 --output DIR/shards
set -eu
[ $# -eq 1 ] || { echo "usage: $0 OUTPUT.txt" >&2; exit 2; }
command -v bible > /dev/null || { echo "$0: no program \`bible\`: install the package bible-kjv" >&2; exit 1; }

bible -l100000 'gen1:1-rev22:21' < /dev/null |
    awk '/^[^ ]/ { if (n++) print ""; print } /^ / { sub(/^ *[0-9]+ /, ""); print }' > "$1"

# 66 books of 1,189 chapters and 31,102 verses
awk -v name="$0" '/^$/ { blank++ } { lines++ } END { if (blank != 1188 || lines != 1188 + 1189 + 31102) {
    print name ": bible printed " blank + 1 " chapters and " lines " lines, not 1189 and 33479" > "/dev/stderr"; exit 1 } }' "$1"
