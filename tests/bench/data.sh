#!/bin/sh
# data.sh: encode against SentencePiece's own encoder and the loader's rate; the text is the demo's, or this repository's sources.
text=
command -v bible > /dev/null && configs/demo/corpus.sh "$TMPDIR/corpus.txt" && text=$TMPDIR/corpus.txt
exec "$MOAI_BIN/tests/bench/bench-data" ${text:+"$text"} ${text:+4096}
