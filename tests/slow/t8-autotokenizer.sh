#!/bin/sh
# An exported tokenizer.json gives AutoTokenizer the tokens that SentencePiece gives.  Needs a Python with transformers, tokenizers and
# sentencepiece: PYTHON=...
set -u
if ! "$PYTHON" -c 'import transformers, tokenizers, sentencepiece' > /dev/null 2>&1; then
    echo "1..0 # SKIP no transformers, tokenizers and sentencepiece in ${PYTHON:-python3}"
    exit 0
fi
cat src/*/*.c src/*/*.h > "$TMPDIR/text.txt"
cp -r tests/golden/tied "$TMPDIR/hf"
for size in 600 3000; do
    "$MOAI_BIN/moai_tokenize" train --input "$TMPDIR/text.txt" --vocab_size $size --output "$TMPDIR/hf/tokenizer" --overwrite > "$TMPDIR/log" 2>&1 &&
        "$MOAI_BIN/moai_checkpoint" export "$TMPDIR/hf" "$TMPDIR/out$size" >> "$TMPDIR/log" 2>&1 || sed 's/^/# /' "$TMPDIR/log"
done
"$PYTHON" - "$TMPDIR/text.txt" "$TMPDIR/out600" "$TMPDIR/out3000" <<'EOF'
import sys

import sentencepiece
from transformers import AutoTokenizer

texts = open(sys.argv[1]).read().split("\n\n")
texts += ["", " ", "  two  spaces ", "\n\n\t", "1234567 + 0.5", "日本語 🎉 ünï\u00a0code", "naïve café", "a" * 300, "x" + " " * 40 + "y", "loss ▁▁▁ ▁ x", "▁ ▁"]
texts = [t for t in texts if not any(special in t for special in ("<unk>", "<s>", "</s>", "<pad>"))]    # names of special tokens
texts += ["".join(chr(97 + i * i // 7 % 26) for i in range(50000)), "a" * 20000]    # no space where a long text could be cut
failed = 0
for n, directory in enumerate(sys.argv[2:], 1):
    ours = sentencepiece.SentencePieceProcessor(model_file=directory + "/tokenizer.model")
    theirs = AutoTokenizer.from_pretrained(directory)
    bad = [t for t in texts if theirs(t)["input_ids"] != ours.encode(t) or theirs.decode(ours.encode(t)) != t.replace("▁", " ")]
    good = not bad and len(theirs) == ours.get_piece_size() and theirs.eos_token_id == ours.eos_id() and theirs.pad_token_id == ours.pad_id()
    failed |= not good
    print(f"{'' if good else 'not '}ok {n} - {len(texts)} texts, {len(theirs)} pieces, {len(bad)} differ {[t[:60] for t in bad[:3]]}")
print(f"1..{len(sys.argv) - 2}")
sys.exit(failed)
EOF
