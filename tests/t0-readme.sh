#!/bin/sh
# README.md shows what moai_train --help says, and names files that exist; configs/README.md names the keys that are refused.
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
missing=
# shellcheck disable=SC2016
for key in $(sed -n 's/.*{"\([a-z_]*\)", OFF_.*/\1/p' src/config/model_refused.c); do grep -q "\`$key\`" configs/README.md || missing="$missing $key"; done
if [ -z "$missing" ]; then echo "ok 3 - configs/README.md has every refused key of a model file"; else
    echo "not ok 3 - configs/README.md does not name$missing"; failed=1
fi
echo "1..3"
exit $failed
