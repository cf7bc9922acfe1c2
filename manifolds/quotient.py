"""Quotients of a manifold by a finite group of isometries."""

import math

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.base import Manifold
from manifolds.constants import Constants
from manifolds.finite_group import FiniteGroup
from manifolds.kernel import Kernel, QuotientKernel
from manifolds.lie_group import LieGroup


class Quotient(Manifold):
    """A manifold modulo a finite group of isometries: points that the group maps to each other count as one.

    ``Quotient(SO3(), RightMultiplication(Octahedral()))`` is the space of orientations of a cubic crystal,
    ``Quotient(Sphere(2), Antipodal(2))`` that of axes in space. A point is written as any of its representatives, a
    point of ``m``; so is what comes back. Nothing is canonical about it, because no choice of one representative per
    class is continuous: compare points by `dist`, never by coordinates. `projx` is that of ``m``.

    **Metric.** That of ``m``, along the way to the nearest representative: ``dist(x, y) = min_g m.dist(x, g y)``. The
    `logmap` starts at ``x`` as given and ends at the representative of ``y`` nearest to it (the first in the group's
    order where several are); so does `geodesic`. A tangent vector at ``x`` is the same vector as its image at ``g x``.

    **Densities** are functions on ``m`` with the same value on all of a class, with respect to the full volume of
    ``m``: ``volume`` is ``m.volume``, the uniform density is ``1 / m.volume``, and densities integrate to 1 over ``m``.
    With respect to the volume of the quotient itself they are ``group.order`` times larger where the group acts freely.

    **Fields** must be equivariant: at ``g x`` the image of the vector at ``x``. A function of `embed` has the same
    coordinates at both, which is something else (under the antipodal map the image of the vector u at x is -u at -x);
    `tangent_from_vector` makes an equivariant vector of it.

    Args:
        m: the manifold.
        group: the group, acting on points of the shape of those of ``m``.

    References:
        Bridson and Haefliger, Metric Spaces of Non-Positive Curvature (1999), chapter I.8, the quotient metric.
    """

    def __init__(self, m: Manifold, group: FiniteGroup) -> None:
        check_instance("Quotient", "m", m, Manifold, "Sphere(2)")
        check_instance("Quotient", "group", group, FiniteGroup, "Antipodal(2)")
        if group.event_shape != m.event_shape:
            raise ValueError(
                f"Quotient: {group} acts on points of shape {tuple(group.event_shape)}, those of {m} have shape "
                f"{tuple(m.event_shape)}; make the group for this manifold"
            )
        super().__init__(m.dim, m.event_shape)
        self.m = m
        self.group = group
        self.volume = m.volume
        self.points_are_classes = True
        self.points_per_class = group.order * m.points_per_class
        self.logmap_radius = m.logmap_radius
        if m.injectivity_radius is not None and group.displacement is not None:
            # A point closer to x than half the displacement has its other representatives farther than that from x.
            self.injectivity_radius = min(m.injectivity_radius, group.displacement / 2)
        self.waves = None if group.invariant_dim is not None else _Waves(m)

    def nearest(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the representative of ``y`` that is nearest to ``x``: the first of the nearest where several are."""
        images = self.group.orbit(y)
        return self._select(images, self._nearest_index(x, images, from_images=False))

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return self.m.projx(x)

    def outside(self, x: Tensor) -> Tensor | None:
        return self.m.outside(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.proju(x, u)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.m.inner(x, u, v)

    @property
    def metric_is_induced(self) -> bool:
        """Whether the metric of ``m`` is induced."""
        return self.m.metric_is_induced

    def norm(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.norm(x, u)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self.m.dist(x, self.nearest(x, y))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.expmap(x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.m.logmap(x, self.nearest(x, y))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.shoot(x, u, t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.geodesic(x, self.nearest(x, y), t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the shortest way from the class of ``x`` to ``y``, as ``m`` does.

        The result is tangent at ``y`` as given: first ``u`` moves to the representative of ``x`` nearest to ``y``.
        """
        images = self.group.orbit(x)
        index = self._nearest_index(y, images, from_images=True)
        return self.m.transp(self._select(images, index), y, self._select(self.group.push(x, u), index))

    @property
    def transp_is_isometric(self) -> bool:
        """Whether that of ``m`` is."""
        return self.m.transp_is_isometric

    @property
    def solver_accuracy(self) -> float:  # type: ignore[override]
        """That of ``m``."""
        return self.m.solver_accuracy

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return self.m.tangent_basis(x)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.divergence_frame(x)

    def divergence_probes(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.divergence_probes(x, noise)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.log_volume_derivative(x, u)

    @property
    def lie_group(self) -> LieGroup | None:
        """The group of ``m``, which moves representatives."""
        return self.m.lie_group

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.log_det_expmap(x, u)

    @property
    def kernel(self) -> Kernel | None:
        """The mean of the kernels of ``m`` about the representatives; None where ``m`` has none."""
        one = self.m.kernel
        return None if one is None else QuotientKernel(self, one, self.group)

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.m.random_uniform(*shape, generator=generator, dtype=dtype, device=device)

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return smooth coordinates of the class of ``x``, ``(*batch, embed_dim)``: equal on it, different off it.

        They are the group's `invariants`, which separate classes by an argument given there. For a group without them
        they are random Fourier features of ``m.embed``, averaged over the class: an average over all frequencies would
        determine the class (it is the characteristic function of the uniform distribution on it), and
        ``2 dim + 1`` features do for almost every choice of frequencies and phases (Amir, Gortler, Avni, Ravina and
        Dym, Neural Injective Functions for Multisets, Measures and Graphs via a Finite Witness Theorem, 2023,
        arXiv:2306.06529). There are at least 64, for conditioning, with fixed frequencies. Where an
        element fixes a point the quotient has a corner or an edge; there no smooth map can have a derivative of full
        rank.
        """
        if self.waves is None:
            return self.group.invariants(x)
        return self.waves.features(self.m.embed(self.group.orbit(x))).mean(-2)

    @property
    def embed_dim(self) -> int:
        """Length of the vectors that `embed` returns."""
        return self.group.invariant_dim if self.waves is None else self.waves.count  # type: ignore[return-value]

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector at ``x`` that is the gradient of ``<w, embed(x)>`` with ``w`` held fixed.

        If ``w`` is a function of ``embed(x)``, the result is an equivariant field; and every tangent vector is the
        image of some ``w`` where ``embed`` has a derivative of full rank. The gradient is the ambient one, passed
        through ``proju``: the Riemannian one where the metric is a constant multiple of the induced metric.

        Args:
            x: points ``(*batch, *event_shape)``.
            w: vectors ``(*batch, embed_dim)``.
        """
        x = x.expand(*torch.broadcast_shapes(self.batch_shape(x), w.shape[:-1]), *self.event_shape)
        pull = torch.func.vjp(self.embed, x)[1]
        return self.proju(x, pull(w.expand(*self.batch_shape(x), self.embed_dim))[0])

    @property
    def field_dim(self) -> int:
        return self.embed_dim

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        self.m.check_point(x, tol=tol)

    def check_tangent(self, x: Tensor, u: Tensor, tol: float | None = None) -> None:
        self.m.check_tangent(x, u, tol=tol)

    def extra_repr(self) -> str:
        return f"{self.m!r}, {self.group!r}"

    def _nearest_index(self, x: Tensor, images: Tensor, from_images: bool) -> Tensor:
        """Return which of ``images``, ``(*batch, order, *event_shape)``, is nearest to ``x``.

        With ``from_images`` the distance is measured from the images to ``x``, as transport from them is.
        """
        # The choice is locally constant, so it needs no derivative; argmin returns the first of equal minima.
        x, images = x.detach().unsqueeze(-1 - len(self.event_shape)), images.detach()
        distance = self.m.dist(images, x) if from_images else self.m.dist(x, images)
        return distance.argmin(-1)

    def _select(self, images: Tensor, index: Tensor) -> Tensor:
        """Return ``images[..., index, :]`` for images ``(*batch, order, *event_shape)``, with batches broadcast."""
        rank = len(self.event_shape)
        images = images.expand(*index.shape, *images.shape[-1 - rank :])
        return torch.take_along_dim(images, self.lift(index[..., None]), dim=-1 - rank).squeeze(-1 - rank)


class _Waves(Constants):
    """Cosines with fixed pseudo-random frequencies and phases, of the embedding of ``m``.

    The frequencies come from a Kronecker sequence, so that they are the same on every machine and touch no random
    state; they are normal, with standard deviations 1, 2 and 4 in turn, because the classes of a large group differ in
    high frequencies only.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, m: Manifold) -> None:
        super().__init__()
        self.count = max(64, 2 * m.dim + 1)
        k = torch.arange(1, self.count + 1, dtype=torch.float64)[:, None]
        # The ratios are powers of the root of g^(n + 1) = g + 1: Roberts, The Unreasonable Effectiveness of
        # Quasirandom Sequences (2018).
        n = m.embed_dim + 1
        ratio = 2.0
        for _ in range(64):
            ratio = (1 + ratio) ** (1 / (n + 1))
        uniform = torch.frac(0.5 + k * ratio ** -torch.arange(1, n + 1, dtype=torch.float64))
        scale = 2.0 ** torch.arange(self.count, dtype=torch.float64).remainder(3)[:, None]
        self.constant("frequencies", scale * math.sqrt(2) * torch.erfinv(2 * uniform[:, :-1] - 1))
        self.constant("phases", 2 * math.pi * uniform[:, -1])

    def features(self, z: Tensor) -> Tensor:
        """Return ``(..., count)`` for embedded points ``(..., embed_dim)``."""
        return torch.cos(z @ self.frequencies.to(z).mT + self.phases.to(z))
