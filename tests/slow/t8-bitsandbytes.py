"""See t8-bitsandbytes.sh.  Arguments: a model exported as it is, the same in 4 bits, logits of ours beside it (fp32) of the ids,
a base, its adapters in PEFT's files as exported, logits of ours beside these, the ids."""

import json
import sys

import bitsandbytes
import numpy
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

plain, quantized, logits, base, adapters, adapted = sys.argv[1:7]
ids = torch.tensor([[int(x) for x in sys.argv[7].split(",")]])


def check(well, what):
    print(f"{'ok' if well else 'not ok'} - {what}")


def state_of(tensor):
    return json.loads(bytes(tensor.tolist()))


theirs, ours, wrong, offset = load_file(plain + "/model.safetensors"), load_file(quantized + "/model.safetensors"), [], 0
for name, x in theirs.items():
    if not (name.startswith("model.layers.") and name.endswith("_proj.weight")):
        wrong += [] if torch.equal(x, ours[name]) else [name]
        continue
    codes, state = bitsandbytes.functional.quantize_4bit(x.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    made = {name: codes, **{f"{name}.{k}": v for k, v in state.as_dict(packed=True).items()}}
    for key, value in made.items():
        if "quant_state" not in key:
            wrong += [] if torch.equal(value.flatten(), ours[key].flatten()) else [key]
            continue
        a, b = state_of(value), state_of(ours[key])
        offset = max(offset, abs(a.pop("nested_offset") - b.pop("nested_offset")))
        wrong += [] if a == b else [key]
check(not wrong, f"every byte is bitsandbytes', but for {wrong[:3]}")
check(offset <= 2e-7, f"the mean of the scales within 2e-7: {offset:.1e}")


def apart(model, path):
    mine = numpy.fromfile(path, dtype=numpy.float32)
    there = model(ids).logits[0].detach().float().numpy().ravel()
    return numpy.abs(mine - there).max(), numpy.abs(there).max()


model = AutoModelForCausalLM.from_pretrained(quantized, dtype=torch.float32)
kind = type(model.model.layers[0].self_attn.q_proj).__name__
far, most = apart(model, logits)
check(kind == "Linear4bit" and far < 1e-4, f"Transformers loads it ({kind}), its logits are ours: {far:.1e} apart of {most:.1f}")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapters)
far, most = apart(model, adapted)
check(far < 1e-4, f"PEFT loads our adapters, its logits are ours: {far:.1e} apart of {most:.1f}")
