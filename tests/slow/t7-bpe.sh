#!/bin/sh
# t7-bpe.sh: ids by tokenizer.json are those of Hugging Face's tokenizers, of a real Qwen vocabulary and of trained ones.
# Needs a Python with tokenizers, and PyPI, or QWEN=qwen.tiktoken.  CORPUS=FILE measures the rate on it as well, N= other
# numbers of texts.
set -u
skip() { echo "1..0 # SKIP $1"; exit 0; }
"$PYTHON" -c 'import tokenizers' > /dev/null 2>&1 || skip "no tokenizers in ${PYTHON:-python3}"
if [ -z "${QWEN:-}" ]; then
    "$PYTHON" -m pip download -q --no-deps -d "$TMPDIR" dashscope==2.0.2 > "$TMPDIR/pip.log" 2>&1 || skip "PyPI has no dashscope for us"
    "$PYTHON" -m zipfile -e "$TMPDIR"/dashscope*.whl "$TMPDIR/wheel"
    QWEN=$TMPDIR/wheel/dashscope/resources/qwen.tiktoken
fi
"$PYTHON" tests/slow/t7-bpe.py "$QWEN" "$TMPDIR" ${CORPUS:+"$CORPUS"} > "$TMPDIR/tap"
status=$?
cat "$TMPDIR/tap"
echo "1..$(grep -c '^ok\|^not ok' "$TMPDIR/tap")"
[ $status = 0 ] && ! grep -q '^not ok' "$TMPDIR/tap"
