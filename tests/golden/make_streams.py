#!/usr/bin/env python3
"""Golden models with hyper-connections for tests/t2-golden.c: Transformers' Qwen3 with DeepSeek V4's residual streams.

    tests/golden/make_streams.py [NAME...]   writes tests/golden/NAME/ for every configuration below, then checks
    tests/golden/make_streams.py --check     writes nothing: holds the committed files against reference.py (float64)

A directory is one of make_golden.py's, and adam_eps (1) says that AdamW's eps is another: the first layer's streams are
alike, which leaves most gradients of its base zero but for rounding.  Of permutations Transformers has none: they are here.
"""

import itertools
import sys

import make_golden as golden
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection, DeepseekV4HyperHead

golden.ADAMW["eps"] = ADAM_EPS = 1e-4
DEFAULT = dict(rope_type="default", rope_theta=1e4)
# few iterations, so that their order shows
golden.CONFIGS = {
    "streams": golden.qwen3(2, 24, 40, 4, 2, 8, 61, 64, DEFAULT, hc_mult=4, hc_sinkhorn_iters=3, hc_eps=1e-6,
                            hc_head=True),
    "streams-lite": golden.qwen3(2, 24, 32, 6, 2, 8, 53, 64, DEFAULT, hc_mult=3, hc_mixing="permutation", hc_eps=1e-6),
}
golden.SEQ_LEN = {"streams": 29, "streams-lite": 23}


class Permutations(DeepseekV4HyperConnection):
    """mHC-lite: a convex combination of all permutation matrices, in lexicographic order."""

    def __init__(self, config):
        super().__init__(config)
        n = self.hc_mult
        self.orders = list(itertools.permutations(range(n)))
        self.fn = nn.Parameter(torch.empty(2 * n + len(self.orders), n * config.hidden_size))
        self.base = nn.Parameter(torch.empty(2 * n + len(self.orders)))

    def forward(self, streams):
        n = self.hc_mult
        z = nn.functional.linear(self.input_norm(streams.flatten(2).float()), self.fn.float())
        h = z * self.scale.float().repeat_interleave(torch.tensor([n, n, len(self.orders)])) + self.base.float()
        pre, post = torch.sigmoid(h[..., :n]) + self.hc_eps, 2 * torch.sigmoid(h[..., n : 2 * n])
        share = h[..., 2 * n :].softmax(-1)
        comb = torch.zeros(*streams.shape[:2], n, n)
        for k, order in enumerate(self.orders):
            matrix = torch.zeros(n, n)
            for j, i in enumerate(order):
                matrix[i, j] = 1  # stream i goes to stream j
            comb = comb + share[..., k, None, None] * matrix
        return post, comb, (pre.unsqueeze(-1) * streams).sum(2).to(streams.dtype)


class Layer(nn.Module):
    """A decoder layer of Qwen3 whose two residuals are streams (B, T, n, H)."""

    def __init__(self, layer, config, is_first):
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
        kind = Permutations if getattr(config, "hc_mixing", "sinkhorn") == "permutation" else DeepseekV4HyperConnection
        self.attn_hc, self.ffn_hc = kind(config), kind(config)
        self.is_first, self.n = is_first, config.hc_mult

    @staticmethod
    def merge(post, comb, y, streams):
        mixed = torch.matmul(comb.to(streams.dtype).transpose(-1, -2), streams)
        return post.to(streams.dtype).unsqueeze(-1) * y.unsqueeze(-2) + mixed

    def forward(self, x, **more):
        if self.is_first:
            x = x.unsqueeze(2).expand(-1, -1, self.n, -1).contiguous()
        post, comb, u = self.attn_hc(x)
        x = self.merge(post, comb, self.self_attn(hidden_states=self.input_layernorm(u), **more)[0], x)
        post, comb, u = self.ffn_hc(x)
        return self.merge(post, comb, self.mlp(self.post_attention_layernorm(u)), x)


class Joined(nn.Module):
    """The final norm of the streams' mean, or of what a learned head reads of them."""

    def __init__(self, norm, head):
        super().__init__()
        self.weight, self.eps, self.head = norm.weight, norm.variance_epsilon, [head]

    def forward(self, x):
        x = self.head[0](x) if self.head[0] else x.mean(2)
        y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


plain_build = golden.build


def build(config):
    for key, value in dict(hc_sinkhorn_iters=20, hc_mixing="sinkhorn", hc_head=False).items():
        if not hasattr(config, key):
            setattr(config, key, value)
    model = plain_build(config)
    layers = model.model.layers
    for i in range(len(layers)):
        layers[i] = Layer(layers[i], config, i == 0)
    if config.hc_head:
        model.model.hc_head = DeepseekV4HyperHead(config)
    model.model.norm = Joined(model.model.norm, model.model.hc_head if config.hc_head else None)
    return model


golden.build = build


def finish(name):
    """adam_eps among the results."""
    path = golden.HERE / name / "results.safetensors"
    save_file(load_file(path) | {"adam_eps": torch.tensor([ADAM_EPS])}, path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    golden.MIN_GRADIENT = 0
    if sys.argv[1:] != ["--check"]:
        for config_name in [n for n in golden.CONFIGS if n in sys.argv[1:]] or golden.CONFIGS:
            golden.write_golden(config_name)
            finish(config_name)
    sys.exit(0 if all([golden.check_golden(config_name) for config_name in golden.CONFIGS]) else 1)
