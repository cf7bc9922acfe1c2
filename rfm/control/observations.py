"""What a policy sees, as named tokens: vectors, points such as poses, words and pictures.

An observation is a mapping from names to values; `Observations.encode` makes a vector of it, in which form it travels
through training, flows and solvers as any condition does, and `rfm.control.ActionNetwork` makes tokens of that vector.
What is left out, or has an entry that is NaN, has no token: nothing attends to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer
from rfm.arrays import points_of, tensor_of
from rfm.conditions.cells import check_name


class Observation(Protocol):
    """One named part of what is seen; `rfm.conditions.Picture` is one too."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def width(self) -> int:
        """The number of its entries in a vector."""

    def vectors(self, values: Any) -> Tensor:
        """Return the entries ``(width,)`` that a value means, or ``(n, width)`` those of several."""


@final
@dataclass(frozen=True)
class Vector:
    """Numbers that belong together, such as forces or joint velocities: one token.

    Args:
        name: what it is called.
        size: how many numbers.
        offset: subtracted from them ``(size,)``; zeros by default.
        scale: they are then divided by it ``(size,)``; ones by default.
    """

    name: str
    size: int
    offset: Sequence[float] | None = None
    scale: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        object.__setattr__(self, "size", integer("Vector", "size", self.size))
        for name in ("offset", "scale"):
            object.__setattr__(self, name, _numbers("Vector", name, getattr(self, name), self.size))

    @classmethod
    def of(cls, name: str, values: Any) -> "Vector":
        """Return the observation of values ``(n, size)`` like these, standardised by their mean and spread."""
        known = tensor_of("Vector.of", name, values, torch.float64)
        mean, spread = known.mean(0), known.std(0, correction=0)
        return cls(name, known.shape[1], mean.tolist(), torch.where(spread > 0, spread, 1.0).tolist())

    @property
    def width(self) -> int:
        """The number of entries in a vector."""
        return self.size

    def vectors(self, values: Any) -> Tensor:
        """Return values ``(size,)`` or ``(n, size)`` as they are, in float64."""
        return _shaped(self.name, tensor_of("Vector", self.name, values, torch.float64), (self.size,))


@final
@dataclass(frozen=True)
class Point:
    """A point of a manifold, such as the pose of a hand or the angles of an arm: one token, of its ``embed``.

    Args:
        name: what it is called.
        manifold: where it lives.
        offset: subtracted from the coordinates ``(manifold.embed_dim,)``; zeros by default.
        scale: the unit of the coordinates.
    """

    name: str
    manifold: Manifold
    offset: Sequence[float] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_name(self.name)
        check_instance("Point", "manifold", self.manifold, Manifold, "SE3()")
        object.__setattr__(self, "offset", _numbers("Point", "offset", self.offset, self.manifold.embed_dim))

    @classmethod
    def of(cls, name: str, manifold: Manifold, points: Any) -> "Point":
        """Return the observation of points like these ``(n, *event_shape)``, with the origin and scale of theirs."""
        embedded = manifold.embed(points_of("Point.of", manifold, points).double())
        return cls(name, manifold, *origin_and_scale(manifold, embedded))

    @property
    def width(self) -> int:
        """The number of entries in a vector."""
        return self.manifold.event_shape.numel()

    def vectors(self, values: Any) -> Tensor:
        """Return points ``(*event_shape)`` or ``(n, *event_shape)``, flattened, in float64."""
        x = tensor_of("Point", self.name, values, torch.float64)
        return _shaped(self.name, x, tuple(self.manifold.event_shape)).flatten(x.ndim - len(self.manifold.event_shape))


