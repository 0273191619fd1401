#!/usr/bin/env python3
"""h5_pieces.py CHECKPOINT: what h5py sees in a checkpoint's files, put together by the attributes alone (no manifest), is every parameter
of every state exactly once.  Prints the number of tensors and of elements."""
import glob
import os
import sys

import h5py
import numpy as np

whole, seen = {}, {}
for path in sorted(glob.glob(os.path.join(sys.argv[1], "rank-*.h5"))):
    with h5py.File(path, "r") as f:
        for state in f:
            for name in f[state]:
                for piece in f[state][name].values():
                    (rows, cols), (row, col) = piece.attrs["global_shape"], piece.attrs["offset"]
                    assert piece.dtype == "<f4" and piece.ndim == 2 and len(piece.attrs["xxh3"]) == 32, piece
                    x = whole.setdefault((state, name), np.full((rows, cols), np.nan, "f4"))
                    n = seen.setdefault((state, name), np.zeros((rows, cols), int))
                    at = np.s_[row : row + piece.shape[0], col : col + piece.shape[1]]
                    x[at] = piece[...]
                    n[at] += 1
assert all((n == 1).all() for n in seen.values()), [k for k, n in seen.items() if not (n == 1).all()]
assert all(np.isfinite(x).all() for x in whole.values())
assert all(whole["exp_avg_sq", name].min() >= 0 for state, name in whole if state == "weight")
assert all(x.std() > 0 for (state, name), x in whole.items() if state == "exp_avg"), "moments that never moved"
print(len(whole), sum(x.size for x in whole.values()))
