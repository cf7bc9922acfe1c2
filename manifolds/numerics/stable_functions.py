"""Small-angle functions and tolerances that every manifold shares.

The functions here take the *square* of an angle. A norm has no derivative at zero, its square does; written in
the square, ``cos`` and ``sin(a)/a`` are entire functions, so values and derivatives of every order are right at zero,
where the usual formulas divide by it. Where derivatives may be asked for, each function selects between a series and
the closed form; since both branches are differentiated, the argument of the branch not taken is kept at a harmless
value. Where they may not, the closed form alone is right everywhere.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_SERIES_BOUND = 0.1
"""Below this square the series is used: its first neglected term is under 2e-18, and above it the derivative of the
closed form loses at most a factor 1 / 0.1 to cancellation."""


def horner(q: Tensor, coefficients: tuple[float, ...], bound: float = math.inf) -> Tensor:
    """Evaluate ``sum_k coefficients[k] q^k``.

    Args:
        q: arguments, any shape.
        coefficients: real numbers, the first not zero.
        bound: the largest ``|q|`` that matters; terms that cannot count in the dtype of ``q`` are left out, with a
            margin for two derivatives.
    """
    last = len(coefficients) - 1
    # Apart, since the compiler cannot compare with an infinite number.
    if bound < math.inf:
        least = torch.finfo(q.dtype).eps / 8 * abs(coefficients[0])
        last = max(k for k, c in enumerate(coefficients) if k <= 2 or abs(c) * k * k * bound**k > least)
    value = (coefficients[last] * q).add_(coefficients[last - 1])
    for coefficient in reversed(coefficients[: last - 1]):
        value = (value * q).add_(coefficient)
    return value


def _even(q: Tensor, *functions: tuple[tuple[float, ...], Callable[[Tensor], Tensor]]) -> list[Tensor]:
    """Return ``closed_form(sqrt(q))`` for each pair; where derivatives may be asked for, the series near ``q = 0``."""
    if not differentiated(q):
        # Near 0 only the derivatives of the closed form lose digits; its value must not be 0 / 0, that is all.
        return _each(root(q), [closed for _, closed in functions])
    far = _each(torch.sqrt(q.clamp(min=_SERIES_BOUND)), [closed for _, closed in functions])
    inner = q.clamp(max=_SERIES_BOUND)
    near = [horner(inner, series, _SERIES_BOUND) for series, _ in functions]
    small = (q < _SERIES_BOUND).to(q.dtype)
    return [pick(a, b, small) for a, b in zip(far, near, strict=True)]


def pick(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return ``a`` where the weight is 0 and ``b`` where it is 1, many times faster than where on a CPU."""
    if a.ndim == 0:
        # Forward mode takes plain numbers for double precision where a tensor has no axes, which lerp does not forgive.
        return a * (1 - weight) + b * weight
    return torch.lerp(a, b, weight)


def _each(a: Tensor, functions: list[Callable[[Tensor], Tensor]]) -> list[Tensor]:
    return [f(a) for f in functions]


_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(8))
_SINC = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(8))
_COSH = tuple(1 / math.factorial(2 * k) for k in range(8))
_SINHC = tuple(1 / math.factorial(2 * k + 1) for k in range(8))


def cos_of_root(q: Tensor) -> Tensor:
    """Return ``cos(sqrt(q))`` for ``q >= 0``, smooth at 0."""
    return _even(q, (_COS, torch.cos))[0]


def sinc_of_root(q: Tensor) -> Tensor:
    """Return ``sin(a) / a`` at ``a = sqrt(q)`` for ``q >= 0``, smooth at 0."""
    return _even(q, (_SINC, _sinc))[0]


