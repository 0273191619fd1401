"""Token ids of a real Qwen vocabulary (qwen.tiktoken of PyPI's dashscope, with Qwen3's added tokens) and of one trained
here, Llama-3-like, against Hugging Face's tokenizers, on 20,000 texts each; and the rate of one thread on 100 MB."""

import base64
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "golden"))
os.environ["RAYON_NUM_THREADS"] = os.environ["TOKENIZERS_PARALLELISM"] = "1"
from bpe_texts import texts  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

wheel, out = sys.argv[1], sys.argv[2]
tokens = os.path.join(os.environ["MOAI_BIN"], "tests/tools/tokens")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA = QWEN.replace(r"|\p{N}| ", r"|\p{N}{1,3}| ")


def alphabet():
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in seen]
    return {**{b: chr(b) for b in seen}, **{b: chr(256 + i) for i, b in enumerate(others)}}


CHARS = alphabet()


def written(b):
    return "".join(CHARS[x] for x in b)


def qwen(tiktoken):
    """The merges of a list of ranks: each cut of a token into two, by the rank of what it makes."""
    ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in tiktoken.splitlines() if line)}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda x: x[1]):
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += sorted(cuts, key=lambda c: (ranks[c[0]], ranks[c[1]]))
    t = Tokenizer(models.BPE(vocab={written(b): r for b, r in ranks.items()},
                             merges=[(written(a), written(b)) for a, b in merges]))
    t.normalizer = normalizers.NFC()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"]
    plain = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in specials])
    t.add_tokens([AddedToken(s, normalized=False) for s in plain])
    return cut(t, QWEN)


def cut(t, pattern):
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    return t


def trained(pattern, corpus, ignore_merges):
    t = cut(Tokenizer(models.BPE(ignore_merges=ignore_merges)), pattern)
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|endoftext|>", "<|im_start|>"],
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                      show_progress=False))
    return t


def ours(path, list_of_texts, *flags):
    data = b"".join(t.encode("utf-8") + b"\0" for t in list_of_texts)
    return subprocess.run([tokens, path, *flags], input=data, stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()


def compare(name, t, n):
    path = os.path.join(out, name + ".json")
    t.save(path)
    those = [x.replace("\0", " ") for x in texts(n)]
    wrong = 0
    for text, line in zip(those, ours(path, those, "--special")):
        ids = " ".join(map(str, t.encode(text, add_special_tokens=False).ids))
        if ids != line.strip():
            wrong += 1
            if wrong <= 5:
                print(f"# {text!r}\n#   {ids}\n#   {line}")
    print(f"{'ok' if wrong == 0 else 'not ok'} - {name}: ids of {n} texts are those of tokenizers, {wrong} are not")
    lost = sum("LOST" in line for line in ours(path, those))
    print(f"{'ok' if lost == 0 else 'not ok'} - {name}: each text comes back in its normal form, {lost} do not")
    return path


def rate(t, path, corpus):
    with open(corpus, encoding="utf-8", newline="") as f:
        lines = f.read().split("\n")
    lines = [x + "\n" for x in lines[:-1]] + [x for x in lines[-1:] if x]
    begin = time.time()
    n = sum(len(t.encode(line, add_special_tokens=False).ids) for line in lines)
    theirs = time.time() - begin
    seconds, count = subprocess.run([tokens, path, "--rate", corpus], stdout=subprocess.PIPE, check=True).stdout.split()
    size = os.path.getsize(corpus) / 1e6
    print(f"{'ok' if int(count) == n else 'not ok'} - {n} tokens of {corpus}, {int(count)} here")
    print(f"# {size:.0f} MB, one thread: {size / float(seconds):.1f} MB/s, tokenizers {size / theirs:.1f} MB/s: "
          f"{theirs / float(seconds):.2f} times")


n = int(os.environ.get("N", "20000"))
big = qwen(open(wheel, "rb").read())
path = compare("qwen", big, n)
corpus = [x for x in texts(4000, seed=9)]
compare("llama", trained(LLAMA, corpus, True), n)
gpt2 = Tokenizer(models.BPE())
gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
gpt2.decoder = decoders.ByteLevel()
gpt2.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=3000, special_tokens=["<|endoftext|>"], show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
compare("gpt2", gpt2, n)
if len(sys.argv) > 3:
    rate(big, path, sys.argv[3])
