"""What a source is, and the one that every manifold of finite volume has."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, positive, shown
from manifolds.numerics.precision import FullPrecisionModule
from rfm.arrays import points_of, shape_of, tensor_of


class Source(FullPrecisionModule, ABC):
    """A distribution on a manifold that can be sampled and scored.

    A subclass writes `sample` and `log_prob`, which compute in float32 or more as a manifold's maps do. To be saved
    with a flow it keeps its constructor's arguments as attributes of the same names.

    Args:
        manifold: where it lives.
    """

    in_any_precision = FullPrecisionModule.in_any_precision | {"on", "check_density"}

    def __init__(self, manifold: Manifold) -> None:
        super().__init__()
        check_instance(type(self).__name__, "manifold", manifold, Manifold, "Sphere(2)")
        self.manifold = manifold

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return independent draws.

        Args:
            shape: how many; the sources here take a number too.
            generator: source of randomness; global random state is not touched where one is given.
            dtype: of the points, by default torch's default.
            device: of the points, by default that of the source's own tensors.

        Returns:
            Points ``(*shape, *event_shape)``.
        """

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density with respect to the Riemannian volume, in nats, ``(*batch)``.

        Args:
            x: points ``(*batch, *event_shape)``: a tensor, or what NumPy makes an array of; whole numbers count as
                floating point of torch's default dtype.
        """

    @property
    def has_density(self) -> bool:
        """Whether `log_prob` is defined: an `Empirical` source, of point masses, has no density."""
        return True

    def check_density(self, where: str) -> None:
        """Raise ValueError unless there is a density.

        Args:
            where: who asks for it.
        """
        if not self.has_density:
            raise ValueError(
                f"{where}: there is no log-density: the source, {type(self).__name__} on {self.manifold}, consists of "
                "given points, which have no density with respect to the volume; compare samples with rfm.metrics, or "
                "start from a KernelMixture of the same points"
            )

    def on(self, manifold: Manifold) -> "Source":
        """Return the same distribution on another manifold of the same kind, for a source that knows how.

        Raises:
            ValueError: by default: it is made for one manifold.
        """
        raise ValueError(f"{type(self).__name__}: is made for {self.manifold} alone; make one on {manifold}")


class Uniform(Source):
    """The uniform distribution on a manifold of finite volume.

    Args:
        manifold: where it lives.

    Raises:
        ValueError: if the manifold states no finite volume.
    """

    def __init__(self, manifold: Manifold) -> None:
        super().__init__(manifold)
        if manifold.volume is None:
            raise ValueError(f"Uniform: {manifold} has no finite volume; use another source, such as WrappedNormal")
        self._volume = manifold.volume

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        size = draws(self, shape, dtype)
        return self.manifold.random_uniform(*size, generator=generator, dtype=dtype, device=device)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("Uniform", self.manifold, x)
        return torch.full_like(x.flatten(x.ndim - len(self.manifold.event_shape))[..., 0], -math.log(self._volume))


def draws(source: Source, shape: int | tuple[int, ...], dtype: torch.dtype | None) -> torch.Size:
    """Return how many points a source is asked for.

    Raises:
        ValueError: for what is no shape, or a dtype that points cannot have.
    """
    owner = f"{type(source).__name__}.sample"
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"{owner}: points are floating point, got the dtype {dtype}; choose torch.float32 or float64")
    return shape_of(owner, shape)


def checked_point(owner: str, name: str, manifold: Manifold, point: Tensor) -> Tensor:
    """Return one point of ``manifold`` in float64.

    A point in float64 stays as it is, bit for bit, so that saving and loading do not move it; one of less precision is
    projected after the conversion.

    Args:
        owner: the class that takes it, for the message.
        name: the argument.
        manifold: where it has to be.
        point: a tensor, or nested numbers, which are read in float64.

    Raises:
        ValueError: if it is no point, or not a single one.
    """
    point = tensor_of(owner, name, point, None if isinstance(point, Tensor) else torch.float64)
    if point.shape != manifold.event_shape:
        raise ValueError(
            f"{owner}: {name} must be one point of {manifold}, of shape {tuple(manifold.event_shape)}, got "
            f"{tuple(point.shape)}; pass one point, for example a mean over the data projected with projx"
        )
    try:
        manifold.check_point(point)
    except ValueError as error:
        raise ValueError(f"{owner}: {name} is no point of its manifold: {error}") from None
    point = point.detach()
    return point if point.dtype == torch.float64 else manifold.projx(point.double())


def checked_scale(owner: str, name: str, scale: float) -> float:
    """Return ``scale`` as a float.

    Raises:
        ValueError: unless it is positive and finite.
    """
    return positive(owner, name, scale, "it is a standard deviation")


def checked_part(owner: str, name: str, source: object, manifold: Manifold) -> Source:
    """Return ``source``, a part of another source that lives on ``manifold``.

    Raises:
        ValueError: if it is no source, or one on another manifold.
    """
    if not isinstance(source, Source):
        raise ValueError(f"{owner}: {name} must be a source, got {shown(source)}; make one on {manifold}")
    check_same_manifold(owner, name, source.manifold, manifold)
    return source


def check_same_manifold(owner: str, name: str, own: Manifold, manifold: Manifold) -> None:
    """Raise ValueError unless ``own``, where the argument ``name`` lives, is the same as ``manifold``."""
    if not own.same_as(manifold):
        raise ValueError(f"{owner}: {name} lives on {own}, where {manifold} is required; make it on {manifold}")
