"""Distributions of poses."""

import math
from typing import Self

import torch
from torch import Tensor

from manifolds import SE3
from manifolds.numerics.constants import Constants
from rfm.arrays import points_of, tensor_of
from rfm.sources.base import Source, Uniform, checked_part, checked_scale, draws


class RigidMotionSource(Source, Constants):
    """Rigid motions with a rotation from any source on SO(3), and independent normal translations.

    With `IsotropicGaussianSO3` it is the prior of FrameDiff, with `Uniform` that of most flow models of proteins. The
    density is with respect to ``dR dp / length^3``, as `SE3` says.

    Args:
        manifold: the group of rigid motions.
        rotation: a source on ``SO3()``.
        translation_scale: standard deviation of each coordinate of the translation, in the unit of the positions (not
            of ``length``).
        translation_mean: mean translation ``(3,)``, zero by default.

    Raises:
        ValueError: if the manifold is not SE3, ``rotation`` is not on SO3, ``translation_scale`` is not positive and
            finite, or ``translation_mean`` is not one finite vector of three.

    References:
        Yim et al.: SE(3) diffusion model with application to protein backbone generation, 2023, arXiv:2302.02277,
        section 3. Bose et al.: SE(3)-stochastic flow matching for protein backbone generation, 2023, arXiv:2310.02391,
        section 3.
    """

    manifold: SE3
    translation_mean: Tensor

    def __init__(
        self,
        manifold: SE3,
        rotation: Source,
        translation_scale: float = 1.0,
        translation_mean: Tensor | None = None,
    ) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, SE3):
            raise ValueError(
                f"RigidMotionSource: lives on SE3, got {manifold}; use PowerSource on a power of it, ProductSource on "
                "Product(SO3(), Euclidean(3))"
            )
        self.rotation = checked_part("RigidMotionSource", "rotation", rotation, manifold.rotations)
        self.translation_scale = checked_scale("RigidMotionSource", "translation_scale", translation_scale)
        given = (0.0, 0.0, 0.0) if translation_mean is None else translation_mean
        mean = tensor_of("RigidMotionSource", "translation_mean", given, torch.float64)
        if mean.shape != (3,) or not bool(mean.isfinite().all()):
            raise ValueError(
                f"RigidMotionSource: translation_mean must be one finite vector (3,), got {mean.tolist()}; pass the "
                "mean position of the data"
            )
        self.constant("translation_mean", mean.detach())

    @classmethod
    def fit(cls, manifold: SE3, points: Tensor) -> Self:
        """Return uniform rotations with the normal distribution of the positions, alike in all directions.

        Args:
            manifold: the group of rigid motions.
            points: poses ``(n, 4, 4)``; of a single position the scale is ``manifold.length``.
        """
        poses = points_of("RigidMotionSource", manifold, points, torch.float64)
        position = poses.detach().reshape(-1, 4, 4)[:, :3, 3]
        mean = position.mean(0)
        scale = float((position - mean).square().mean().sqrt()) or manifold.length
        return cls(manifold, Uniform(manifold.rotations), scale, mean)

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        mean = self.translation_mean.to(dtype=dtype or torch.get_default_dtype(), device=device)
        rotation = self.rotation.sample(shape, generator, mean.dtype, mean.device)
        normal = torch.randn(*shape, 3, generator=generator, dtype=mean.dtype, device=mean.device)
        return rigid_motions(rotation, mean + self.translation_scale * normal)

    @property
    def has_density(self) -> bool:
        return self.rotation.has_density

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("RigidMotionSource", self.manifold, x)
        # In units of ``length``, in which the volume is the usual one.
        scale = self.translation_scale / self.manifold.length
        # The difference in float64: positions far from the origin would lose digits.
        z = (x[..., :3, 3].double() - self.translation_mean.to(x.device)) / self.translation_scale
        translation = -(z * z).sum(-1) / 2 - 3 * math.log(scale * math.sqrt(2 * math.pi))
        return self.rotation.log_prob(x[..., :3, :3]) + translation.to(x.dtype)

    def extra_repr(self) -> str:
        return f"translation_scale={self.translation_scale:g}"


def rigid_motions(rotation: Tensor, position: Tensor) -> Tensor:
    """Return the matrices ``(*batch, 4, 4)`` of rotations ``(*batch, 3, 3)`` to positions ``(*batch, 3)``."""
    top = torch.cat([rotation, position.unsqueeze(-1)], dim=-1)
    bottom = torch.eye(4, dtype=top.dtype, device=top.device)[3:].expand(*position.shape[:-1], 1, 4)
    return torch.cat([top, bottom], dim=-2)
