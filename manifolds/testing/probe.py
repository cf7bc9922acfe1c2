"""Inputs to test a manifold at, and how far rounding alone may carry a result.

**Inputs.** Points come from the caller, else from ``random_uniform``, else from projections of random ambient tensors,
of which those are kept where the metric is least distorted: a point next to the rim of a ball or of a cone says nothing
about a formula. A few special points (projections of the first axis and of the identity) have repeated eigenvalues and
exact zeros. Tangent vectors stay within 0.9 of the injectivity radius, and within 2; within 0.5 where none is stated,
and within half of the distance to a border, which the points are chosen far from.

**Allowances.** A law is evaluated in float64 once as it stands and a few times with relative noise of size ``_NOISE``
put on every input and intermediate value. The change, divided by the noise, is how much this law amplifies rounding at
this input. What is allowed is that, times `SLACK` units of rounding: four times the 16 that the numerics rule gives to
one map, because a law chains two or three and few random directions understate the worst. A manifold whose maps are a
solver's states its ``solver_accuracy``, which counts as so much more rounding.

References:
    Vignes, Discrete Stochastic Arithmetic for Validating Results of Numerical Software, 2004,
    doi:10.1023/B:NUMA.0000049483.75679.ce: the idea of reading rounding off random perturbations.
"""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.testing.measurement import Measurement

SLACK = 64.0
"""Units of rounding allowed, before amplification."""

_CANDIDATES = 2048
_NOISE = 1e-10
_REPEATS = 4
_LARGEST_AMPLIFICATION = 1e3
"""A cap, relative to the larger of 1 and the inputs: a jump must not pass for bad conditioning."""

Round = Callable[[Tensor], Tensor]


class Watched:
    """A manifold that remembers the last method called on it, so that an exception can be placed."""

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold
        self.last_call = ""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.manifold, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self.last_call = f"{name}({', '.join(_signature(a) for a in (*args, *kwargs.values()))})"
            return attribute(*args, **kwargs)

        return call


def _signature(argument: object) -> str:
    if isinstance(argument, Tensor):
        return f"{tuple(argument.shape)} {argument.dtype}"
    # Of an object such as a generator Python prints the address, which differs from run to run.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(argument))


