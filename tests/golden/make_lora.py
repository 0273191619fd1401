#!/usr/bin/env python3
"""Golden adapters for tests/t2-golden.c: PEFT's LoRA on the golden models of make_golden.py, fp32, one thread.

    tests/golden/make_lora.py [NAME...]    writes tests/golden/NAME/ for every adapter below

A directory holds what PEFT's `save_pretrained` writes (adapter_config.json, which names the base, and
adapter_model.safetensors) and results.safetensors, as make_golden.py has it, of what is trained alone.
"""

import itertools
import shutil
import sys

import make_golden as golden
import torch
from bitsandbytes import functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen3ForCausalLM

# fmt: off
ADAPTERS = {
    "lora-all":  ("gqa7",   dict(r=4, lora_alpha=6, target_modules="all-linear")),
    # some maps of a fused product, an odd rank, the other scale, and whole matrices beside the adapters
    "lora-some": ("linear", dict(r=3, lora_alpha=2, use_rslora=True, target_modules=["q_proj", "v_proj", "up_proj"],
                                 modules_to_save=["embed_tokens", "lm_head"])),
    # the base in NF4 with double quantization, as bitsandbytes gives it back
    "qlora-all": ("blocks", dict(r=8, lora_alpha=16, target_modules="all-linear")),
}
# fmt: on


def plain(name):
    for cut in ("base_model.model.", ".default", ".modules_to_save"):
        name = name.replace(cut, "")
    return name


def trained(model):
    return {plain(n): x for n, x in model.named_parameters() if x.requires_grad}


def gradients(model, ids):
    model.zero_grad(set_to_none=True)
    z, loss = golden.mean_loss(model, ids)
    loss.backward()
    return z.detach().flatten(0, 1), loss.detach(), {n: x.grad.clone() for n, x in trained(model).items()}


def train(model, batches):
    weights = list(trained(model).values())
    optimizer = torch.optim.AdamW(weights, weight_decay=golden.DECAY, foreach=False, **golden.ADAMW)
    losses, norms = [], []
    for ids in batches:
        losses.append(gradients(model, ids)[1])
        norms.append(torch.nn.utils.clip_grad_norm_(weights, golden.MAX_NORM))
        optimizer.step()
    return torch.stack(losses), torch.stack(norms)


def quantize(model):
    for n, m in model.named_modules():
        if isinstance(m, torch.nn.Linear) and n != "lm_head":
            codes, state = F.quantize_4bit(m.weight.data, quant_type="nf4", compress_statistics=True)
            m.weight.data = F.dequantize_4bit(codes, state)


def adapted(name, base, keys, seed):
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32).train()
    if name.startswith("qlora"):
        quantize(model)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **keys))
    with torch.no_grad():
        for n, x in trained(model).items():
            if "lora_B" in n:  # zero at the start, and with it the gradient of A
                x.copy_(torch.randn_like(x) * 0.3)
    return model


def write(name):
    base_name, keys = ADAPTERS[name]
    base, out = golden.HERE / base_name, golden.HERE / name
    batches = load_file(base / "results.safetensors")["ids"].long().view(golden.STEPS, golden.B, -1)
    for seed in itertools.count(7):
        model = adapted(name, base, keys, seed)
        z, loss, grads = gradients(model, batches[0])
        # as in make_golden.py: Adam's first step is g / |g|
        if min(g[g != 0].abs().min() for g in grads.values()) > golden.MIN_GRADIENT:
            break
    shutil.rmtree(out, ignore_errors=True)
    model.base_model.model.name_or_path = ""
    model.peft_config["default"].base_model_name_or_path = f"tests/golden/{base_name}"
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    results = {"ids": batches.flatten(0, 1).float(), "logits": z, "loss": loss[None]}
    results["grad_norm"] = torch.stack([g.norm() for g in grads.values()]).norm()[None]
    results |= {"grad." + n: g for n, g in grads.items()}
    results["losses"], results["grad_norms"] = train(model, batches)
    results |= {"after." + n: x.detach() for n, x in trained(model).items()}
    save_file({n: x.contiguous() for n, x in results.items()}, out / "results.safetensors")
    print(name, "seed", seed, "loss", loss.item(), "gradient norm", results["grad_norm"].item(), len(grads), "tensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for adapter_name in sys.argv[1:] or ADAPTERS:
        write(adapter_name)
    sys.exit(0)
