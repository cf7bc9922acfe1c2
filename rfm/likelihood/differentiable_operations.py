"""Operations of users' networks whose forward derivatives PyTorch (2.13) has silently wrong, made of others.

A few are wrong at once: those of ``cholesky_inverse``, ``triangular_solve`` and ``scatter_reduce`` with products. More
are wrong when differentiated again, as the gradient of a log-density does with a divergence: PyTorch takes the
statistics of ``layer_norm``, the factors of ``solve`` and the like for constants then. The derivatives of what stands
here in their place are right, to every order and in every mode.
"""

# ruff: noqa: N803, N806
# Arguments have PyTorch's names.

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rfm.field import as_field

_Function = Callable[..., Any]


def with_right_derivatives(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function with operations replaced whose forward derivatives would be wrong, if differentiated again.

    What is right at first order stays as it is where nothing records derivatives. Code compiled by TorchScript is not
    reached, see `check_scripted`.
    """
    nested = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    replacements = _AT_EVERY_ORDER if nested or torch.is_grad_enabled() else _AT_FIRST_ORDER

    def replaced(*args: Any) -> Tensor:
        with _Replacing(replacements):
            return function(*args)

    return replaced


def check_scripted(where: str, field: Callable[..., Tensor]) -> None:
    """Raise ValueError for a network with parts compiled by TorchScript whose derivatives would be silently wrong."""
    for name, part in as_field(field).named_modules():
        graph = getattr(part, "inlined_graph", None) if isinstance(part, torch.jit.ScriptModule) else None
        used = [] if graph is None else [kind for kind in _SCRIPTED if graph.findAllNodes(f"aten::{kind}")]
        if used:
            raise ValueError(
                f"{where}: {name or 'the field'} is compiled by TorchScript and uses {used[0]}, whose forward "
                "derivative PyTorch cannot differentiate again; pass the module that it was compiled from"
            )


class _Replacing(TorchFunctionMode):
    """Calls each function that has a replacement by that."""

    def __init__(self, replacements: Mapping[_Function, _Function]) -> None:
        self.replacements = replacements

    def __torch_function__(
        self, func: _Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.replacements.get(func, func)(*args, **(kwargs or {}))


# Normalisation, by way of group_norm: its derivatives are right, and it has the same precision under autocast.


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    rows = math.prod(input.shape[: input.ndim - len(normalized_shape)])
    flat = input.reshape(rows, 1, math.prod(normalized_shape))
    return _affine(torch.group_norm(flat, 1, eps=eps).reshape(input.shape), weight, bias)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        # For what it does to the running statistics, here and below.
        functional.instance_norm(input, running_mean, running_var, None, None, True, momentum, eps)
    return torch.group_norm(input, input.shape[1], weight, bias, eps)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        functional.batch_norm(input, running_mean, running_var, None, None, True, momentum, eps)
    columns = input.transpose(0, 1)
    normalised = torch.group_norm(columns.reshape(1, len(columns), -1), len(columns), weight, bias, eps)
    return normalised.reshape(columns.shape).transpose(0, 1)


def _weights_first(replacement: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a replacement of a function of ``torch``, whose arguments are in another order."""

    def function(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,
    ) -> Tensor:
        return replacement(input, running_mean, running_var, weight, bias, training, momentum, eps)

    return function


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = x if weight is None else x * weight
    return (y if bias is None else y + bias).to(x.dtype)


# Linear algebra, by way of the LU decomposition.


def _solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    lu, pivots = torch.linalg.lu_factor(A)
    return _substituted(lu, pivots, A, B, left)


def _solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    lu, pivots, info = torch.linalg.lu_factor_ex(A, check_errors=check_errors)
    solution = _substituted(lu, pivots, A, B, left)
    return torch.return_types.linalg_solve_ex((solution, info))  # type: ignore[attr-defined]


def _substituted(lu: Tensor, pivots: Tensor, A: Tensor, B: Tensor, left: bool) -> Tensor:
    if B.ndim == 1 or (A.ndim == B.ndim + 1 and A.shape[:-1] == B.shape):
        return torch.linalg.lu_solve(lu, pivots, B[..., None], left=left)[..., 0]
    return torch.linalg.lu_solve(lu, pivots, B, left=left)


def _tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(-len(dims), 0)))
    n = B.numel()
    return _solve(A.reshape(n, n), B.flatten()).reshape(A.shape[B.ndim :])


