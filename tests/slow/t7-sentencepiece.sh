#!/bin/sh
# Tokens are those that SentencePiece's own encoder gives the whole text: models of every kind, odd random texts, lines of up to 1 MB without
# a space.  Needs a Python with sentencepiece and h5py: PYTHON=...   MODELS="a.model b.model" takes more models, SEED= other texts.
set -u
if ! "$PYTHON" -c 'import sentencepiece, h5py' > /dev/null 2>&1; then
    echo "1..0 # SKIP no sentencepiece and h5py in ${PYTHON:-python3}"
    exit 0
fi
cat src/*/*.c src/*/*.h README.md > "$TMPDIR/text.txt"
exec "$PYTHON" tests/slow/t7-sentencepiece.py "$MOAI_BIN/moai_tokenize" "$TMPDIR"