def cos_and_sinc_of_root(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return `cos_of_root` and `sinc_of_root`."""
    cos, sinc = _even(q, (_COS, torch.cos), (_SINC, _sinc))
    return cos, sinc


def sinc_defect_of_root(q: Tensor) -> Tensor:
    """Return ``(1 - sin(a) / a) / a^2`` at ``a = sqrt(q)`` for ``q >= 0``, smooth at 0: 1/6 there."""
    # Unlike the others, the closed form cancels near 0 in its value too.
    a = torch.sqrt(q.clamp(min=_DEFECT_BOUND))
    near = horner(q.clamp(max=_DEFECT_BOUND), _SINC_DEFECT, _DEFECT_BOUND)
    return pick((1 - _sinc(a)) / (a * a), near, (q < _DEFECT_BOUND).to(q.dtype))


_DEFECT_BOUND = 1.0
_SINC_DEFECT = tuple((-1) ** k / math.factorial(2 * k + 3) for k in range(11))


def cosh_of_root(q: Tensor) -> Tensor:
    """Return ``cosh(sqrt(q))`` for ``q >= 0``, smooth at 0."""
    return _even(q, (_COSH, torch.cosh))[0]


def sinhc_of_root(q: Tensor) -> Tensor:
    """Return ``sinh(a) / a`` at ``a = sqrt(q)`` for ``q >= 0``, smooth at 0."""
    return _even(q, (_SINHC, _sinhc))[0]


def cosh_and_sinhc_of_root(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return `cosh_of_root` and `sinhc_of_root`."""
    cosh, sinhc = _even(q, (_COSH, torch.cosh), (_SINHC, _sinhc))
    return cosh, sinhc


def _sinc(a: Tensor) -> Tensor:
    return torch.sin(a) / a


def _sinhc(a: Tensor) -> Tensor:
    return torch.sinh(a) / a


def safe_norm(x: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """Return the Euclidean norm, whose derivative at zero is taken to be zero instead of NaN.

    Args:
        x: tensor of any shape.
        dim: the axis of the vectors.
        keepdim: keep that axis with length one.
    """
    return safe_sqrt((x * x).sum(dim, keepdim=keepdim))


def safe_sqrt(q: Tensor) -> Tensor:
    """Return ``sqrt(q)`` for ``q >= 0``, with derivative zero at zero instead of infinity."""
    zero = q <= 0
    return torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, q)))


def root(q: Tensor) -> Tensor:
    """Return ``sqrt(q)`` for ``q >= 0``, of positive value and finite derivative at zero: a length to divide by.

    What is added is the smallest normal number: it changes no root that is above 1e-15 in float32, 1e-146 in float64.
    """
    return torch.sqrt(q + torch.finfo(q.dtype).tiny)