class Probe:
    """A manifold in one dtype, with inputs.

    Attributes:
        m: the manifold, watched, its buffers in ``dtype``.
        x: points ``(n, *event_shape)``, special ones first.
        u: tangent vectors at ``x`` of Riemannian lengths up to ``reach``.
        v: other tangent vectors at ``x``, of length 1.
        w: others again.
        y: points ``expmap(x, u)``.
        far: points unrelated to ``x``; equal to ``y`` where ``logmap`` is a solver's.
        t: times in (0, 1).
        room: how far geodesics from ``x`` are followed at most: half of the way to a border, else infinity.
        generator: for whatever else is random.
        shared: what one law has worked out for another.
    """

    def __init__(
        self,
        manifold: Manifold,
        dtype: torch.dtype,
        points: Tensor,
        *,
        samples: int,
        seed: int,
        device: torch.device,
        compile_backend: str | None = None,
    ) -> None:
        self.dtype, self.device, self.samples, self.seed = dtype, device, samples, seed
        self.compile_backend = compile_backend
        self.unit = torch.finfo(dtype).eps / 2
        self.generator = torch.Generator().manual_seed(seed)
        self.shared: dict[str, Any] = {}
        self.m: Any = Watched(copy.deepcopy(manifold).to(device=device, dtype=dtype))
        self.reference: Any = Watched(copy.deepcopy(manifold).to(device=device, dtype=torch.float64))
        self.k = len(manifold.event_shape)
        self.cut = manifold.injectivity_radius
        self.logmap_radius = float(getattr(manifold, "logmap_radius", math.inf))
        self.accuracy = float(getattr(manifold, "solver_accuracy", 0.0))
        self.reach = min(0.5 if self.cut is None else min(0.9 * self.cut, 2.0), 0.9 * self.logmap_radius)
        self.points_are_classes = bool(getattr(manifold, "points_are_classes", False))
        self.x = manifold_points(self.m, points.to(device=device, dtype=dtype))
        n = len(self.x)
        border = self.m.distance_to_border(self.x)
        self.room = self.x.new_full((n,), math.inf) if border is None else 0.5 * border.detach()
        lengths = self.room.clamp(max=self.reach) * (0.05 + 0.95 * self.uniform(n))
        self.u = self.lift(lengths) * self.unit_tangent(self.x)
        self.v, self.w = self.unit_tangent(self.x), self.unit_tangent(self.x)
        self.y = self.m.expmap(self.x, self.u).detach()
        self.far = self.x.roll(1 + n // 2, 0) if math.isinf(self.logmap_radius) else self.y
        self.t = 0.1 + 0.8 * self.uniform(n)

    # Random inputs, all drawn on the CPU so that a seed means the same on every device.

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.device, self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64).to(self.device, self.dtype)

    def tangent(self, x: Tensor) -> Tensor:
        """Return a random tangent vector at every point."""
        return self.m.proju(x, self.normal(*x.shape))

    def unit_tangent(self, x: Tensor) -> Tensor:
        """Return a random tangent vector of Riemannian length 1 at every point."""
        u = self.tangent(x)
        # Twice: an ambient vector may be long, and only short ones are left tangent to rounding.
        u = self.m.proju(x, u / self.lift(self.m.norm(x, u)))
        return (u / self.lift(self.m.norm(x, u))).detach()

    def normal_direction(self, x: Tensor) -> Tensor | None:
        """Return ambient vectors of Euclidean length 1 that are not tangent, or None on an open set."""
        if self.m.dim >= math.prod(self.m.event_shape):
            return None
        a = self.normal(*x.shape)
        a = a - self.m.proju(x, a)
        return (a / self.lift(self.size(a))).detach()

    def with_coincident(self, count: int) -> "Probe":
        """Return the same with the first inputs only, then with these at ``y = x`` and ``u = 0``, and then in part.

        In part means that some of the factors of a product coincide: the first entries along an axis of the points, or
        the last, are those of ``x``, and the others of ``y``. Where what results is no point, ``y`` stays.
        """
        x, y = self.x[:count], self.y[:count]
        mixed = self._mixed(x, y)
        other, repeats = copy.copy(self), 2 + len(mixed)
        for name in "xuvwt":
            setattr(other, name, getattr(self, name)[:count].repeat(repeats, *(1,) * (getattr(self, name).ndim - 1)))
        other.u[count : 2 * count] = 0.0
        other.y = torch.cat([y, x, *mixed])
        return other

    def _mixed(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return all points whose first or last entries along some axis are those of ``x``, and the others of ``y``."""
        mixed = []
        for axis in range(1, x.ndim):
            index = torch.arange(x.shape[axis], device=self.device)[(..., *(None,) * (x.ndim - 1 - axis))]
            for cut in range(1, x.shape[axis]):
                for first, last in ((x, y), (y, x)):
                    point = torch.where(index < cut, first, last)
                    stays = (self.m.projx(point) - point).abs() <= 1e3 * self.unit * point.abs().clamp(min=1)
                    if bool(stays.all()) and not (torch.equal(point, x) or torch.equal(point, y)):
                        mixed.append(point)
        return mixed

    def elsewhere(self, device: str) -> Watched:
        """Return the manifold on another device."""
        return Watched(copy.deepcopy(self.m.manifold).to(device))

    # Measuring.

    def lift(self, s: Tensor) -> Tensor:
        """Append the axes of one point."""
        return s[(..., *(None,) * self.k)]

    def size(self, a: Tensor) -> Tensor:
        """Return Euclidean norms of ambient tensors."""
        return torch.linalg.vector_norm(a.flatten(-self.k), dim=-1)

    def point_difference(self, m: Any, a: Tensor, b: Tensor) -> Tensor:
        """Return a vector that is 0 where ``a`` and ``b`` are one point, whatever tensors stand for it."""
        if self.points_are_classes and type(self.m.manifold).embed is Manifold.embed:
            return m.dist(a, b)[..., None]
        return m.embed(a) - m.embed(b)

    def compare(
        self, residual: Callable[..., Tensor], what: str = "", relative: Tensor | None = None, **inputs: Tensor
    ) -> Measurement:
        """Evaluate a law that claims ``residual(m, r, **inputs) == 0``.

        Args:
            residual: of a manifold ``m``, a function ``r`` that it wraps around every input and intermediate value, and
                the inputs; returns ``(n, *anything)``.
            what: what is compared.
            relative: the size of what is compared ``(n,)``, where it is not 1: a floor for what is allowed.
            inputs: tensors ``(n, ...)``.
        """
        n = len(next(iter(inputs.values())))
        # One batch of the inputs as they are, followed by noisy copies.
        doubles = {name: value.detach().double() for name, value in inputs.items()}
        copies = {name: value.repeat(1 + _REPEATS, *(1,) * (value.ndim - 1)) for name, value in doubles.items()}
        together = _as_rows(residual(self.reference, self._perturb, **copies), n * (1 + _REPEATS))
        plain, noisy = together[:n], together[n:].reshape(_REPEATS, n, -1)
        own = plain if self.dtype == torch.float64 else _as_rows(residual(self.m, lambda a: a, **inputs), n)
        floor = torch.ones(n, dtype=torch.float64) if relative is None else relative.detach().double().cpu()
        change = (torch.linalg.vector_norm(noisy - plain, dim=-1).amax(0) / _NOISE).nan_to_num(0.0)
        scale = torch.stack([_rows(value, n) for value in doubles.values()]).amax(0).clamp(min=1.0)
        allowed = (
            SLACK
            * (self.unit + self.accuracy)
            * torch.minimum(torch.maximum(floor, change), _LARGEST_AMPLIFICATION * scale)
        )
        return Measurement(torch.linalg.vector_norm(own, dim=-1), allowed, inputs, what)

    def _perturb(self, a: Tensor) -> Tensor:
        """Put relative noise on all but the first of ``1 + _REPEATS`` equal parts of a batch."""
        noise = torch.randn(a.shape, generator=self.generator, dtype=torch.float64).to(a.device)
        noise[: len(a) // (1 + _REPEATS)] = 0.0
        value = a.detach()
        size = torch.linalg.vector_norm(value, dim=tuple(range(1, a.ndim)), keepdim=True) if a.ndim > 1 else value.abs()
        return a + _NOISE * size / math.sqrt(max(1, a[0].numel())) * noise


def _as_rows(a: Tensor, n: int) -> Tensor:
    return a.detach().double().cpu().reshape(n, -1)


def _rows(a: Tensor, n: int) -> Tensor:
    return torch.linalg.vector_norm(_as_rows(a, n), dim=-1)


# Choosing points.


def manifold_points(m: Any, points: Tensor) -> Tensor:
    """Return ``projx`` of points, detached; the rounded result is the input that laws are tested at."""
    return m.projx(points).detach()


def choose_points(manifold: Manifold, samples: int, generator: torch.Generator) -> Tensor:
    """Return ``samples`` float64 points, special ones first; see the top of this file."""
    m: Any = Watched(copy.deepcopy(manifold).to(device="cpu", dtype=torch.float64))
    shape = manifold.event_shape
    drawn = draw_uniform(m, samples, generator)
    special = _special_ambient(shape)
    projected = m.projx(special)
    k = len(shape)
    moved = (projected - special).flatten(-k).norm(dim=-1)
    again = (m.projx(projected) - projected).flatten(-k).norm(dim=-1)
    on = (moved < 1e-6) & (again < 1e-6)
    if drawn is not None:
        on[0] = False  # The origin: a projection that does nothing would let it pass.
        border = m.distance_to_border(drawn)
        if border is not None:
            drawn = torch.cat([drawn, m.random_uniform(16 * samples, generator=generator, dtype=torch.float64)])
            border = m.distance_to_border(drawn)
            least = border.quantile(0.9)
            drawn = drawn[border >= least]
            on &= m.distance_to_border(projected) >= least
    else:
        scales = torch.tensor([0.3, 1.0], dtype=torch.float64).repeat(_CANDIDATES // 2)[(..., *(None,) * k)]
        ambient = scales * torch.randn(_CANDIDATES, *shape, generator=generator, dtype=torch.float64)
        ambient[_CANDIDATES // 2 :] += special[-1]
        candidates = m.projx(ambient)
        strain = _distortion(manifold, candidates).nan_to_num(math.inf)
        if manifold.dim == math.prod(shape):
            # On an open set what projx moves ends at the rim.
            strain = torch.where((candidates - ambient).flatten(-k).norm(dim=-1) < 1e-9, strain, math.inf)
        bound = 5 * strain.min()
        good = (
            candidates[strain <= bound]
            if int((strain <= bound).sum()) >= samples
            else candidates[strain.argsort()[:samples]]
        )
        drawn = good[torch.randperm(len(good), generator=generator)]
        on &= _distortion(manifold, projected) <= bound
    return torch.cat([projected[on], drawn])[:samples].detach()


def draw_uniform(m: Any, n: int, generator: torch.Generator) -> Tensor | None:
    """Return n uniform points in float64, or None where the manifold refuses."""
    try:
        drawn: Tensor = m.random_uniform(n, generator=generator, dtype=torch.float64)
    except ValueError:
        return None
    k = len(m.event_shape)
    return drawn if drawn.shape == (n, *m.event_shape) and bool(drawn.flatten(-k).isfinite().all()) else None


def _special_ambient(shape: torch.Size) -> Tensor:
    """Return the first axis, the origin and the identity of the last two axes."""
    axis = torch.zeros(shape, dtype=torch.float64)
    axis[(0,) * len(shape)] = 1.0
    eye = torch.eye(*shape[-2:], dtype=torch.float64).expand(shape) if len(shape) > 1 else axis
    return torch.stack([torch.zeros(shape, dtype=torch.float64), axis, eye])


def _distortion(manifold: Manifold, x: Tensor) -> Tensor:
    """Return by how much the metric stretches or shrinks Euclidean tangent vectors at most; 1 where it is induced."""
    if manifold.metric_is_induced:
        return torch.ones(len(x), dtype=torch.float64)
    x = x.detach()
    u = torch.randn(16, *x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    u = manifold.proju(x, u)
    k = len(manifold.event_shape)
    ratio = manifold.norm(x, u) / u.flatten(-k).norm(dim=-1)
    return torch.maximum(ratio.amax(0), 1 / ratio.amin(0))
