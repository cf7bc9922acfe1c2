"""A picture as what a density is conditional on: one column of `rfm.conditions`, with an entry for each pixel."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.arrays import tensor_of


@final
@dataclass(frozen=True)
class Picture:
    """A column of square grey pictures: brightness from 0, black, to 1, row by row from the top.

    A field that reads one is usually `rfm.networks.Encoded`. There is no telling what a pixel that is not known would
    mean, so a picture has to be given.

    Args:
        name: what it is called.
        size: pixels along an edge.
    """

    kind: ClassVar[str] = "picture"

    name: str
    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"a condition has a name, got {self.name!r}")
        object.__setattr__(self, "size", integer("Picture", "size", self.size, None))
        if not 1 <= self.size <= 4096:
            raise ValueError(f"Picture: size is a number of pixels, 1 to 4096, got {self.size}")

    @property
    def width(self) -> int:
        """The number of entries in a condition vector."""
        return self.size**2

    @property
    def labels(self) -> int:
        """The number of labels: none."""
        return 0

    def vectors(self, values: Any) -> Tensor:
        """Return the entries ``(width,)`` that a picture means, or ``(n, width)`` those of several.

        Args:
            values: the name of a PNG file, or several; or pictures as numbers, ``(size, size)`` or ``(n, size, size)``.

        Raises:
            ValueError: there is none, it cannot be read, or it has another size.
        """
        if isinstance(values, str | os.PathLike) and str(values).strip():
            return self._checked(read_picture(Path(values)), f"{values} has")
        several = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        if several and all(isinstance(value, str | os.PathLike) for value in values):
            # A table may name one picture in many rows.
            seen = {value: self.vectors(value) for value in dict.fromkeys(values)}
            return torch.stack([seen[value] for value in values])
        try:
            pixels = tensor_of("Picture", self.name, values, torch.float64).detach().cpu()
        except ValueError:
            raise ValueError(
                f"{self.name} must be given: the name of a PNG file, or pictures ({self.size}, {self.size}), got "
                f"{str(values)[:40]}"
            ) from None
        return self._checked(pixels, f"{self.name} has")

    def value(self, entries: Tensor) -> None:
        """Return what entries mean: nothing that a table could hold."""

    def title(self, entries: Tensor) -> str:
        """Return what entries mean, in words."""
        return f"given a {self.name}"

    def describe(self) -> str:
        """Return the name and the size."""
        return f"{self.name} (a PNG file of {self.size} x {self.size} pixels)"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values."""
        return {"name": self.name, "size": self.size}

    def _checked(self, pixels: Tensor, what: str) -> Tensor:
        if pixels.ndim not in (2, 3) or tuple(pixels.shape[-2:]) != (self.size, self.size):
            shape = " x ".join(str(edge) for edge in reversed(pixels.shape))
            raise ValueError(f"{what} {shape} pixels, {self.size} x {self.size} are required; scale it")
        if not bool(pixels.isfinite().all()) or float(pixels.min()) < 0 or float(pixels.max()) > 1:
            raise ValueError(f"{what} values outside of 0 to 1; divide by the largest that there can be")
        return pixels.flatten(-2)


def read_picture(path: Path) -> Tensor:
    """Return the brightness of a PNG file's pixels, ``(height, width)`` from 0 to 1, float64; colours are averaged.

    Raises:
        ValueError: if there is no such file, or it is no PNG file.
    """
    from matplotlib.image import imread

    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the name of a PNG file")
    try:
        values = torch.tensor(imread(path, format="png"))
    except (OSError, SyntaxError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is no picture that can be read ({reason}); give a PNG file") from None
    values = values.double() / (1 if values.is_floating_point() else torch.iinfo(values.dtype).max)
    # Of four channels the last is opacity, and of two.
    return values if values.ndim == 2 else values[..., : 3 if values.shape[-1] > 2 else 1].mean(-1)
