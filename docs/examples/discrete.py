"""Fit sequences of labels, and labels together with points; draw new ones, save and load."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

# --8<-- [start:fit]
from manifolds import FlatTorus
from rfm import discrete
from rfm.sources import Uniform

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

folder = Path(tempfile.mkdtemp()) / "steps"
# --8<-- [start:save]
flow.save(folder)
loaded = discrete.DiscreteFlow.load(folder)
law = loaded.law(steps=16)  # exact probabilities of all 81 sequences, in the order of discrete.every_sequence(3, 4)
# --8<-- [end:save]
assert abs(float(law.sum()) - 1) < 1e-9


# --8<-- [start:joint]
class Network(nn.Module):
    """The posterior of two labels, and the velocities of their angles."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = nn.Embedding(3, 16)
        self.layers = nn.Sequential(nn.Linear(19, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 3))

    def forward(self, labels: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        parts = [torch.cos(x), torch.sin(x), t[:, None].expand_as(x)]
        h = self.layers(torch.cat([self.labels(labels), torch.stack(parts, dim=-1)], dim=-1))
        return h[..., :2], h[..., 2]


def pairs(count: int, length: int) -> discrete.Labelled:
    """Labels 0 at angles about -1.5, labels 1 about 1.5."""
    labels = torch.randint(2, (count, length))
    return discrete.Labelled(labels, 3.0 * labels - 1.5 + 0.2 * torch.randn(count, length))


torch.manual_seed(0)
joint = discrete.JointFlow(
    Network(),
    discrete.MixturePath(discrete.MaskedLabels(2)),
    sources=[Uniform(FlatTorus(1)), Uniform(FlatTorus(3))],
    lengths=[1, 3],
)
data, held_out = [pairs(1000, 1), pairs(1000, 3)], [pairs(100, 1), pairs(100, 3)]
discrete.fit_joint(data, joint, held_out=held_out, steps=300, batch_size=256, progress=False)
ones, threes = joint.sample(400, steps=20, generator=torch.Generator().manual_seed(0))
# --8<-- [end:joint]
together = ((threes.x > 0) == (threes.labels == 1)).double().mean()
print(f"{together:.0%} of the angles are on the side of their label; of independent ones half would be")
assert together > 0.7
