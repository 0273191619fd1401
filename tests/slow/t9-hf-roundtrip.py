#!/usr/bin/env python3
"""Transformers' side of t9-hf-roundtrip.sh.

t9-hf-roundtrip.py make KIND DIR        a Qwen3 directory as save_pretrained writes it; KIND: sharded (fp32) or bf16
t9-hf-roundtrip.py results HF_DIR OUT   what Transformers computes: OUT/results.safetensors, as make_golden.py names it
t9-hf-roundtrip.py same DIR DIR         both hold the same tensors, bit for bit, and mean the same configuration
t9-hf-roundtrip.py dress HF_DIR           gives the directory chat templates and a generation config, as save_pretrained writes them
t9-hf-roundtrip.py dressed DIR DIR TEXT   AutoTokenizer and GenerationConfig of both are equal, on the file TEXT too
t9-hf-roundtrip.py greedy HF_DIR IDS N  the N most likely tokens after IDS, one after another
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
import make_golden  # noqa: E402


def load(directory):
    """The model in fp32; every tensor of the directory must have found its place and every place its tensor."""
    model, info = Qwen3ForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    faults = {k: v for k, v in info.items() if v}
    if faults:
        sys.exit(f"{directory}: {faults}")
    return model


def make(kind, directory):
    torch.manual_seed(5)
    keys = make_golden.CONFIGS["yarn" if kind == "bf16" else "gqa7"]
    model = make_golden.make_model({**keys, "vocab_size": 331, "tie_word_embeddings": kind == "bf16"})
    if kind == "bf16":
        model = model.bfloat16()
    model.save_pretrained(directory, max_shard_size=40_000 if kind == "sharded" else 10**9)


def results(directory, out):
    model = load(directory)
    torch.manual_seed(6)
    ids = make_golden.make_ids(model.config.vocab_size, 45, False)
    z, loss, grads = make_golden.gradients(model, ids[0])
    found = {"ids": ids.flatten(0, 1).float(), "logits": z.contiguous(), "loss": loss[None]}
    found["grad_norm"] = torch.stack([g.norm() for g in grads.values()]).norm()[None]
    found |= {"grad." + name: g for name, g in grads.items()}
    Path(out).mkdir(parents=True, exist_ok=True)
    save_file(found, Path(out) / "results.safetensors")
    print(f"loss {loss.item():.7f}, gradient norm {found['grad_norm'].item():.7f}, {len(grads)} tensors")


def tensors(directory):
    return {n: x for f in sorted(Path(directory).glob("*.safetensors")) for n, x in load_file(f).items()}


def meaning(directory):
    """The configuration without what does not change the model; yarn's defaults spelt out."""
    beside = ("architectures", "dtype", "transformers_version", "use_cache", "bos_token_id")
    c = Qwen3Config.from_pretrained(directory).to_dict()
    if c["rope_parameters"]["rope_type"] == "yarn":
        c["rope_parameters"] = {"beta_fast": 32.0, "beta_slow": 1.0, **c["rope_parameters"]}
    return {k: v for k, v in c.items() if k not in beside and not k.startswith("_")}


def same(a, b):
    x, y = tensors(a), tensors(b)
    if x.keys() != y.keys():
        sys.exit(f"only in one of {a}, {b}: {sorted(x.keys() ^ y.keys())}")
    for name in x:
        if x[name].dtype != y[name].dtype or not torch.equal(x[name], y[name]):
            sys.exit(f"{name} of {a} and {b} differ")
    p, q = meaning(a), meaning(b)
    if p != q:
        sys.exit(
            f"{a} and {b} differ: {[(k, p.get(k), q.get(k)) for k in p.keys() | q.keys() if p.get(k) != q.get(k)]}"
        )
    print(f"{len(x)} tensors")


def dress(directory):
    t = AutoTokenizer.from_pretrained(directory)
    t.chat_template = {"default": "{{ messages }}", "tool_use": "tool {{ messages }}"}
    t.save_pretrained(directory)
    GenerationConfig(eos_token_id=[2, 4], temperature=0.6, top_k=20, do_sample=True).save_pretrained(directory)


def dressed(a, b, text):
    x, y = AutoTokenizer.from_pretrained(a), AutoTokenizer.from_pretrained(b)
    words = Path(text).read_text()[:20000]
    if x.chat_template != y.chat_template or x.get_vocab() != y.get_vocab() or x(words) != y(words):
        sys.exit(f"the tokenizers of {a} and {b} differ")
    p, q = (GenerationConfig.from_pretrained(d).to_dict() for d in (a, b))
    if p != q or p["eos_token_id"] != [2, 4]:
        sys.exit(f"generation: {p} and {q}")


def greedy(directory, prompt, n):
    ids = torch.tensor([[int(i) for i in prompt.split(",")]])
    out = load(directory).eval().generate(ids, max_new_tokens=int(n), do_sample=False, eos_token_id=-1)
    print(",".join(str(i) for i in out[0, ids.shape[1] :].tolist()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"make": make, "results": results, "same": same, "dress": dress, "dressed": dressed, "greedy": greedy}[sys.argv[1]](*sys.argv[2:])
