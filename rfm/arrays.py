"""From whatever holds numbers to tensors: the one conversion where points, conditions, weights and shapes come in.

All that NumPy makes an array of is taken: arrays in any order of bytes and memory, data frames, nested lists, also of
tensors. Whole numbers and truth values become floating point, never the other way round. The rest is refused with one
sentence.
"""

import datetime
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import shown
from manifolds.checks import check_shape

TIMES = "pass numbers, such as days since the first: (t - t.min()) / numpy.timedelta64(1, 'D')"
"""What to do with points in time."""

TEXTS = "pass a tensor or an array of numbers; in a condition given by name, {name: texts}, texts are labels"
"""What to do with texts."""

_COMPLEX = "complex numbers", "pass real ones, such as an angle or the real part"
_SHARED = (np.float16, np.float32, np.float64)
"""Precisions that NumPy and torch share."""


def tensor_of(owner: str, name: str, values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Return values as a floating-point tensor.

    A tensor stays on its device, and what is floating point already keeps its precision and, being a tensor, its
    gradient. Whole numbers, truth values and Python's own numbers get torch's default dtype; numbers longer than
    float64, float64.

    Args:
        owner: what takes them, for the message.
        name: the argument.
        values: a tensor, or what NumPy makes an array of numbers of.
        dtype: of the result instead, floating point.

    Raises:
        ValueError: they are no real numbers, or partly masked.
    """
    own = values if isinstance(values, Tensor) else _read(owner, name, values, dtype)
    if own.is_complex():
        raise _refusal(owner, name, *_COMPLEX)
    if own.layout != torch.strided:
        raise _refusal(owner, name, f"a tensor of layout {own.layout}", "pass to_dense() of it")
    return own.to(dtype or (own.dtype if own.is_floating_point() else torch.get_default_dtype()))


def points_of(owner: str, manifold: Manifold, x: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Return points as a floating-point tensor ``(*batch, *event_shape)``, as `tensor_of` does.

    Raises:
        ValueError: they are no real numbers, or have another shape.
    """
    own = tensor_of(owner, "points", x, dtype)
    try:
        check_shape(manifold, "points", own)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
    return own


def indices_of(owner: str, name: str, values: Any) -> Tensor:
    """Return whole numbers as an int64 tensor on the CPU, flat.

    Raises:
        ValueError: they are none, such as a mask.
    """
    array = array_of(owner, name, values)
    if array.dtype.kind not in "iu" or array.size == 0:
        raise ValueError(
            f"{owner}: {name} must hold whole numbers, the indices of points, at least one, got {array.size} of "
            f"{array.dtype}; for a mask pass mask.nonzero()"
        )
    return torch.from_numpy(array.astype(np.int64).reshape(-1))


def shape_of(owner: str, shape: Any) -> torch.Size:
    """Return a shape, given as one or several whole numbers.

    Raises:
        ValueError: it is none, or negative.
    """
    sizes = shape.tolist() if isinstance(shape, Tensor | np.ndarray) else shape
    try:
        size = torch.Size(map(operator.index, sizes if isinstance(sizes, Sequence) else [sizes]))
    except TypeError:
        raise ValueError(
            f"{owner}: shape must be a whole number, or several, got {shown(shape)}; pass how many points to draw"
        ) from None
    if any(n < 0 for n in size):
        raise ValueError(f"{owner}: shape must not be negative, got {tuple(size)}; pass how many points to draw")
    return size


def _read(owner: str, name: str, values: Any, dtype: torch.dtype | None) -> Tensor:
    """Return what is no tensor as one."""
    leaf = _leaf(values)
    if isinstance(leaf, Tensor):
        parts = [tensor_of(owner, name, value, dtype) for value in values]
        try:
            return torch.stack(parts)
        except RuntimeError as error:
            raise _refusal(owner, name, "tensors that do not stack", _first_line(error)) from None
    array = array_of(owner, name, values)
    if array.dtype.kind not in "fiub":
        raise _refusal(owner, name, *_fault(array))
    native = array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):
        # Memory of its own where torch cannot share it: of another order, running backwards, or not to be written to.
        own = np.require(array, native if native in _SHARED else np.float64, ["C", "A", "W", "E"])
    plain = array.dtype.kind != "f" or type(leaf) in (int, float)
    return torch.from_numpy(own).to(dtype or torch.get_default_dtype()) if plain else torch.from_numpy(own)


def array_of(owner: str, name: str, values: Any) -> NDArray[Any]:
    """Return what NumPy makes of values, in their own dtype: labels need not be numbers.

    Raises:
        ValueError: it makes nothing of them, or they are partly masked.
    """
    try:
        if isinstance(values, Tensor):
            array = values.detach().cpu().resolve_conj().numpy()
        elif isinstance(_leaf(values), Tensor):
            array = np.stack([array_of(owner, name, value) for value in values])
        else:
            array = np.asanyarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refusal(owner, name, f"{type(values).__name__} ({_first_line(error)})", "pass an array") from None
    if isinstance(array, np.ma.MaskedArray) and array.mask.any():
        remedy = "leave those rows out, or fill them: filled(numpy.nan) where NaN may stand for not known"
        raise _refusal(owner, name, f"{int(array.mask.sum())} masked values", remedy)
    if array.dtype.kind != "O":
        return np.asarray(array)
    if array.size and all(isinstance(cell, str) for cell in array.flat):
        return array.astype(str)
    raise _refusal(owner, name, *_fault(array))


def _fault(array: NDArray[Any]) -> tuple[str, str]:
    """Return what an array holds in place of numbers, and what to do about it."""
    kind = array.dtype.kind
    if kind == "c":
        return _COMPLEX
    cells = array.ravel().tolist() if kind == "O" else []
    odd = next((cell for cell in cells if isinstance(cell, str | datetime.date | datetime.timedelta)), None)
    if kind in "Mm" or isinstance(odd, datetime.date | datetime.timedelta):
        return "times" if kind == "O" else f"times ({array.dtype})", TIMES
    if kind in "UST" or odd is not None:
        text = odd if kind == "O" else next(iter(array.ravel().tolist()), "")
        return f"texts, such as {str(text)[:40]!r}", TEXTS
    if array.dtype.names:
        fields = ", ".join(array.dtype.names[:8])
        return f"records with fields {fields}", "pass numpy.lib.recfunctions.structured_to_unstructured(values)"
    what = next((type(cell).__name__ for cell in cells if not isinstance(cell, int | float)), array.dtype.name)
    return f"objects, such as {what}", "pass an array of numbers, such as values.astype(float)"


def _leaf(values: Any) -> Any:
    """Return the first entry of nested lists."""
    while isinstance(values, list | tuple) and values:
        values = values[0]
    return values


def _refusal(owner: str, name: str, found: str, remedy: str) -> ValueError:
    return ValueError(f"{owner}: {name} cannot be read as numbers, it holds {found}; {remedy}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
