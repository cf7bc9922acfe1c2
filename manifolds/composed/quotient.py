"""Quotients of a manifold by a finite group of isometries."""

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.base import Manifold
from manifolds.composed.composite import Derived
from manifolds.composed.finite_group import FiniteGroup
from manifolds.composed.invariant_waves import InvariantWaves
from manifolds.coordinates import QuotientCoordinates
from manifolds.kernel import Kernel, QuotientKernel


class Quotient(Derived):
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
        super().__init__(m)
        self.group = group
        self.points_are_classes = True
        self.points_per_class = group.order * m.points_per_class
        self.injectivity_radius = None
        if m.injectivity_radius is not None and group.displacement is not None:
            # A point closer to x than half the displacement has its other representatives farther than that from x.
            self.injectivity_radius = min(m.injectivity_radius, group.displacement / 2)
        self.waves = None if group.invariant_dim is not None else InvariantWaves(m.dim, m.embed_dim)
        self._coordinates = QuotientCoordinates(self, m.coordinates, group, self.waves)

    def nearest(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the representative of ``y`` that is nearest to ``x``: the first of the nearest where several are."""
        images = self.group.orbit(y)
        return self._select(images, self._nearest_index(x, images, from_images=False))

    # Metric.

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self.m.dist(x, self.nearest(x, y))

    # Geodesics.

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.m.logmap(x, self.nearest(x, y))

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.geodesic(x, self.nearest(x, y), t)

    def logmap_jvp(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        images = self.group.orbit(y)
        index = self._nearest_index(x, images, from_images=False)
        pushed = self.group.push(y, dy)
        further = pushed.shape[: pushed.ndim - images.ndim]
        pushed = self._select(pushed, index.expand(*further, *index.shape))
        return self.m.logmap_jvp(x, self._select(images, index), dx, pushed)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the shortest way from the class of ``x`` to ``y``, as ``m`` does.

        The result is tangent at ``y`` as given: first ``u`` moves to the representative of ``x`` nearest to ``y``.
        """
        images = self.group.orbit(x)
        index = self._nearest_index(y, images, from_images=True)
        return self.m.transp(self._select(images, index), y, self._select(self.group.push(x, u), index))

    # Bases and volume.

    @property
    def kernel(self) -> Kernel | None:
        """The mean of the kernels of ``m`` about the representatives; None where ``m`` has none."""
        one = self.m.kernel
        return None if one is None else QuotientKernel(self, one, self.group)

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
