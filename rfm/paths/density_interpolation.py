"""The exact velocity of an interpolation of densities on a mesh: a flow between them without any training."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import Mesh
from manifolds.arguments import check_instance, shown
from manifolds.identity import same
from manifolds.numerics.constants import Constants
from manifolds.numerics.precision import at_least_float32
from rfm.field import Field
from rfm.integrators import BOGACKI_SHAMPINE, Adaptive, NormalCoordinates
from rfm.sources import MeshDensity, Source, Uniform
from rfm.sources.base import check_same_manifold


class MoserVelocity(Constants, Field):
    """The velocity of a flow on a mesh whose density is known at all times: nothing is learnt, nothing is simulated.

    From a uniform source the density at time t is ``p_t = (1 - t) p_0 + t p_1``; from another, which may be far from
    the target, it goes by way of the uniform density q: ``p_t = (1 - t)^2 p_0 + 2 t (1 - t) q + t^2 p_1``. The velocity
    is ``F_t / p_t`` with a flux of divergence ``-dp_t / dt``, whose normal component is the same on both sides of every
    edge, from one sparse solve for each density (`manifolds.meshes.flux`). So the continuity equation holds exactly, in
    faces and across edges, with nothing flowing out at a border: the flow's density is p_t up to the error of the
    solver alone, and `log_prob` solves nothing. Of all fluxes constant in time it is the one of least kinetic energy.

    Moser, On the volume elements on a manifold, Trans. Amer. Math. Soc. 120 (1965), 286-294; Rozen, Grover, Nickel &
    Lipman, Moser Flow, 2021, arXiv:2108.08052.

    Args:
        source: `rfm.sources.Uniform` on a connected mesh, or a `rfm.sources.MeshDensity`.
        target: the density at time 1; the same faces as those of the source, if that is one.

    Raises:
        ValueError: for other densities.
    """

    _values: Tensor

    default_method = Adaptive(NormalCoordinates(BOGACKI_SHAMPINE), atol=1e-3, rtol=1e-3)
    """Along the surface: projected steps come to rest at edges whose faces meet at a right angle or less, and may jump
    through thin walls. Velocities jump where paths cross an edge, so that a high order gains nothing."""

    def __init__(self, source: Source, target: MeshDensity) -> None:
        super().__init__()
        check_instance("MoserVelocity", "target", target, MeshDensity, "MeshDensity.fit(mesh, points)")
        if not isinstance(source, Uniform | MeshDensity):
            raise ValueError(
                f"MoserVelocity: source must be Uniform or a MeshDensity, whose values at the vertices are known, got "
                f"{shown(source)}; fit one to draws of it"
            )
        check_same_manifold("MoserVelocity", "the source", source.manifold, target.manifold)
        self.source, self.target, self.manifold = source, target, target.manifold
        fine: Mesh = target.fine
        assert fine.volume is not None
        uniform = torch.full_like(target.values, 1 / fine.volume)
        ends = [target.values]
        if isinstance(source, MeshDensity):
            if source.subdivisions != target.subdivisions:
                raise ValueError(
                    f"MoserVelocity: source and target must be linear in the same faces, got {source.subdivisions} and "
                    f"{target.subdivisions} subdivisions; fit both with the same"
                )
            ends.insert(0, source.values)
        self.fluxes = [fine.flux(uniform - p, _mobility(uniform[fine.faces], p[fine.faces])) for p in ends]
        self._by_way_of_uniform = len(ends) == 2
        self.constant("_values", torch.stack([*ends[:-1], uniform, ends[-1]], -1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity at points ``x`` ``(*batch, 3)`` and times ``t`` ``(*batch)``, or one time."""
        x = x.to(at_least_float32(x.dtype))
        mesh: Mesh = self.target.fine
        face = mesh.closest_face(x)
        b = mesh.barycentric_in(face, x)
        weights = self._weights(t.to(x).expand(face.shape))
        p = (mesh.rows_at_corners(self._values, face).to(x) * b[..., None]).sum(-2)
        density = (p * weights.value).sum(-1)
        ends = [weights.rate[..., i] for i in ([0, 2] if self._by_way_of_uniform else [1])]
        flux = sum(rate[..., None] * flux.at(face, b, x) for rate, flux in zip(ends, self.fluxes, strict=True))
        assert isinstance(flux, Tensor)
        return flux / density[..., None]

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the log-density at time ``t``, in nats with respect to the area, ``(*batch)``; nothing is solved."""
        x = x.to(at_least_float32(x.dtype))
        weights = self._weights(t.to(x).expand(self.manifold.batch_shape(x)))
        return (self.target.fine.interpolate(self._values, x) * weights.value).sum(-1).log()

    def log_prob_from(self, source: Source, x: Tensor, t: Tensor) -> Tensor | None:
        return self.log_prob(x, t) if source is self.source or same(source, self.source) else None

    def _weights(self, t: Tensor) -> "_Weights":
        """Return the weights of the densities at times ``(*batch)``, and their rates of change, ``(*batch, m)``."""
        if self._by_way_of_uniform:
            value = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], -1)
            return _Weights(value, torch.stack([-2 * (1 - t), 2 - 4 * t, 2 * t], -1))
        return _Weights(torch.stack([1 - t, t], -1), torch.stack([-torch.ones_like(t), torch.ones_like(t)], -1))


class _Weights(NamedTuple):
    value: Tensor
    rate: Tensor


def _mobility(p: Tensor, q: Tensor) -> Tensor:
    """Return the logarithmic means of two densities in the middle of each face, given at its corners ``(F, 3)``.

    ``|F|^2 / mean`` is the kinetic energy of the flux F while the density goes from p to q in a straight line.
    """
    p, q = p.mean(-1), q.mean(-1)
    ratio = q / p
    near = (ratio - 1).abs() < 1e-4
    log = torch.where(near, 1.0, ratio.log())
    return p * torch.where(near, (1 + ratio) / 2, (ratio - 1) / log)
