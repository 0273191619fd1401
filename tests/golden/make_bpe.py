"""tests/golden/bpe: a small tokenizer.json as Qwen's are, trained by Hugging Face's tokenizers (pip install tokenizers), and
what tokenizers makes of 250 texts, special names found in them: texts.json.  python3 make_bpe.py"""

import json
import os

from bpe_texts import texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bpe")
os.makedirs(out, exist_ok=True)
t = Tokenizer(models.BPE())
t.normalizer = normalizers.NFC()
pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
t.decoder = decoders.ByteLevel()
t.train_from_iterator(texts(600, seed=3), trainers.BpeTrainer(vocab_size=900, show_progress=False,
                                                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
t.add_tokens([AddedToken(x, normalized=False) for x in ("<tool_call>", "</tool_call>", "<think>", "</think>")])
t.save(os.path.join(out, "tokenizer.json"), pretty=False)
with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
    json.dump({"eos_token": "<|endoftext|>", "pad_token": {"content": "<|endoftext|>"}}, f)
rows = [{"text": x, "ids": t.encode(x, add_special_tokens=False).ids}
        for x in (y.replace("\0", " ")[:400] for y in texts(250, seed=5))]
with open(os.path.join(out, "texts.json"), "w") as f:
    json.dump(rows, f, separators=(",", ":"))
