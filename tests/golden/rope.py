#!/usr/bin/env python3
"""Writes tests/golden/rope.h: cos and sin of Transformers' Qwen3RotaryEmbedding for each scaling.

Needs torch and transformers 5:  python3 tests/golden/rope.py > tests/golden/rope.h
"""
import torch
import transformers
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

HEAD_DIM = 16
MAX_POSITIONS = 64
# name, kind of model_config.h, number of positions, rope_parameters, max_position_embeddings
CASES = [
    ("default", "ROPE_DEFAULT", 64, dict(rope_type="default", rope_theta=1e6), 64),
    ("default, base 1e4", "ROPE_DEFAULT", 64, dict(rope_type="default", rope_theta=1e4), 64),
    ("linear", "ROPE_LINEAR", 64, dict(rope_type="linear", rope_theta=1e6, factor=4.0), 64),
    ("dynamic, within", "ROPE_DYNAMIC", 60, dict(rope_type="dynamic", rope_theta=1e6, factor=2.0), 64),
    ("dynamic, beyond", "ROPE_DYNAMIC", 150, dict(rope_type="dynamic", rope_theta=1e6, factor=2.0), 64),
    ("yarn", "ROPE_YARN", 256, dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64), 256),
    ("yarn, other betas", "ROPE_YARN", 256, dict(rope_type="yarn", rope_theta=1e4, factor=4.0, beta_fast=8.0, beta_slow=2.0,
                                                 original_max_position_embeddings=64), 256),
    ("yarn, not truncated", "ROPE_YARN", 256, dict(rope_type="yarn", rope_theta=1e4, factor=4.0, truncate=False,
                                                   original_max_position_embeddings=64), 256),
    ("yarn, attention_factor", "ROPE_YARN", 256, dict(rope_type="yarn", rope_theta=1e4, factor=4.0, attention_factor=1.25,
                                                      original_max_position_embeddings=64), 256),
    ("yarn, mscale", "ROPE_YARN", 256, dict(rope_type="yarn", rope_theta=1e4, factor=4.0, mscale=1.0, mscale_all_dim=0.7,
                                            original_max_position_embeddings=64), 256),
    ("yarn, 32K to 128K", "ROPE_YARN", 131072, dict(rope_type="yarn", rope_theta=1e6, factor=4.0,
                                                    original_max_position_embeddings=32768), 131072),
]


def numbers(values):
    text = [f"{v:.9g}f" if "." in f"{v:.9g}" or "e" in f"{v:.9g}" else f"{v:.9g}.0f" for v in values]
    return (",\n" + " " * 10).join(", ".join(text[i:i + 4]) for i in range(0, len(text), 4))


def main():
    print("/* rope.h: written by tests/golden/rope.py with torch %s and transformers %s; head_dim %d */"
          % (torch.__version__.split("+")[0], transformers.__version__, HEAD_DIM))
    print("static const struct rope_golden {\n    const char *name;\n    int64_t n_positions, max_position_embeddings;\n"
          "    double rope_theta;\n    rope_kind kind;\n"
          "    double factor, beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim;\n"
          "    int64_t original_max_position_embeddings;\n    bool truncate;\n"
          "    struct {\n        int64_t position;\n        float cos[%d], sin[%d];\n    } at[4];\n} rope_golden[] = {" % (HEAD_DIM // 2, HEAD_DIM // 2))
    for name, kind, n, rope, max_positions in CASES:
        config = Qwen3Config(head_dim=HEAD_DIM, hidden_size=64, num_attention_heads=4, max_position_embeddings=max_positions,
                             rope_parameters=dict(rope))
        embedding = Qwen3RotaryEmbedding(config)
        cos, sin = embedding(torch.zeros(1), torch.arange(n)[None])
        print('    {"%s", %d, %d, %g, %s, %g, %g, %g, %g, %g, %g, %d, %s, {' % (
            name, n, max_positions, rope["rope_theta"], kind, rope.get("factor", 1), rope.get("beta_fast", 32), rope.get("beta_slow", 1),
            rope.get("attention_factor", 0), rope.get("mscale", 0), rope.get("mscale_all_dim", 0),
            rope.get("original_max_position_embeddings", 0), "true" if rope.get("truncate", True) else "false"))
        for position in (0, 1, n // 3, n - 1):
            c, s = cos[0, position, :HEAD_DIM // 2].tolist(), sin[0, position, :HEAD_DIM // 2].tolist()
            print("        {%d, {%s},\n         {%s}}," % (position, numbers(c), numbers(s)))
        print("    }},")
    print("};")


main()
