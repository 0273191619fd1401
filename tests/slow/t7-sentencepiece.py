"""See t7-sentencepiece.sh.  Arguments: moai_tokenize, a directory that holds text.txt."""
import glob
import json
import os
import random
import subprocess
import sys

import h5py
import sentencepiece

tokenize, directory = sys.argv[1:]
corpus = directory + "/text.txt"
plain = dict(normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True)
kinds = {
    "MOAI's own": dict(plain, add_dummy_prefix=False, split_digits=True),
    "a space in front, as Llama": dict(plain, add_dummy_prefix=True),
    "a space behind": dict(plain, add_dummy_prefix=True, treat_whitespace_as_suffix=True),
    "user-defined symbols, as Gemma": dict(plain, add_dummy_prefix=False, user_defined_symbols=["\n\n", "▁▁", "▁▁▁", "\t\t", "日本", "<b>", "of▁the"]),
    "the same with a space in front": dict(plain, add_dummy_prefix=True, user_defined_symbols=["\n", "▁▁▁▁", "<b>", "a▁"]),
    "pieces across spaces": dict(plain, add_dummy_prefix=True, split_by_whitespace=False),
    "spaces dropped": dict(plain, add_dummy_prefix=True, remove_extra_whitespaces=True),
    "no bytes": dict(plain, add_dummy_prefix=True, byte_fallback=False, character_coverage=0.98),
    "no bytes, no space": dict(plain, add_dummy_prefix=False, byte_fallback=False, character_coverage=0.98),
    "SentencePiece's defaults": dict(),
    "nmt_nfkc with bytes": dict(byte_fallback=True, remove_extra_whitespaces=False, normalization_rule_name="nmt_nfkc"),
    "spaces as they are": dict(plain, add_dummy_prefix=True, escape_whitespaces=False) ,
}


# unigram ties fall otherwise in other versions
linked = subprocess.run(["pkg-config", "--modversion", "sentencepiece"], capture_output=True, text=True).stdout.strip()
same_version = linked == sentencepiece.__version__


def models():
    for n, (name, options) in enumerate(kinds.items()):
        for kind in ("bpe", "unigram") if same_version and n in (0, 1, 2, 4, 9) else ("bpe",):
            prefix = f"{directory}/model{n}{kind}"
            given = {k: v for k, v in options.items() if k != "escape_whitespaces"}
            sentencepiece.SentencePieceTrainer.train(input=corpus, model_prefix=prefix, vocab_size=1500, model_type=kind, minloglevel=2, hard_vocab_limit=False, **given)
            if "escape_whitespaces" in options:      # normalizer_spec, merged: escape_whitespaces false
                with open(prefix + ".model", "ab") as f:
                    f.write(b"\x1a\x02\x28\x00")
            yield f"{kind}, {name}", prefix + ".model"
    if not same_version:
        print(f"# no unigram models: SentencePiece {sentencepiece.__version__} is not {linked}, which is linked")
    for kind in ("char", "word"):
        prefix = f"{directory}/model{kind}"
        sentencepiece.SentencePieceTrainer.train(input=corpus, model_prefix=prefix, vocab_size=1500, model_type=kind, minloglevel=2, hard_vocab_limit=False, **dict(plain, byte_fallback=False))
        yield kind, prefix + ".model"
    for path in os.environ.get("MODELS", "").split():
        yield os.path.basename(path), path


rng = random.Random(int(os.environ.get("SEED", "1")))
words = open(corpus).read().split()
odd = ["▁", "▁", " ", "  ", "\t", "\n", "\r\n", "\n\n", "\0", "日本語", "中", "🎉", "👩‍🚀", "é", "e\u0301", "ﬁ", "\u00a0", "\u3000", "\u200b", "<s>", "</s>", "<unk>", "<0x41>", "<b>", "of the", "of▁the",
       "a▁", "0", "12", "x", "▂▃", "\ufeff", "\ufffd", "\U0010ffff", "-" * 9, "=" * 40, " " * 30, "\t" * 5]


def text():
    kind = rng.random()
    if kind < 0.5:
        parts = [rng.choice(odd) if rng.random() < 0.7 else rng.choice(words) for _ in range(rng.randrange(1, 30))]
        return "".join(parts)
    if kind < 0.85:
        return "".join(rng.choice([" ", " ", " ", "\n", "▁", "  ", "", " ▁", "▁ "]) + rng.choice(words if rng.random() < 0.9 else odd) for _ in range(rng.randrange(1, 300)))
    n = rng.randrange(1000, 30000)
    alphabet = rng.choice(["ab", "abcdefghijklmnopqrstuvwxyz", "ACGT", "0123456789", "日本語中文字ab", "a▁", " ▁", "é\u0301e", "🎉a", "".join(map(chr, range(33, 127)))])
    return "".join(rng.choice(alphabet) for _ in range(n))


texts = [t for t in (text() for _ in range(1500)) if t.strip("\n")]
base64 = "".join(map(chr, list(range(65, 91)) + list(range(97, 123)) + list(range(48, 58)))) + "+/"
texts += ["".join(rng.choice(base64) for _ in range(1000000)), "a" * 300000, "ab" * 100000 + " " + "▁" * 5000, "".join(words)[:500000], "".join(rng.choice("ACGT") for _ in range(200000))]
with open(directory + "/texts.jsonl", "w") as f:
    f.writelines(json.dumps({"text": t}) + "\n" for t in texts)

failed = n_models = 0
for n_models, (name, path) in enumerate(models(), 1):
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    out = f"{directory}/shards"
    run = subprocess.run([tokenize, "encode", "--tokenizer", path, "--input", directory + "/texts.jsonl", "--output", out, "--overwrite", "--validation_fraction", "0", "--no_progress"], capture_output=True, text=True)
    got = []
    if run.returncode == 0:
        with h5py.File(sorted(glob.glob(out + "/train-*.h5"))[0]) as f:
            ids, ends = f["tokens"][...], f["documents"][...]
        got = [ids[int(a):int(b) - 1].tolist() for a, b in zip(ends[:-1], ends[1:])]
    want = [sp.encode(t) for t in texts]
    differ = [t for t, g, w in zip(texts, got, want) if g != w]
    good = not differ and len(got) == len(want)
    failed |= not good
    print(f"{'' if good else 'not '}ok {n_models} - {name}: {len(got)} of {len(texts)} texts, {sum(map(len, want))} tokens; {len(differ)} differ {sorted(differ, key=len)[:3]!r:.200}", flush=True)
    if run.returncode:
        print("# " + run.stderr)
print(f"1..{n_models}")
sys.exit(bool(failed))
