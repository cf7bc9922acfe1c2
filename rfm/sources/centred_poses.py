"""Where flows of several rigid bodies start."""

import math
from typing import Any, Self

import torch
from torch import Tensor

from manifolds import CentredPoses, Manifold
from manifolds.rotations.centred_poses import centred
from rfm.arrays import points_of
from rfm.sources.base import Source, Uniform, checked_part, checked_scale, draws
from rfm.sources.rigid_motion import rigid_motions


class CentredPoseSource(Source):
    """Poses with independent rotations, and independent normal positions less their mean.

    The prior of flows of protein backbones. The density is that on the slice of mean 0, of dimension ``6 k - 3``, as
    `CentredPoses` says. It serves every number of bodies: `on`.

    Args:
        manifold: the poses.
        rotation: a source on ``SO3()``: uniform by default, or `IsotropicGaussianSO3`.
        translation_scale: standard deviation of each coordinate before the mean is subtracted, in the unit of the
            positions; the manifold's ``length`` by default.

    Raises:
        ValueError: if the manifold is another one, ``rotation`` is not on SO3, or the scale is not positive and finite.

    References:
        Yim et al., SE(3) diffusion model with application to protein backbone generation, 2023, arXiv:2302.02277,
        section 3.4: the centred slice. Yim et al., Fast protein backbone generation with SE(3) flow matching, 2023,
        arXiv:2310.05297: both kinds of rotations.
    """

    manifold: CentredPoses

    def __init__(
        self, manifold: CentredPoses, rotation: Source | None = None, translation_scale: float | None = None
    ) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, CentredPoses):
            raise ValueError(
                f"CentredPoseSource: lives on CentredPoses, got {manifold}; use PowerSource of a RigidMotionSource on "
                "a power of SE3"
            )
        rotations = manifold.m.rotations
        rotation = Uniform(rotations) if rotation is None else rotation
        self.rotation = checked_part("CentredPoseSource", "rotation", rotation, rotations)
        scale = manifold.length if translation_scale is None else translation_scale
        self.translation_scale = checked_scale("CentredPoseSource", "translation_scale", scale)

    @classmethod
    def fit(cls, manifold: CentredPoses, points: Tensor) -> Self:
        """Return uniform rotations, with positions that spread as those of the points do, alike in all directions.

        Args:
            manifold: the poses.
            points: of it, ``(n, k, 4, 4)``; where all positions are 0 the scale is ``manifold.length``.
        """
        x = points_of("CentredPoseSource", manifold, points, torch.float64).detach()
        variance = float(x[..., :3, 3].square().mean()) * manifold.k / (manifold.k - 1)
        return cls(manifold, None, math.sqrt(variance) or manifold.length)

    @property
    def has_density(self) -> bool:
        return self.rotation.has_density

    def on(self, manifold: Manifold) -> "CentredPoseSource":
        """Return the same for another number of bodies; the rotations' distribution is shared."""
        if not isinstance(manifold, CentredPoses) or manifold.length != self.manifold.length:
            raise ValueError(
                f"CentredPoseSource: cannot go from {self.manifold} to {manifold}; give CentredPoses(k, "
                f"length={self.manifold.length:g})"
            )
        return CentredPoseSource(manifold, self.rotation, self.translation_scale)

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        return centred(self.scattered((*shape, self.manifold.k), generator, dtype, device))

    def scattered(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return single poses ``(*shape, 4, 4)`` as they are before their mean is subtracted.

        For batches of several lengths, where each has a mean of its own, and for bodies around others that are given.
        """
        rotation = self.rotation.sample(shape, generator, dtype or torch.get_default_dtype(), device)
        like: dict[str, Any] = {"generator": generator, "dtype": rotation.dtype, "device": rotation.device}
        return rigid_motions(rotation, self.translation_scale * torch.randn(*shape, 3, **like))

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("CentredPoseSource", self.manifold, x)
        turns = self.rotation.log_prob(x[..., :3, :3]).sum(-1)
        scale = self.translation_scale / self.manifold.length
        z = x[..., :3, 3].double() / self.translation_scale
        dimensions = 3 * (self.manifold.k - 1)
        moves = -(z * z).sum((-2, -1)) / 2 - dimensions * math.log(scale * math.sqrt(2 * math.pi))
        return turns + moves.to(x.dtype)

    def extra_repr(self) -> str:
        return f"translation_scale={self.translation_scale:g}"
