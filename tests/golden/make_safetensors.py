#!/usr/bin/env python3
"""Files as huggingface/safetensors writes them, for tests/t8-safetensors.c.  Needs torch and safetensors.

halves.safetensors  x (F32), what torch makes of it in BF16 and F16, and a vector
others.safetensors  types and shapes that MOAI lists but does not read
"""
import os

import torch
from safetensors.torch import save_file

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "safetensors")
special = [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 65504.0, 65519.0, 65520.0, 3.4e38, -3.4e38, 1e-8, 6e-8,
           -1e-40, float("inf"), float("-inf")]   # no NaN: its bits are torch's own affair
x = torch.randn(16, 33, generator=torch.Generator().manual_seed(1)) * torch.logspace(-9, 9, 16)[:, None]
x[0, : len(special)] = torch.tensor(special)
save_file({"x": x, "x.bf16": x.bfloat16(), "x.f16": x.half(), "vector": torch.arange(7.0)},
          os.path.join(here, "halves.safetensors"), metadata={"format": "pt"})
save_file({"i64": torch.arange(6).reshape(2, 3), "flags": torch.tensor([True, False]), "f64": torch.zeros(2, 2, dtype=torch.float64),
           "cube": torch.zeros(2, 3, 4), "scalar": torch.tensor(2.0), "empty": torch.zeros(0, 5), "deep": torch.zeros(1, 1, 1, 1, 1, 2),
           "matrix": torch.arange(6.0).reshape(2, 3)}, os.path.join(here, "others.safetensors"))