def _slogdet(A: Tensor) -> Any:
    return torch.return_types.linalg_slogdet(_sign_and_log_abs_det(A))  # type: ignore[attr-defined]


def _slogdet_by_old_name(input: Tensor) -> Any:
    return torch.return_types.slogdet(_sign_and_log_abs_det(input))


def _sign_and_log_abs_det(matrix: Tensor) -> tuple[Tensor, Tensor]:
    parity, pivots = _parity_and_pivots(matrix)
    return parity * torch.sgn(pivots).prod(-1), torch.log(torch.abs(pivots)).sum(-1)


def _det(A: Tensor) -> Tensor:
    parity, pivots = _parity_and_pivots(A)
    return parity * pivots.prod(-1)


def _logdet(input: Tensor) -> Tensor:
    sign, value = _sign_and_log_abs_det(input)
    return value + torch.log(sign) if input.is_complex() else torch.where(sign < 0, math.nan, value)


def _parity_and_pivots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sign of the permutation, and the diagonal of the upper factor ``(*batch, n)``."""
    lu, order, _ = torch.linalg.lu_factor_ex(matrix)
    exchanged = order != torch.arange(1, matrix.shape[-1] + 1, device=order.device)
    return (1 - 2 * (exchanged.sum(-1) % 2)).to(matrix.dtype), torch.diagonal(lu, dim1=-2, dim2=-1)


def _cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    lower = input.mH if upper else input
    eye = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device)
    root = torch.linalg.solve_triangular(lower.tril(), eye, upper=False)
    return root.mH @ root


def _triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    matrix = A.triu() if upper else A.tril()
    solution = torch.linalg.solve_triangular(
        matrix.mT if transpose else matrix, b, upper=upper != transpose, unitriangular=unitriangular
    )
    return torch.return_types.triangular_solve((solution, A.clone()))


def _householder_product(A: Tensor, tau: Tensor) -> Tensor:
    m, n = A.shape[-2:]
    eye = torch.eye(m, n, dtype=A.dtype, device=A.device)
    reflectors = A.tril(-1) + eye
    product = eye
    for i in reversed(range(tau.shape[-1])):
        v = reflectors[..., i : i + 1]
        product = product - tau[..., i, None, None] * v @ (v.mH @ product)
    return product


# What has no replacement.


def _scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    if reduce == "prod":
        raise ValueError(
            "divergence: the field uses scatter_reduce with products, whose forward derivative is wrong in PyTorch; "
            "multiply in another way, by exponentials of sums of logarithms, say"
        )
    return torch.scatter_reduce(input, dim, index, src, reduce, include_self=include_self)


def _keyed(replacements: dict[_Function, tuple[_Function, ...]]) -> dict[_Function, _Function]:
    return {function: replacement for replacement, functions in replacements.items() for function in functions}


_AT_FIRST_ORDER = _keyed(
    {
        _cholesky_inverse: (torch.cholesky_inverse, Tensor.cholesky_inverse),
        _triangular_solve: (torch.triangular_solve, Tensor.triangular_solve),
        _scatter_reduce: (torch.scatter_reduce, Tensor.scatter_reduce),
    }
)
_AT_EVERY_ORDER = _AT_FIRST_ORDER | _keyed(
    {
        _layer_norm: (functional.layer_norm, torch.layer_norm),
        _instance_norm: (functional.instance_norm,),
        _batch_norm: (functional.batch_norm,),
        _weights_first(_instance_norm): (torch.instance_norm,),
        _weights_first(_batch_norm): (torch.batch_norm,),
        _solve: (torch.linalg.solve,),
        _solve_ex: (torch.linalg.solve_ex,),
        _tensorsolve: (torch.linalg.tensorsolve,),
        _slogdet: (torch.linalg.slogdet,),
        _slogdet_by_old_name: (torch.slogdet, Tensor.slogdet),
        _det: (torch.linalg.det, torch.det, Tensor.det),
        _logdet: (torch.logdet, Tensor.logdet),
        _householder_product: (torch.linalg.householder_product, torch.orgqr, Tensor.orgqr),
    }
)
_SCRIPTED = (
    *("layer_norm", "batch_norm", "instance_norm", "linalg_solve", "linalg_solve_ex", "linalg_tensorsolve"),
    *("linalg_slogdet", "slogdet", "linalg_det", "det", "logdet", "cholesky_inverse", "triangular_solve"),
    *("linalg_householder_product", "orgqr"),
)
"""What of it TorchScript may contain, by its names."""
