"""The law about second derivatives, which maximum likelihood takes: it differentiates a divergence."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from manifolds.testing.autodiff import jvp
from manifolds.testing.calculus import derivatives_finite, derivatives_right, outputs, paths
from manifolds.testing.law import law
from manifolds.testing.logarithms import log_inverts
from manifolds.testing.measurement import Measurement
from manifolds.testing.methods import FRAME, METHODS, Method
from manifolds.testing.probe import Probe
from manifolds.testing.projections import basis_orthonormal, embed_smooth, projx_corrects
from manifolds.testing.structure import methods_run

_STENCIL = {-3: 1 / 90, -2: -3 / 20, -1: 3 / 2, 0: -49 / 18, 1: 3 / 2, 2: -3 / 20, 3: 1 / 90}
_POINTS = 4

Curve = Callable[[Tensor], Tensor]
"""A function of times ``(n,)`` that returns ``(n,)``, each from its own time."""


def _forward(f: Curve) -> Curve:
    def derivative(s: Tensor) -> Tensor:
        slope: Tensor = jvp(f, (s,), (torch.ones_like(s),))[1]
        return slope

    return derivative


def _reverse(f: Curve) -> Curve:
    def derivative(s: Tensor) -> Tensor:
        slope: Tensor = torch.func.grad(lambda a: f(a).sum())(s)
        return slope

    return derivative


_MODES = {"forward": _forward, "reverse": _reverse}


@law(
    "second derivatives are right",
    means="a derivative is attached by a formula that is right to first order only (one Newton step from a detached "
    "solution, eigenvectors held constant), or an operation is used whose forward derivative PyTorch cannot "
    "differentiate (torch.linalg.solve, det, slogdet; layer_norm): training by maximum likelihood goes astray",
    remedy="attach the next order too, or raise; for linear algebra use manifolds.numerics.linear_algebra",
    needs=(
        methods_run,
        projx_corrects,
        embed_smooth,
        basis_orthonormal,
        log_inverts,
        derivatives_right,
        derivatives_finite,
    ),
)
def second_derivatives_right(p: Probe) -> Iterator[Measurement]:
    """Second derivatives equal second differences of values, forward and reverse over forward and reverse, or raise."""
    noise = torch.finfo(p.dtype).eps + p.accuracy
    # The step that balances the stencil's truncation with rounding.
    h = noise**0.125
    steps = h * torch.tensor(list(_STENCIL), dtype=p.dtype, device=p.device)
    stencil = torch.tensor(list(_STENCIL.values()), dtype=p.dtype, device=p.device)
    few = p.with_coincident(_POINTS)
    path = paths(few)
    for method in METHODS:

        def rows(s: Tensor, method: Method = method) -> Tensor:
            return _invariant(few, method, path(few.m, s))

        values = torch.stack([rows(step.expand(len(few.x))) for step in steps]).detach()
        expected = torch.einsum("k,kni->ni", stencil, values) / h**2
        weights = p.normal(*expected.shape)

        def weighted(s: Tensor, rows: Curve = rows, weights: Tensor = weights) -> Tensor:
            return (weights * rows(s)).sum(-1)

        size = (values.norm(dim=-1).amax(0) + expected.norm(dim=-1)).clamp(min=1) * weights.norm(dim=-1)
        assessed = torch.ones(len(few.x), dtype=torch.bool, device=p.device)
        if method.name in ("norm", "dist"):
            # They have a kink at zero, near which the stencil misses.
            assessed = values[..., 0].amin(0) > min(0.15, 0.3 * p.reach)
        at = {name: getattr(few, name)[assessed] for name in method.arguments}
        for outer, over in _MODES.items():
            for inner, under in _MODES.items():
                try:
                    found = over(under(weighted))(torch.zeros_like(few.t)).detach()
                except RuntimeError:
                    continue  # Refused aloud.
                error, allowed = (found - (weights * expected).sum(-1)).abs(), 1e4 * noise**0.75 * size
                what = f"the second derivative, {outer} over {inner}, of {method.call}"
                yield Measurement(error[assessed], allowed[assessed], at, what)
                if method.name == "projx" and not bool((error <= allowed).all()):
                    return  # The curves along which the others are differentiated are projected.


def _invariant(p: Probe, method: Method, inputs: dict[str, Tensor]) -> Tensor:
    """Return a method's results as rows; of frames, which are free to turn, the matrix ``sum_i e_i w_i'``."""
    if FRAME not in method.kinds:
        return outputs(p, p.m, method, inputs)
    frames = [frame.flatten(2) for frame in method(p.m, **inputs)]
    return (frames[0].mT @ frames[-1]).flatten(1)
