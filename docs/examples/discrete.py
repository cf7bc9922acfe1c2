"""Fit sequences of labels, and draw new ones."""

import torch

# --8<-- [start:fit]
from rfm import discrete

# Sequences in which every label repeats, or steps to the next of three.
start = torch.randint(3, (2000, 1), generator=torch.Generator().manual_seed(0))
steps = torch.randint(2, (2000, 3), generator=torch.Generator().manual_seed(1))
sequences = torch.cat([start, start + steps.cumsum(-1)], dim=-1) % 3

path = discrete.MixturePath(discrete.MaskedLabels(3))
flow = discrete.fit(sequences, path, steps=300, progress=False)
draws = flow.sample(500, steps=16, generator=torch.Generator().manual_seed(2))
# --8<-- [end:fit]

allowed = ((draws[:, 1:] - draws[:, :-1]) % 3 < 2).all(-1).double().mean()
print(f"{allowed:.0%} of the draws step as the data do; of independent labels 30 % would")
assert allowed > 0.7
