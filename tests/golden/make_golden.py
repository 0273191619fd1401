#!/usr/bin/env python3
"""Golden files for tests/t2-golden.c: PyTorch and Transformers' Qwen3ForCausalLM, fp32, eager attention, one thread.

    tests/golden/make_golden.py [NAME...]  writes tests/golden/NAME/ for every configuration below, then checks
    tests/golden/make_golden.py --check    writes nothing: holds the committed files against reference.py (float64)

A directory holds what `save_pretrained` writes (config.json, model.safetensors, in one case sharded), config-4x.json
(the same model as Transformers 4 spells it) and results.safetensors:
    ids (3*B, T+1)             three batches; as floats, because the product's reader knows floating types only
    logits (B*T, V)            of the first batch
    loss (1)                   its mean cross-entropy over B*T targets
    grad.NAME, grad_norm (1)   d loss / d NAME; the norm over all parameters, a tied one once
    losses, grad_norms (3)     three AdamW steps with clipping, one batch each;
    after.NAME                 the weights they lead to
    bf16.loss (1)              the bfloat16 model's loss on the first batch
    bf16.NAME (1)              its ||gradient - fp32 gradient|| / ||fp32 gradient||
Weights are rounded to bfloat16 first, so that both precisions start from the same numbers.
"""

import copy
import itertools
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

import reference

HERE = Path(__file__).parent
B, STEPS = 2, 3
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
DECAY, MAX_NORM = 0.1, 1.0
MIN_GRADIENT = 7e-7  # of the elements that are not exactly zero; the typical one is 2e-2


def qwen3(layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, positions, rope, **more):
    return dict(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads,
                num_key_value_heads=kv_heads, head_dim=head_dim, vocab_size=vocab, max_position_embeddings=positions,
                rope_parameters=rope, **more)  # fmt: skip


# fmt: off
CONFIGS = {  #       layers  H   I   q  kv  D    V  positions
    # 7:1 grouped queries, 14 * 8 != 40; no pad id, so that id 0 is a word like others
    "gqa7":    qwen3(2,     40, 56, 14, 2, 8,  67, 64, dict(rope_type="default", rope_theta=1e6), pad_token_id=None),
    "tied":    qwen3(3,     32, 48, 4,  4, 8, 101, 64, dict(rope_type="default", rope_theta=1e4),
                     tie_word_embeddings=True),
    "linear":  qwen3(2,     48, 40, 6,  3, 16, 64, 64, dict(rope_type="linear", rope_theta=1e4, factor=4.0)),
    # the original length is max_position_embeddings: 53 positions stretch it 3.3 times
    "dynamic": qwen3(2,     32, 64, 8,  2, 16, 71, 16, dict(rope_type="dynamic", rope_theta=1e3, factor=2.0)),
    # 59 positions on an original 24; of 16 frequencies 1 to 3 lie on the ramp between extrapolation and interpolation
    "yarn":    qwen3(2,     32, 48, 4,  1, 32, 83, 96, dict(rope_type="yarn", rope_theta=1e3, factor=4.0,
                                                            beta_fast=32.0, beta_slow=1.0,
                                                            original_max_position_embeddings=24)),
    # rows and columns of whole 4-bit blocks, on two ranks too (make_lora.py)
    "blocks":  qwen3(2,     64, 128, 8, 4, 16, 53, 64, dict(rope_type="default", rope_theta=1e4)),
    # more positions than a tile of attention, more tokens than a chunk of the head
    "long":    qwen3(2,     24, 32, 4,  2, 8,  37, 521, dict(rope_type="default", rope_theta=1e6)),
}
# fmt: on
SEQ_LEN = {"blocks": 31, "gqa7": 37, "tied": 33, "linear": 41, "dynamic": 53, "yarn": 59, "long": 521}
SHARD_BYTES = {"linear": 60_000}  # of a sharded model.safetensors
STORED_AS_BF16 = ("tied", "dynamic", "yarn")


def build(cfg):
    return Qwen3ForCausalLM._from_config(cfg, attn_implementation="eager", dtype=torch.float32).train()


def make_model(keys):
    model = build(Qwen3Config(**{"pad_token_id": 0, "eos_token_id": 1, "rms_norm_eps": 1e-6, **copy.deepcopy(keys)}))
    with torch.no_grad():
        for x in model.parameters():  # larger than at initialization: every term must show in the logits
            x.copy_(torch.randn_like(x) * (0.3 if x.ndim == 1 else 1.6 * x.shape[1] ** -0.5) + (x.ndim == 1))
            x.copy_(x.bfloat16().float())
    return model


def make_ids(vocab_size, seq_len, with_zero):
    """Skewed ids: some rows of the embedding are met often, some never; 0 only where it is not the pad id, whose
    gradient PyTorch's embedding drops."""
    p = 1.0 / torch.arange(1, vocab_size + 1, dtype=torch.float64)
    p[0] = p[3] if with_zero else 0.0
    return torch.multinomial(p, STEPS * B * (seq_len + 1), replacement=True).view(STEPS, B, seq_len + 1)


def mean_loss(model, ids):
    z = model(input_ids=ids[:, :-1], use_cache=False).logits
    return z, torch.nn.functional.cross_entropy(z.flatten(0, 1).float(), ids[:, 1:].flatten())


