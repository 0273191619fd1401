"""See t8-streams-transformers.sh.  Arguments: a directory exported with hyper-connections, our logits (fp32) of the ids, the ids,
and those that we write behind them."""

import sys

import numpy
import torch
from transformers import AutoModelForCausalLM

where, logits, ids, written = sys.argv[1:5]
ids, written = (torch.tensor([[int(x) for x in text.replace(",", " ").split()]]) for text in (ids, written))
model = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=True, dtype=torch.float32)
mine = numpy.fromfile(logits, dtype=numpy.float32)
with torch.no_grad():
    there = model(ids).logits[0].numpy().ravel()
    theirs = model.generate(ids, max_new_tokens=written.shape[1], do_sample=False, use_cache=False, eos_token_id=None)[:, ids.shape[1] :]
apart = numpy.abs(mine - there).max()
print(f"{'ok' if apart < 1e-5 * numpy.abs(there).max() else 'not ok'} - logits are ours: {apart:.1e} apart of {numpy.abs(there).max():.1f}")
print(f"{'ok' if torch.equal(theirs, written) else 'not ok'} - and what is written greedily: {theirs.tolist()[0]}")
