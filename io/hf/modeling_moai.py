"""Qwen3 with hyper-connections: hc_mult residual streams, read, written and mixed token by token (arXiv 2512.24880; by
permutations 2601.05732).  Transformers 4.56 or later loads a directory with this file by trust_remote_code=True.
The coefficients are computed in float32 whatever the model's type."""

import itertools

import torch
from torch import nn
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3ForCausalLM, Qwen3Model, Qwen3RMSNorm


class MoaiConfig(Qwen3Config):
    model_type = "moai"  # hc_mult, hc_sinkhorn_iters, hc_eps, hc_mixing, hc_head are as config.json has them


class HyperConnection(nn.Module):
    def __init__(self, config):
        super().__init__()
        n = self.n = config.hc_mult
        self.iters, self.eps, self.norm_eps = config.hc_sinkhorn_iters, config.hc_eps, config.rms_norm_eps
        self.permutes = config.hc_mixing == "permutation"
        self.orders = list(itertools.permutations(range(n))) if self.permutes else []
        n_raw = 2 * n + (len(self.orders) if self.permutes else n * n)
        self.fn = nn.Parameter(torch.zeros(n_raw, n * config.hidden_size))
        self.base = nn.Parameter(torch.zeros(n_raw))
        self.scale = nn.Parameter(torch.zeros(3))

    def mixing(self, h):
        """(B, T, n, n): what stream i gives to stream j."""
        n = self.n
        if self.permutes:
            matrices = torch.zeros(len(self.orders), n, n, device=h.device)
            for k, order in enumerate(self.orders):
                for j, i in enumerate(order):
                    matrices[k, i, j] = 1
            return torch.einsum("btk,kij->btij", h.softmax(-1), matrices)
        comb = h.unflatten(-1, (n, n)).softmax(-1) + self.eps
        comb = comb / (comb.sum(-2, keepdim=True) + self.eps)
        for _ in range(self.iters - 1):
            comb = comb / (comb.sum(-1, keepdim=True) + self.eps)
            comb = comb / (comb.sum(-2, keepdim=True) + self.eps)
        return comb

    def forward(self, streams):
        """streams (B, T, n, H) to what the branch reads (B, T, H), and post and mixing for `merge`."""
        n, x = self.n, streams.flatten(2).float()
        raw = x @ self.fn.float().T * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.norm_eps)
        pre, post, mix = raw.split([n, n, raw.shape[-1] - 2 * n], -1)
        base, scale = self.base.float().split([n, n, raw.shape[-1] - 2 * n]), self.scale.float()
        pre = torch.sigmoid(scale[0] * pre + base[0]) + self.eps
        post = 2 * torch.sigmoid(scale[1] * post + base[1])
        read = (pre.unsqueeze(-1) * streams.float()).sum(2)
        return read.to(streams.dtype), post, self.mixing(scale[2] * mix + base[2])

    @staticmethod
    def merge(streams, branch, post, mixing):
        mixed = torch.einsum("btij,btih->btjh", mixing, streams.float())
        return (post.unsqueeze(-1) * branch.float().unsqueeze(2) + mixed).to(streams.dtype)


class MoaiDecoderLayer(Qwen3DecoderLayer):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.attn_hc, self.ffn_hc = HyperConnection(config), HyperConnection(config)
        self.begins = layer_idx == 0

    def forward(self, hidden_states, **more):
        x = hidden_states
        if self.begins:
            x = x.unsqueeze(2).expand(-1, -1, self.attn_hc.n, -1)
        u, post, mixing = self.attn_hc(x)
        x = self.attn_hc.merge(x, self.self_attn(hidden_states=self.input_layernorm(u), **more)[0], post, mixing)
        u, post, mixing = self.ffn_hc(x)
        return self.ffn_hc.merge(x, self.mlp(self.post_attention_layernorm(u)), post, mixing)


class HyperHead(nn.Module):
    """One stream of all, by coefficients."""

    def __init__(self, config):
        super().__init__()
        n = config.hc_mult
        self.eps, self.norm_eps = config.hc_eps, config.rms_norm_eps
        self.hc_fn = nn.Parameter(torch.zeros(n, n * config.hidden_size))
        self.hc_base = nn.Parameter(torch.zeros(n))
        self.hc_scale = nn.Parameter(torch.zeros(1))

    def forward(self, streams):
        x = streams.flatten(2).float()
        raw = x @ self.hc_fn.float().T * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.norm_eps)
        pre = torch.sigmoid(self.hc_scale.float() * raw + self.hc_base.float()) + self.eps
        return (pre.unsqueeze(-1) * streams.float()).sum(2).to(streams.dtype)


class MoaiNorm(Qwen3RMSNorm):
    head = [None]  # in a list: it is a module of the model's

    def forward(self, hidden_states):
        x = self.head[0](hidden_states) if self.head[0] else hidden_states.float().mean(2).to(hidden_states.dtype)
        return super().forward(x)


class MoaiModel(Qwen3Model):
    config_class = MoaiConfig

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList(MoaiDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = MoaiNorm(config.hidden_size, eps=config.rms_norm_eps)
        if config.hc_head:
            self.hc_head = HyperHead(config)
            self.norm.head = [self.hc_head]
        self.post_init()


class MoaiForCausalLM(Qwen3ForCausalLM):
    config_class = MoaiConfig
    _no_split_modules = ["MoaiDecoderLayer"]

    def __init__(self, config):
        super().__init__(config)
        self.model = MoaiModel(config)
        self.post_init()
