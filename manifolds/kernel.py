"""What a smoothing kernel adds to its manifold: densities about a point, of any width, with known normalisers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from manifolds.composed.finite_group import FiniteGroup
from manifolds.coordinates import Embedded
from manifolds.numerics.precision import FullPrecision


class Kernel(FullPrecision, ABC):
    """The smoothing kernel of a manifold, which holds it as its ``kernel``.

    About y it is ``exp(-concentration |embed(x) - embed(y)|^2 / 2)``, divided by an integral over x that is the same
    for every y. It needs an embedding that looks alike from all points: of spheres, tori, groups, flat spaces.

    **Required.** `log_normaliser`, for kernel densities. **Optional.** `sample`, for flows that start from them.

    Args:
        manifold: where it lives.
    """

    centre_count: int = 1
    """How many `centres` there are of each point."""

    def __init__(self, manifold: Embedded) -> None:
        self.manifold = manifold

    @abstractmethod
    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """Return ``log`` of the integral over x of ``exp(-concentration |embed(x) - embed(y)|^2 / 2)``.

        Where `centres` are several, it is the integral for each of them.
        """

    def embed(self, x: Tensor) -> Tensor:
        """Return the coordinates that distances are measured in: the manifold's, except where points are classes."""
        return self.manifold.embed(x)

    def centres(self, x: Tensor) -> Tensor:
        """Return the points that share the kernel about ``x`` in equal parts, ``(*batch, r, *event_shape)``.

        ``x`` alone is the default. Where points are classes they are the representatives: then the kernel's density is
        the same at all representatives of the point it is evaluated at.
        """
        return x.unsqueeze(-1 - len(self.manifold.event_shape))

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return draws y whose density is proportional to ``exp(-concentration |embed(x) - embed(y)|^2 / 2)``.

        Args:
            x: centres ``(*batch, *event_shape)``.
            concentration: positive, ``(*batch)``; it broadcasts with the centres.
            generator: source of randomness, on the device of ``x``.

        Raises:
            ValueError: by default: it is not written.
        """
        raise ValueError(
            f"{type(self).__name__}: has no draws on {self.manifold}; write its sample(x, concentration, generator), "
            "or start from another source, such as WrappedNormal or Uniform"
        )


class ProductKernel(Kernel):
    """Kernels side by side, on embeddings that are joined.

    Args:
        manifold: the product.
        kernels: those of the factors.
        log_volume_scale: what the weights of the factors' metrics add to the logarithm of the volume.
        split: takes a point apart into the factors' parts.
        join: puts parts together.
    """

    def __init__(
        self,
        manifold: Embedded,
        kernels: Sequence[Kernel],
        log_volume_scale: float,
        split: Callable[[Tensor], Sequence[Tensor]],
        join: Callable[..., Tensor],
    ) -> None:
        super().__init__(manifold)
        self.kernels, self.log_volume_scale, self.split, self.join = kernels, log_volume_scale, split, join

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        terms = torch.stack([kernel.log_normaliser(concentration) for kernel in self.kernels])
        return terms.sum(0) + self.log_volume_scale

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([kernel.embed(a) for kernel, a in zip(self.kernels, self.split(x), strict=True)], dim=-1)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        pairs = zip(self.kernels, self.split(x), strict=True)
        return self.join(*(kernel.sample(a, concentration, generator) for kernel, a in pairs))


class PowerKernel(Kernel):
    """Copies of one kernel along an axis before the event's.

    Args:
        manifold: the power.
        kernel: that of one copy.
        k: number of copies.
    """

    def __init__(self, manifold: Embedded, kernel: Kernel, k: int) -> None:
        super().__init__(manifold)
        self.kernel, self.k = kernel, k

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        return self.k * self.kernel.log_normaliser(concentration)

    def embed(self, x: Tensor) -> Tensor:
        return self.kernel.embed(x).flatten(-2)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.kernel.sample(x, concentration[..., None], generator)


class ScaledKernel(Kernel):
    """A kernel on a manifold whose lengths are multiplied, in coordinates that are not.

    Args:
        manifold: the scaled manifold.
        kernel: that of the manifold as it was.
        factor: what lengths are multiplied by.
        dim: the manifold's dimension.
    """

    def __init__(self, manifold: Embedded, kernel: Kernel, factor: float, dim: int) -> None:
        super().__init__(manifold)
        self.kernel, self.log_volume_scale = kernel, dim * math.log(factor)
        self.centre_count = kernel.centre_count

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        return self.kernel.log_normaliser(concentration) + self.log_volume_scale

    def embed(self, x: Tensor) -> Tensor:
        return self.kernel.embed(x)

    def centres(self, x: Tensor) -> Tensor:
        return self.kernel.centres(x)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.kernel.sample(x, concentration, generator)


class QuotientKernel(Kernel):
    """The mean of a kernel about the representatives of a class.

    Args:
        manifold: the quotient.
        kernel: that of the manifold that it is a quotient of.
        group: the group.
    """

    def __init__(self, manifold: Embedded, kernel: Kernel, group: FiniteGroup) -> None:
        super().__init__(manifold)
        self.kernel, self.group = kernel, group
        self.centre_count = kernel.centre_count * group.order

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        return self.kernel.log_normaliser(concentration)

    def embed(self, x: Tensor) -> Tensor:
        return self.kernel.embed(x)

    def centres(self, x: Tensor) -> Tensor:
        """Return the representatives of ``x``, each with its own centres.

        Raises:
            ValueError: the group does not preserve the distances that the kernel depends on; the mean over the class
                of the centre would then not be a function of the class of the other point.
        """
        images = self.group.orbit(x)
        self._check_invariance(images)
        rank = len(self.manifold.event_shape)
        return self.kernel.centres(images).flatten(-2 - rank, -1 - rank)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw from the kernel about the representative given: all give the same distribution of classes."""
        return self.kernel.sample(x, concentration, generator)

    def _check_invariance(self, images: Tensor) -> None:
        """Raise ValueError unless a few images, ``(*batch, order, *event_shape)``, are as far apart as the points."""
        few = self.kernel.embed(images.detach().flatten(0, -2 - len(self.manifold.event_shape))[:64])
        distance = (few - few.roll(1, 0)).norm(dim=-1)
        tolerance = 1e4 * torch.finfo(few.dtype).eps * (1 + float(few.abs().max()))
        if not bool(((distance - distance[:, :1]).abs() <= tolerance).all()):
            raise ValueError(
                f"{self.manifold} has no smoothing kernel: {self.group} changes distances between embedded points; "
                "compare with the source's density instead"
            )
