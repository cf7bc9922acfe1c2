"""A velocity network on the rotation group whose condition turns with the picture."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from manifolds import SO3
from manifolds.numerics.constants import Constants
from manifolds.numerics.precision import in_full_precision
from rfm.field import Field
from rfm.networks.precision import in_precision_of_weights

_POINTS = 13
"""A harmonic polynomial of degree 6 on the sphere has 13 coefficients."""
_TIME_WAVES = 8
_EMBEDDING_WIDTH = 64
_FASTEST = 0.005
"""Added to ``1 - t``: the width, in radians, of the narrowest structure that the network is to expect."""
_LARGEST = 5.0
"""The logarithm of the largest factor by which a layer's input is scaled."""


class RotationVelocity(Constants, Field):
    """A velocity field on SO(3) whose condition holds functions on the sphere, which orientations read.

    The condition vector has ``invariants`` plain numbers, and then ``channels`` functions on the sphere of directions
    for each harmonic degree n from 1 to ``degree``, as 2 n + 1 coefficients in an orthonormal basis: ``condition_dim``
    entries. A body at orientation ``x`` sees them turned back, by the matrix of x' on harmonics of degree n, and the
    network takes what it sees to an angular velocity in the body's frame. So turning all functions and ``x`` together
    turns the velocity with them: a network that has learned one view of a body knows all others, and what is left to
    learn of a picture is what its functions are. A tetrahedron's pose, for example, has a function of degree 3 that
    determines it up to symmetry, a cube's one of degree 4, an icosahedron's one of degree 6.

    Functions on the sphere as the condition of a density on SO(3) are from Klee et al., Image to Sphere: Learning
    Equivariant Features for Efficient Pose Prediction, 2023, arXiv:2302.13926; turning them back and reading them is a
    correlation (Cohen et al., Spherical CNNs, 2018, arXiv:1801.10130).

    Args:
        channels: number of functions of each degree.
        invariants: how many entries of the condition do not turn.
        degree: largest harmonic degree, at most 6.
        width: width of the hidden layers.
        depth: number of residual hidden layers.
    """

    condition_dim: int

    def __init__(
        self, channels: int = 4, invariants: int = 32, degree: int = 6, width: int = 128, depth: int = 3
    ) -> None:
        super().__init__()
        if not 1 <= degree <= 6:
            raise ValueError(f"RotationVelocity: degree must be 1 to 6, got {degree}")
        self.channels, self.invariants, self.degree, self.width, self.depth = channels, invariants, degree, width, depth
        self.manifold = SO3()
        self.signals = degree * (degree + 2) * channels
        self.condition_dim = invariants + self.signals
        self.constant("points", _points())
        for n in range(1, degree + 1):
            self.constant(f"basis_{n}", _orthonormal(self.points, n))
        self.embedding = nn.Linear(2 + 2 * _TIME_WAVES + invariants, _EMBEDDING_WIDTH)
        self.modulation = nn.Linear(_EMBEDDING_WIDTH, 2 * width * (depth + 1))
        self.coarse = nn.Linear(self.signals, width)
        self.fine = nn.Linear(self.signals, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.waves = nn.ModuleList(nn.Linear(width, width) for _ in range(depth + 1))
        self.last = nn.Linear(width, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    points: Tensor

    @in_precision_of_weights
    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity at ``x``, tangent there.

        Args:
            x: rotation matrices ``(*batch, 3, 3)``.
            t: times ``(*batch)``, or one for all, shape ``()``.
            condition: vectors ``(*batch, condition_dim)``; they broadcast against ``x``.
        """
        invariants, signals = condition.split([self.invariants, self.signals], dim=-1)
        seen = self.readings(x, signals)
        scale, shift = self._modulation(t, invariants)
        # What is scaled up as modes get narrow goes through sines: however large it is, what comes out is not.
        h = self.coarse(seen) + self.waves[0](torch.sin(torch.addcmul(shift[0], self.fine(seen), scale[0])))
        for i, (hidden, waves) in enumerate(zip(self.hidden, self.waves[1:], strict=True), start=1):
            z = hidden(nn.functional.silu(h))
            h = h + waves(torch.sin(torch.addcmul(shift[i], z, scale[i])))
        omega = self.last(nn.functional.silu(h))
        return torch.linalg.cross(x, omega.to(x.dtype).unsqueeze(-2).expand_as(x), dim=-1)

    @in_full_precision
    def readings(self, x: Tensor, signals: Tensor) -> Tensor:
        """Return the functions as bodies at ``x`` see them, ``(*batch, signals)``; each degree keeps its norm."""
        # On the points q_i, the zonal polynomials P_n(q_i . u) span the harmonics of degree n, and those of a function
        # turned by x have the values P_n(q_i . x q_j): polynomials in x, without the seams of Euler angles.
        points = self.points.to(x)
        zonal = _legendre(points @ x.mT @ points.mT, self.degree)
        parts, end = [], 0
        for n, values in enumerate(zonal, start=1):
            basis = cast(Tensor, getattr(self, f"basis_{n}")).to(x)
            start, end = end, end + (2 * n + 1) * self.channels
            c = basis @ signals[..., start:end].unflatten(-1, (2 * n + 1, self.channels))
            parts.append((basis.mT @ _times(values, c)).flatten(-2))
        return torch.cat(parts, dim=-1)

    def _modulation(self, t: Tensor, invariants: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        s = t.unsqueeze(-1)
        wave = torch.arange(1, _TIME_WAVES + 1, dtype=t.dtype, device=t.device) * (math.pi / 2)
        late = torch.log(1 + _FASTEST - s.clamp(max=1))
        times = torch.cat([s, late, torch.sin(s * wave), torch.cos(s * wave)], dim=-1)
        w_t, w_c = self.embedding.weight.split([times.shape[-1], self.invariants], dim=-1)
        e = nn.functional.linear(times, w_t, self.embedding.bias) + nn.functional.linear(invariants, w_c)
        log_scale, shift = self.modulation(nn.functional.silu(e)).chunk(2, dim=-1)
        # Bounded: an exponential without end makes one unlucky step the last one.
        scale = torch.exp(_LARGEST * torch.tanh(log_scale / _LARGEST))
        return scale.chunk(self.depth + 1, dim=-1), shift.chunk(self.depth + 1, dim=-1)


def _times(values: Tensor, c: Tensor) -> Tensor:
    """Return ``values @ c``; for one ``c`` and a row of ``values``, as one product."""
    if c.ndim > 2 and c.shape[-3] == 1:
        return (values.flatten(-3, -2) @ c.squeeze(-3)).unflatten(-2, values.shape[-3:-1])
    return values @ c


def _legendre(s: Tensor, degree: int) -> list[Tensor]:
    """Return the Legendre polynomials of degrees 1 to ``degree`` at ``s``."""
    values = [torch.ones_like(s), s]
    for n in range(1, degree):
        values.append(torch.addcmul((-n / (n + 1)) * values[n - 1], s, values[n], value=(2 * n + 1) / (n + 1)))
    return values[1:]


def _points() -> Tensor:
    """Return 13 unit vectors on a spiral, on which no harmonic polynomial of degree 6 or less vanishes."""
    k = torch.arange(_POINTS, dtype=torch.float64) + 0.5
    z = 1 - 2 * k / _POINTS
    angle = math.pi * (1 + math.sqrt(5)) * k
    r = torch.sqrt(1 - z * z)
    return torch.stack([r * torch.cos(angle), r * torch.sin(angle), z], dim=-1)


def _orthonormal(points: Tensor, n: int) -> Tensor:
    """Return B ``(points, 2 n + 1)`` that makes ``B' P_n(q_i . x q_j) B`` an orthogonal matrix for each rotation x."""
    eigenvalues, vectors = torch.linalg.eigh(_legendre(points @ points.mT, n)[-1])
    return vectors[:, -(2 * n + 1) :] / torch.sqrt(eigenvalues[-(2 * n + 1) :])
