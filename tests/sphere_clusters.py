"""Points about a pole of the sphere, and a network that learns them in a few steps."""

import torch
from torch import Tensor

from manifolds import Sphere
from rfm.networks import VelocityField


def cluster(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return Sphere(2).projx(torch.tensor([0.0, 0.0, 1.0]) + 0.4 * torch.randn(n, 3, generator=generator))


def small_field() -> VelocityField:
    """The same at every call, whatever has been drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VelocityField(Sphere(2), width=16, depth=1, features=8, max_frequency=4.0)
