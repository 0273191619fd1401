#!/usr/bin/env python3
"""Golden files for tests/t1-nf4.c and tests/t8-adapter.sh: matrices quantized by bitsandbytes on the CPU.

    tests/golden/make_nf4.py        writes tests/golden/nf4/NAME.safetensors, and tests/golden/blocks-nf4 and
                                    blocks-nf4-plain: the model of blocks as Transformers saves it in 4 bits, with
                                    and without double quantization

Each of the first holds, as floats, because the product's reader knows floating types only:
    x (out, in)                  the matrix
    codes (1, out*in/2)          bitsandbytes' packed bytes
    absmax (1, out*in/64)
    nested_codes, nested_absmax, offset    of double quantization (compress_statistics)
    y (out, in)                  dequantized with these, fp32;  plain (out, in): without double quantization
    values (1, 256)              of the 8-bit codes
"""

import shutil
from pathlib import Path

import torch
from bitsandbytes import functional as F
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, Qwen3ForCausalLM

HERE = Path(__file__).parent / "nf4"


def write(name, x):
    codes, plain = F.quantize_4bit(x, quant_type="nf4", compress_statistics=False)
    again, state = F.quantize_4bit(x, quant_type="nf4", compress_statistics=True)
    assert torch.equal(codes, again)
    out = {
        "x": x,
        "codes": codes,
        "absmax": plain.absmax,
        "nested_codes": state.absmax,
        "nested_absmax": state.state2.absmax,
        "offset": state.offset,
        "y": F.dequantize_4bit(codes, state),
        "plain": F.dequantize_4bit(codes, plain),
        "values": state.state2.code,
    }
    for k, v in out.items():
        out[k] = v.float().contiguous() if v.ndim == 2 and v.shape[1] > 1 else v.float().reshape(1, -1).contiguous()
    save_file(out, HERE / f"{name}.safetensors")
    print(name, tuple(x.shape))


def write_model(name, nested):
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested,
                             bnb_4bit_compute_dtype=torch.float32)  # fmt: skip
    out = HERE.parent / name
    model = Qwen3ForCausalLM.from_pretrained(HERE.parent / "blocks", quantization_config=how, dtype=torch.float32,
                                             device_map="cpu")  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / "generation_config.json").unlink()
    print(name)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(3)
    torch.set_num_threads(1)
    write("normal", torch.randn(96, 192) * 0.02)
    x = torch.randn(40, 128) * torch.logspace(-6, 3, 40).unsqueeze(1)  # blocks of very different size
    x[3] = 0  # blocks of zeros
    x[7, 64:] = 0.25  # of one number
    x[9, :64] *= -1e-30
    write("uneven", x)
    write("bf16", (torch.randn(64, 320) * 0.05).bfloat16().float())
    write_model("blocks-nf4", True)
    write_model("blocks-nf4-plain", False)
