#!/usr/bin/env python3
"""PyTorch's side of t9-torch.sh.

torch_run.py curve HF_DIR CORPUS RUN DEVICE     trains Transformers' model from HF_DIR in bf16 autocast with fp32 weights on the
                                                samples, in the order and at the learning rates of RUN/metrics.jsonl, and
                                                holds every loss against the run's
torch_run.py logits HF_DIR IDS FP32 BF16 DEVICE holds two files of logits (moai_generate --logits_out) of the IDS against
                                                Transformers': fp32, and bf16 by what PyTorch's own bf16 model is off
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.nn import functional as F
from transformers import Qwen3ForCausalLM

WORST_LOSS = 0.01  # relative, at any step
WORST_FP32 = 1e-4  # of the largest logit
WORST_BF16 = 1.5  # times the error of PyTorch's bf16 model


def load(directory, device, dtype):
    return Qwen3ForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa").to(device)


def train_tokens(corpus):
    """The training split as one array: its shards, one after another."""
    shards = json.loads((Path(corpus) / "manifest.json").read_text())["splits"]["train"]
    return np.concatenate([h5py.File(Path(corpus) / s["file"])["tokens"][:].astype(np.int64) for s in shards])


def groups(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def curve(directory, corpus, run, device):
    steps = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    steps = [s for s in steps if "sample_numbers" in s]
    tokens, length = train_tokens(corpus), 128
    model = load(directory, device, torch.float32).train()
    adamw = torch.optim.AdamW(groups(model), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
    apart = []
    for s in steps:
        samples = [tokens[i * length : i * length + length + 1] for i in s["sample_numbers"]]
        ids = torch.from_numpy(np.stack(samples)).to(device)
        for group in adamw.param_groups:
            group["lr"] = s["lr"]
        with torch.autocast(device, dtype=torch.bfloat16):
            z = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(z.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        apart.append((abs(s["loss"] - loss.item()) / loss.item(), s["step"], s["loss"], loss.item()))
    worst, at, ours, theirs = max(apart)
    print(
        f"{len(steps)} steps, loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}; farthest apart at step {at}: "
        f"{ours:.5f}, PyTorch {theirs:.5f}, {100 * worst:.3f} %"
    )
    return len(steps) == 50 and worst <= WORST_LOSS and steps[-1]["loss"] < steps[0]["loss"] - 0.5


def logits(directory, ids, fp32, bf16, device):
    prompt = torch.tensor([[int(i) for i in ids.split(",")]], device=device)
    with torch.no_grad():
        truth = load(directory, device, torch.float32)(input_ids=prompt).logits[0].double().cpu()
        theirs = load(directory, device, torch.bfloat16)(input_ids=prompt).logits[0].double().cpu()
    ours = [torch.from_numpy(np.fromfile(f, np.float32)).reshape(truth.shape).double() for f in (fp32, bf16)]
    apart = ((ours[0] - truth).abs().max() / truth.abs().max()).item()
    ratio = ((ours[1] - truth).norm() / (theirs - truth).norm()).item()
    print(f"fp32 within {apart:.1e} of the largest logit; bf16 off by {ratio:.2f} of what PyTorch's bf16 is off")
    return apart <= WORST_FP32 and ratio <= WORST_BF16


if __name__ == "__main__":
    sys.exit(0 if {"curve": curve, "logits": logits}[sys.argv[1]](*sys.argv[2:]) else 1)
