#!/bin/sh
# README.md shows what moai_train --help says, and names files that exist.
set -u
"$MOAI_BIN/moai_train" --help > "$TMPDIR/help" || exit 1
sed -n '/^usage: moai_train/,/^```$/p' README.md | sed '$d' > "$TMPDIR/shown"
failed=0
if diff "$TMPDIR/help" "$TMPDIR/shown" > "$TMPDIR/diff"; then echo "ok 1 - README.md has the options as they are"; else
    echo "not ok 1 - README.md has other options than moai_train --help"; sed 's/^/# /' "$TMPDIR/diff"; failed=1
fi
missing=
# shellcheck disable=SC2016
for f in $(grep -o '`[a-z]*/[a-z0-9_./-]*\.[a-z]*`' README.md | tr -d '`' | sort -u); do [ -e "$f" ] || missing="$missing $f"; done
if [ -z "$missing" ]; then echo "ok 2 - the files that README.md names exist"; else echo "not ok 2 - README.md names$missing"; failed=1; fi
echo "1..2"
exit $failed
