import json
from pathlib import Path

import torch
from torch import Tensor

import rfm
from manifolds import Sphere


# --8<-- [start:external]
def to_the_north(x: Tensor, t: Tensor) -> Tensor:
    """Return the projection of the third axis to the tangent plane at x."""
    return Sphere(2).proju(x, torch.tensor([0.0, 0.0, 1.0]).expand_as(x))


rfm.Flow(Sphere(2), to_the_north).save("north")
flow = rfm.Flow.load("north", field=to_the_north)
# --8<-- [end:external]
print(json.loads(Path("north/flow.json").read_text())["field"])

# --8<-- [start:refused]
try:
    rfm.Flow.load("north")
except ValueError as error:
    print(error)
# --8<-- [end:refused]
