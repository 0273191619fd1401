#!/usr/bin/env python3
"""The training step of `make bench` in plain PyTorch on the CPU, for comparison: forward, backward and AdamW.

    tests/bench/torch_step.py [--model config.json] [--seq_length 1024] [--batch 1] [--threads 2] [--steps 5]

Tries what makes PyTorch fast (eager and torch.compile; bf16 as parameters and as autocast; fused AdamW; its own flash
attention) and prints for each the best step: seconds, tokens/s and model GFLOP/s by the formula of the training log:
6 * (weights of the products) + 6 * layers * heads * head_dim * T per token, causal attention counted half.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.nn import functional as F

SHAPE = dict(
    num_hidden_layers=8,
    hidden_size=1024,
    intermediate_size=2816,
    num_attention_heads=14,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=32000,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
)


def norm(n):
    return nn.RMSNorm(n, eps=1e-6)


def linear(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, i, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
        self.d, self.q, self.k = d, c["num_attention_heads"] * d, c["num_key_value_heads"] * d
        self.norm1, self.norm2, self.q_norm, self.k_norm = norm(h), norm(h), norm(d), norm(d)
        self.wqkv, self.wo = linear(h, self.q + 2 * self.k), linear(self.q, h)
        self.wgate_up, self.wdown = linear(h, 2 * i), linear(i, h)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = self.wqkv(self.norm1(x)).split((self.q, self.k, self.k), -1)
        q = rotate(self.q_norm(q.view(b, t, -1, self.d)).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(k.view(b, t, -1, self.d)).transpose(1, 2), cos, sin)
        v = v.view(b, t, -1, self.d).transpose(1, 2)
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast norms in fp32
        att = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.wo(att.transpose(1, 2).reshape(b, t, -1))
        gate, up = self.wgate_up(self.norm2(x)).chunk(2, -1)
        return x + self.wdown(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.d = c["head_dim"]
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm, self.head = norm(c["hidden_size"]), linear(c["hidden_size"], c["vocab_size"])
        for x in self.parameters():
            if x.ndim == 2:
                nn.init.normal_(x, std=0.02)

    def forward(self, ids):
        x = self.embed(ids[:, :-1])
        freq = 1e6 ** (-torch.arange(0, self.d, 2, dtype=torch.float32) / self.d)
        angle = torch.arange(x.shape[1], dtype=torch.float32)[:, None] * freq
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), ids[:, 1:].flatten())


def flops_per_token(c, seq_len):
    h, d = c["hidden_size"], c["head_dim"]
    q, k = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    products = c["num_hidden_layers"] * h * (2 * q + 2 * k + 3 * c["intermediate_size"]) + h * c["vocab_size"]
    return 6 * products + 6 * c["num_hidden_layers"] * q * seq_len


def best_step(c, ids, dtype, autocast, compiled, steps):
    """Seconds of the fastest of `steps` training steps, after two that warm up (and compile)."""
    torch.manual_seed(1)
    model = Model(c).to(dtype)
    matrices = [x for x in model.parameters() if x.ndim == 2]
    vectors = [x for x in model.parameters() if x.ndim == 1]
    groups = [dict(params=matrices, weight_decay=0.1), dict(params=vectors, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward, best = torch.compile(model) if compiled else model, float("inf")
    for step in range(-2, steps):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = forward(ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= 0:
            best = min(best, time.perf_counter() - begin)
    return best, loss.item()


VARIANTS = {  # name: (dtype of the parameters, autocast to bf16)
    "fp32": (torch.float32, False),
    "bf16 parameters": (torch.bfloat16, False),
    "bf16 autocast": (torch.float32, True),
}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="a config.json; without it " + json.dumps(SHAPE))
    p.add_argument("--seq_length", type=int, default=1024)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--only", choices=VARIANTS, help="one variant")
    a = p.parse_args()
    c = json.load(open(a.model)) if a.model else SHAPE
    torch.set_num_threads(a.threads)
    ids = torch.randint(1, c["vocab_size"], (a.batch, a.seq_length + 1), generator=torch.Generator().manual_seed(1))
    n_tokens, flops = a.batch * a.seq_length, flops_per_token(c, a.seq_length)
    print(f"PyTorch {torch.__version__}, {a.threads} threads, {a.batch} x {a.seq_length} tokens, "
          f"{flops / 1e9:.3f} GFLOP/token; best of {a.steps} steps")  # fmt: skip
    for name, (dtype, autocast) in VARIANTS.items():
        for compiled in (False, True):
            if a.only in (None, name):
                seconds, loss = best_step(c, ids, dtype, autocast, compiled, a.steps)
                rate = n_tokens / seconds
                print(f"{name:16} {'compiled' if compiled else 'eager':9} {seconds:7.3f} s  {rate:8.1f} tokens/s  "
                      f"{flops * rate / 1e9:7.1f} GFLOP/s  (loss {loss:.3f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
