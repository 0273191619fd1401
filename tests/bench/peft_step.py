#!/usr/bin/env python3
"""A step of LoRA or QLoRA with Transformers and PEFT on a GPU, for comparison with `bench-step --lora_rank`.

    tests/bench/peft_step.py --model config.json [--quantization nf4] [--gradient_checkpointing] [--adapters fp32]
        [--seq_length 2048] [--batch_size 4] [--gradient_accumulation_steps 2] [--lora_rank 16] [--steps 8]

Random weights; Liger's kernels where it is installed; every layer compiled; adapters on all seven linear maps; fused AdamW.
Adapters are in fp32 under autocast, as PEFT makes them, or in bf16.  Prints tokens/s of the median step and PyTorch's peak."""

import argparse
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def use_liger():
    try:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3
    except ImportError:
        return "without Liger"
    apply_liger_kernel_to_qwen3()
    return "Liger"


def quantize(model):
    import bitsandbytes as bnb

    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name in NAMES:
                x = getattr(part, name, None)
                if x is None:
                    continue
                q = bnb.nn.Linear4bit(x.in_features, x.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
                q.weight = bnb.nn.Params4bit(x.weight.data.cpu(), requires_grad=False, quant_type="nf4", module=q)
                setattr(part, name, q.to("cuda"))
    model.is_loaded_in_4bit = True  # as from_pretrained marks it, for PEFT
    torch.cuda.empty_cache()


def make(a):
    config = AutoConfig.from_pretrained(a.model, attn_implementation="sdpa")
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if a.quantization:
        quantize(model)
    if a.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    lora = LoraConfig(r=a.lora_rank, lora_alpha=2 * a.lora_rank, target_modules=NAMES, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora, autocast_adapter_dtype=a.adapters == "fp32")
    for layer in model.base_model.model.model.layers:
        layer.compile()
    return model.train(), config


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True)
    p.add_argument("--quantization", choices=["nf4"])
    p.add_argument("--gradient_checkpointing", action="store_true")
    p.add_argument("--adapters", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--seq_length", type=int, default=2048)
    p.add_argument("--batch_size", type=int, default=4)
    p.add_argument("--gradient_accumulation_steps", type=int, default=2)
    p.add_argument("--lora_rank", type=int, default=16)
    p.add_argument("--steps", type=int, default=8)
    a = p.parse_args()
    torch.manual_seed(1)
    liger = use_liger()
    model, config = make(a)
    optimizer = torch.optim.AdamW([x for x in model.parameters() if x.requires_grad], lr=1e-4, fused=True)
    ids = torch.randint(1, config.vocab_size, (a.gradient_accumulation_steps, a.batch_size, a.seq_length), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for step in range(-3, a.steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for x in ids:
            with torch.autocast("cuda", torch.bfloat16, enabled=a.adapters == "fp32"):
                loss = model(input_ids=x, labels=x, use_cache=False).loss / len(ids)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if step >= 0:
            seconds.append(time.perf_counter() - begin)
    print(f"PEFT, {liger}, adapters in {a.adapters}, base in {a.quantization or 'bf16'}"
          f"{', checkpointing' if a.gradient_checkpointing else ''}, {torch.cuda.get_device_name()}: "
          f"{ids.numel() / statistics.median(seconds):.0f} tokens/s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, "
          f"loss {len(ids) * loss.item():.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