@final
@dataclass(frozen=True)
class Words:
    """A text as numbers of words or pieces of words: a token each.

    Args:
        name: what it is called.
        vocabulary: how many different ones there are.
        length: the most that a text has; shorter ones are filled up with NaN.
    """

    name: str
    vocabulary: int
    length: int = 1

    def __post_init__(self) -> None:
        check_name(self.name)
        for field in ("vocabulary", "length"):
            object.__setattr__(self, field, integer("Words", field, getattr(self, field)))

    @property
    def width(self) -> int:
        """The number of entries in a vector."""
        return self.length

    def vectors(self, values: Any) -> Tensor:
        """Return the entries of numbers of words ``(k,)`` or ``(n, k)`` with at most ``length`` of them.

        Raises:
            ValueError: there are more, or one is not from 0 to below ``vocabulary``.
        """
        ids = tensor_of("Words", self.name, values, torch.float64)
        if ids.ndim not in (1, 2) or ids.shape[-1] > self.length:
            raise ValueError(
                f"{self.name} is numbers of at most {self.length} words, ({self.length},) or (n, {self.length}), got "
                f"shape {tuple(ids.shape)}; cut it, or make Words with another length"
            )
        known = ids[~ids.isnan()]
        if bool(((known < 0) | (known >= self.vocabulary) | (known != known.floor())).any()):
            raise ValueError(
                f"{self.name} holds numbers of words from 0 to {self.vocabulary - 1}, got {float(known.min()):g} to "
                f"{float(known.max()):g}; make Words with another vocabulary"
            )
        return torch.nn.functional.pad(ids, (0, self.length - ids.shape[-1]), value=torch.nan)


@final
@dataclass(frozen=True)
class Observations:
    """All that a policy sees, in the order of the entries of a vector.

    Args:
        parts: at least one, of different names: `Vector`, `Point`, `Words` and `rfm.conditions.Picture`.
    """

    parts: Sequence[Observation]

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise ValueError(f"Observations: parts have different names, at least one, got {names}")
        object.__setattr__(self, "parts", tuple(self.parts))

    @property
    def names(self) -> tuple[str, ...]:
        """The parts' names."""
        return tuple(part.name for part in self.parts)

    @property
    def width(self) -> int:
        """The length of the vectors."""
        return sum(part.width for part in self.parts)

    def encode(self, observation: Mapping[str, Any]) -> Tensor:
        """Return the vector of one observation ``(width,)``, or of several ``(n, width)``, float64.

        Args:
            observation: values by name, each of one observation or of n. What is left out is not known.

        Raises:
            ValueError: for a name that is not among the parts, a value that cannot be used, or different n.
        """
        unknown = set(observation) - set(self.names)
        if unknown:
            raise ValueError(f"Observations: there is no {sorted(unknown)[0]!r}; the parts are {', '.join(self.names)}")
        known = {part.name: part.vectors(observation[part.name]) for part in self.parts if part.name in observation}
        counts = {len(entries) for entries in known.values() if entries.ndim == 2}
        if len(counts) > 1:
            raise ValueError(f"Observations: parts have different lengths, {sorted(counts)}; give one value for each")
        full = [known.get(part.name, torch.full((part.width,), torch.nan, dtype=torch.float64)) for part in self.parts]
        return torch.cat([entries.expand(*counts, entries.shape[-1]) for entries in full], dim=-1)

    def split(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """Return the parts' entries ``(*batch, part.width)`` of vectors ``(*batch, width)``.

        Raises:
            ValueError: if the vectors have another length.
        """
        if vectors.shape[-1] != self.width:
            raise ValueError(
                f"Observations: vectors have {self.width} entries ({', '.join(self.names)}), got shape "
                f"{tuple(vectors.shape)}; use encode"
            )
        return vectors.split([part.width for part in self.parts], dim=-1)


def origin_and_scale(manifold: Manifold, embedded: Tensor) -> tuple[list[float] | None, float]:
    """Return an origin and a unit for coordinates ``(n, embed_dim)`` of points: their own only where space has none."""
    if manifold.volume is not None:
        return None, float(embedded.abs().max()) or 1.0
    mean = embedded.mean(0)
    return mean.tolist(), float((embedded - mean).square().mean().sqrt()) or 1.0


def _numbers(owner: str, name: str, values: Sequence[float] | None, count: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) != count:
        raise ValueError(f"{owner}: {name} must hold {count} numbers, got {len(values)}; give one for each")
    return tuple(float(value) for value in values)


def _shaped(name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return values of one observation or of several.

    Raises:
        ValueError: for another shape.
    """
    if values.ndim - len(shape) not in (0, 1) or tuple(values.shape[values.ndim - len(shape) :]) != shape:
        one = ", ".join(map(str, shape))
        raise ValueError(f"{name} has shape ({one},) or (n, {one}), got {tuple(values.shape)}; reshape it")
    return values
