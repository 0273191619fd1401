#!/bin/sh
# The documents are true: configs/KEYS.md shows what moai_train --help says, the files that documents name are there,
# configs/README.md names the keys that are refused, and README.md is short.
. tests/lib/check.sh
shown=$TMPDIR/wrong

"$MOAI_BIN/moai_train" --help > "$TMPDIR/help" || exit 1
sed -n '/^usage: moai_train/,/^```$/p' configs/KEYS.md | sed '$d' | diff "$TMPDIR/help" - > "$TMPDIR/wrong"
check $? "configs/KEYS.md has the options as they are"

# in characters: what continues one of UTF-8 is no column
LC_ALL=C sed 's/[\x80-\xbf]//g' README.md | LC_ALL=C awk 'length > 120 { print "README.md:" NR ": " length " columns" }
    END { if (NR > 130) print "README.md has " NR " lines" }' > "$TMPDIR/wrong"
[ ! -s "$TMPDIR/wrong" ]; check $? "README.md has at most 130 lines of 120 columns"

# Names in `backquotes` and the targets of links.  A path begins at the root of the tree, or where the document lies; a
# source's name alone may be anywhere, for names are unique; NAME is any.
{ git ls-files -co --exclude-standard 2> /dev/null | grep . ||
    find . -name '.?*' -prune -o -path './build*' -prune -o -type f -print; } | sed 's|^\./||' > "$TMPDIR/files"
sed 's|.*/||' "$TMPDIR/files" | sort -u > "$TMPDIR/names"
grep '\.md$' "$TMPDIR/files" > "$TMPDIR/documents"
while read -r document; do
    # shellcheck disable=SC2016
    for name in $(sed 's/`[^`]*NAME[^`]*`//g' "$document" | grep -o -e '`[a-z0-9_]*/[A-Za-z0-9_./-]*\.[a-z]*`' -e '](\([^)#:]*\))' | tr -d '`]()'); do
        [ -e "$name" ] || [ -e "$(dirname "$document")/$name" ] || echo "$document names $name"
    done
    # shellcheck disable=SC2016
    for name in $(grep -o -E '`[A-Za-z0-9_-]+\.(c|h|cc|cu|cuh|def|sh|pl|py|md)`' "$document" | tr -d '`'); do
        grep -q -x -F -e "$name" "$TMPDIR/names" || echo "$document names $name"
    done
done < "$TMPDIR/documents" > "$TMPDIR/wrong"
[ -s "$TMPDIR/documents" ] && [ ! -s "$TMPDIR/wrong" ]
check $? "the files that $(wc -l < "$TMPDIR/documents") documents name exist"

# shellcheck disable=SC2016
for key in $(sed -n 's/.*{"\([a-z_]*\)", OFF_.*/\1/p' src/config/model_refused.c); do
    grep -q "\`$key\`" configs/README.md || echo "no $key"
done > "$TMPDIR/wrong"
[ ! -s "$TMPDIR/wrong" ]; check $? "configs/README.md has every refused key of a model file"
done_testing