def contiguous(views: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return tensors of one shape, each contiguous in memory, which makes a CPU's arithmetic several times as fast.

    Compiled for a GPU they stay as they are: its kernels read any layout once. Compiled for a CPU they are copied three
    at a time, because a kernel is vectorised only if it reads little that is not contiguous, and because the allocator
    returns blocks of more than 32 MB to the system, whose fresh pages cost more than the copy.
    """
    if not torch.compiler.is_compiling():
        return torch.stack(tuple(views)).unbind(0)
    if views[0].device.type != "cpu":
        return tuple(views)
    return tuple(c for i in range(0, len(views), 3) for c in torch.stack(tuple(views[i : i + 3])).unbind(0))


Components = Tensor | Sequence[Tensor]
"""The components of vectors, each ``(*batch)``: of many a tensor ``(n, *batch)``, of few a list.

On a CPU, arithmetic between ``(B, 1)`` and ``(B, 3)`` and sums over 3 leave most of the vector unit idle; between
``(B,)`` and ``(B,)`` they do not. Between ``(B,)`` and ``(3, B)`` they do not either, but then the compiler works out
the former three times. Long vectors fill the unit as they are.
"""


def components_first(x: Tensor, copy: bool = True) -> Components:
    """Return the components of a tensor ``(*batch, n)``: contiguous in memory, or views if they are read but once."""
    if x.shape[-1] > _FEW:
        return x.movedim(-1, 0).contiguous() if copy else x.movedim(-1, 0)
    return contiguous(x.unbind(-1)) if copy else x.unbind(-1)


def components_last(x: Components) -> Tensor:
    """Return a tensor ``(*batch, n)``, contiguous in memory; the inverse of `components_first`."""
    return x.movedim(0, -1).contiguous() if isinstance(x, Tensor) else torch.stack(tuple(x), dim=-1)


def each(function: Callable[..., Tensor], *vectors: Components) -> Components:
    """Return the function of corresponding components: one by one if they are few, else of all at once."""
    if isinstance(vectors[0], Tensor):
        return function(*vectors)
    return [function(*components) for components in zip(*vectors, strict=True)]


def joined(first: Sequence[Tensor], rest: Components) -> Components:
    """Return some components, and then the rest."""
    return torch.cat([torch.stack(tuple(first)), rest]) if isinstance(rest, Tensor) else [*first, *rest]


def dot(x: Components, y: Components) -> Tensor:
    """Return the sum of the products of corresponding components."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return (x * y).sum(0)
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total = torch.addcmul(total, a, b)
    return total


def size(x: Components) -> Tensor:
    """Return the norm without a derivative, of vectors of any scale: no square in it over- or underflows.

    What is divided by it has a norm near 1, whose own derivative is then right.
    """
    if isinstance(x, Tensor):
        largest = x.detach().abs().amax(0)
        scaled = x.detach() / torch.where(largest > 0, largest, 1.0)
        return largest * torch.sqrt((scaled * scaled).sum(0))
    total = x[0].detach()
    for component in x[1:]:
        total = torch.hypot(total, component.detach())
    return total


def unit(x: Tensor) -> Tensor:
    """Return ``x / |x|`` of vectors ``(*batch, n)`` of any scale; NaN of zero."""
    x = x / size(x.unbind(-1))[..., None]
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


_FEW = 16
"""Up to as many components, a list is faster."""


def differentiated(x: Tensor) -> bool:
    """Return whether a derivative with respect to ``x`` may be asked for; True in doubt.

    Where a value and its derivatives are computed apart, the latter need not be when it is False.
    """
    if torch._C._are_functorch_transforms_active() or (torch.is_grad_enabled() and x.requires_grad):
        return True
    # The compiler cannot look at a single tensor's tangent.
    if torch.compiler.is_compiling():
        return torch.autograd.forward_ad._current_level >= 0
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None


def gauss_legendre(order: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return nodes in [-1, 1] and weights of sum 2, from the Jacobi matrix (Golub and Welsch, 1969)."""
    i = torch.arange(1, order, dtype=torch.float64, device=device)
    off = i / torch.sqrt(4 * i * i - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, 2 * vectors[0] ** 2


def log_sphere_area(n: int) -> float:
    """Return the logarithm of the volume of the unit n-sphere, in n + 1 dimensions; of the two points for n = 0."""
    return math.log(2) + (n + 1) / 2 * math.log(math.pi) - math.lgamma((n + 1) / 2)


def log_frames_volume(n: int, p: int) -> float:
    """Return the logarithm of the volume of p orthonormal vectors in n dimensions: spheres', one inside the other."""
    return sum(log_sphere_area(k - 1) for k in range(n - p + 1, n + 1))


def tolerance(dtype: torch.dtype) -> float:
    """Return how far from a manifold a point may lie and still pass ``check_point``: 100 units of rounding.

    One unit is ``torch.finfo(dtype).eps / 2``, so 6e-6 in float32 and 1.1e-14 in float64; distances are relative to the
    larger of 1 and the point's own size.
    """
    return 50 * torch.finfo(dtype).eps


def log_sinhc_of_root(q: Tensor) -> Tensor:
    """Return ``log(sinh(a) / a)`` at ``a = sqrt(q)`` for ``q >= 0``, smooth at 0 and accurate relative to its value.

    The logarithm of `sinhc_of_root` would round ``q / 6`` to the units of 1, and overflow where this does not.
    """
    small = q < _LOG_SINHC_BOUND
    inner = torch.where(small, q, 0.0)
    a = torch.sqrt(torch.where(small, _LOG_SINHC_BOUND, q))
    near = torch.log1p(inner * horner(inner, _SINHC_MINUS_ONE))
    return torch.where(small, near, a - torch.log(2 * a) + torch.log1p(-torch.exp(-2 * a)))


_LOG_SINHC_BOUND = 9.0
_SINHC_MINUS_ONE = tuple(1 / math.factorial(2 * k + 3) for k in range(13))
