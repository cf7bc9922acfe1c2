"""What a velocity has to be, checked where a field enters."""

import torch
from torch import Tensor

from manifolds import Manifold


def check_form(where: str, x: Tensor, u: Tensor) -> None:
    """Raise ValueError unless velocities ``u`` at points ``x`` have their shape, dtype and device."""
    if not isinstance(u, Tensor):
        raise ValueError(f"{where}: the field must return a tensor, got {type(u).__name__}")
    actual, expected = ((tuple(v.shape), v.dtype, v.device.type) for v in (u, x))
    if actual != expected:
        raise ValueError(
            f"{where}: the field returned {_words(*actual)} for points of {_words(*expected)}; it must return "
            "a velocity for each point, like the point"
        )


def check_velocity(where: str, manifold: Manifold, x: Tensor, u: Tensor) -> None:
    """Raise ValueError unless ``u`` has the form of ``x`` and is tangent there; what is not finite is passed over.

    Args:
        where: the caller, for the message.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        u: what a field returned there.
    """
    check_form(where, x, u)
    axes = tuple(range(x.ndim - len(manifold.event_shape), x.ndim))
    size, gap = (torch.linalg.vector_norm(v, dim=axes) for v in (u, manifold.proju(x, u) - u))
    eps = torch.finfo(x.dtype).eps
    # Far out on a hyperboloid the projection cancels terms of size |x|^2; and points that were rounded to fewer digits
    # are off the manifold, so that a projection there is no projection.
    norm, off = (torch.linalg.vector_norm(v, dim=axes) for v in (x, manifold.projx(x) - x))
    bound = eps**0.5 + 16 * eps * norm.square() + 4 * off / norm.clamp(min=eps)
    share = gap / size.clamp(min=eps**0.5)
    bad = share.isfinite() & (share > bound)
    if bool(bad.any()):
        raise ValueError(
            f"{where}: the field is not tangent to {manifold}: at {int(bad.sum())} of {bad.numel()} points a part of "
            f"the velocity is normal, up to {float(share[bad].max()):.3g} of its length; end it with "
            "manifold.proju(x, u)"
        )


def _words(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> str:
    return f"shape {shape} and {str(dtype).removeprefix('torch.')} on {device}"