def gradients(model, ids):
    model.zero_grad(set_to_none=True)
    z, loss = mean_loss(model, ids)
    loss.backward()
    return z.detach().flatten(0, 1), loss.detach(), {n: x.grad.clone() for n, x in model.named_parameters()}


def train(model, batches):
    matrices = [x for x in model.parameters() if x.ndim == 2]
    vectors = [x for x in model.parameters() if x.ndim == 1]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=DECAY), dict(params=vectors, weight_decay=0.0)], foreach=False, **ADAMW
    )
    losses, norms = [], []
    for ids in batches:
        _, loss, _ = gradients(model, ids)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM))
        losses.append(loss)
        optimizer.step()
    return torch.stack(losses), torch.stack(norms)


def as_transformers_4(keys):
    rope = dict(keys["rope_parameters"])
    out = {k: v for k, v in keys.items() if k not in ("rope_parameters", "dtype")}
    out["rope_theta"] = rope.pop("rope_theta")
    out["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    out["torch_dtype"], out["transformers_version"] = keys["dtype"], "4.51.3"
    return dict(sorted(out.items()))


def write_golden(name):
    keys, out = CONFIGS[name], HERE / name
    for seed in itertools.count(1):
        torch.manual_seed(seed)
        model = make_model(keys)
        batches = make_ids(keys["vocab_size"], SEQ_LEN[name], model.config.pad_token_id is None)
        z, loss, grads = gradients(model, batches[0])
        # Adam's first step is g / |g|: an element that is zero but for rounding would step at random
        if min(g[g != 0].abs().min() for g in grads.values()) > MIN_GRADIENT:
            break
    print(name, "seed", seed)
    shutil.rmtree(out, ignore_errors=True)
    stored = copy.deepcopy(model).bfloat16() if name in STORED_AS_BF16 else model
    stored.save_pretrained(out, max_shard_size=SHARD_BYTES.get(name, 10**9))
    (out / "generation_config.json").unlink()
    config = json.loads((out / "config.json").read_text())
    (out / "config-4x.json").write_text(json.dumps(as_transformers_4(config), indent=2) + "\n")
    again = build(Qwen3Config.from_json_file(out / "config-4x.json"))
    again.load_state_dict(model.state_dict())
    assert torch.equal(gradients(again, batches[0])[0], z), "both spellings must mean the same model"

    _, bf16_loss, bf16_grads = gradients(copy.deepcopy(model).bfloat16(), batches[0])
    results = {
        "ids": batches.flatten(0, 1).float(),
        "logits": z,
        "loss": loss[None],
        "bf16.loss": bf16_loss.float()[None],
    }
    results["grad_norm"] = torch.stack([g.norm() for g in grads.values()]).norm()[None]
    for n, g in grads.items():
        results["grad." + n] = g
        results["bf16." + n] = ((bf16_grads[n].float() - g).norm() / g.norm())[None]
    results["losses"], results["grad_norms"] = train(model, batches)
    results |= {"after." + n: x.detach() for n, x in model.named_parameters()}
    save_file({n: x.contiguous() for n, x in results.items()}, out / "results.safetensors")


def difference(a, b):
    return ((a.double() - b).norm() / b.norm()).item()


def check_golden(name):
    """Transformers' fp32 numbers against the float64 model; False when farther apart than rounding explains."""
    out = HERE / name
    cfg, got = json.loads((out / "config.json").read_text()), load_file(out / "results.safetensors")
    weights = {n: x.double() for f in out.glob("model*.safetensors") for n, x in load_file(f).items()}
    ids = got["ids"].long().view(STEPS, B, -1)
    z = reference.logits(cfg, weights, ids[0, :, :-1]).flatten(0, 1)
    losses, norms, grads = reference.train(cfg, weights, ids, decay=DECAY, max_norm=MAX_NORM, **ADAMW)
    worst = {
        "logits (absolute)": ((got["logits"].double() - z).abs().max().item(), 2e-5),
        "losses": (max(abs(a / b - 1) for a, b in zip(got["losses"].tolist(), losses)), 2e-6),
        "gradient norms": (max(abs(a / b - 1) for a, b in zip(got["grad_norms"].tolist(), norms)), 2e-5),
        "gradients": (max(difference(got["grad." + n], g) for n, g in grads.items()), 2e-5),
        "weights after 3 steps": (max(difference(got["after." + n], x.detach()) for n, x in weights.items()), 1e-6),
        "bf16 loss": (abs(got["bf16.loss"].item() / losses[0] - 1), 1e-2),
    }
    norm0 = got["grad_norm"].item()
    fine = all(a <= limit for a, limit in worst.values()) and abs(norm0 / norms[0] - 1) < 2e-5
    print(
        f"{'ok' if fine else 'not ok'} - {name}: loss {losses[0]:.6f}, gradient norm {norm0:.4f};  against float64: "
        + ", ".join(f"{what} {a:.1e}" for what, (a, _) in worst.items())
    )
    return fine


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if sys.argv[1:] != ["--check"]:
        for config_name in [n for n in CONFIGS if n in sys.argv[1:]] or CONFIGS:
            write_golden(config_name)
    sys.exit(0 if all([check_golden(config_name) for config_name in CONFIGS]) else 1)
