"""Log-likelihood of 2048 points on the sphere at an error of 1e-3 nats, beside two recipes.

The field is a small flow fitted to airports. The truth is a solve in float64 with tight tolerances; the error is the
root mean square over some of the points. Ours is `Adaptive`, with the default's steps and with Adams's, and `FixedStep`
with Adams's, graded; each side uses the loosest of a fine ladder of tolerances, or the fewest steps, that keeps the
error:

- riemannian-fm's recipe, read and not run: 1000 projected Euler steps with the divergence ``vmap(trace(jacrev))``. It
  is linear in the steps, and timed over a few of them;
- torchdiffeq's ``dopri5`` on the same divergence, `rfm.divergence`, with one step size for the whole batch.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

import rfm
from experiments.benchmarks.harness import Row, in_turns
from manifolds import Sphere
from rfm.integrators import Adams, Adaptive, FixedStep
from rfm.likelihood import log_prob

_POINTS = 2048
_GOAL = 1e-3
_EULER_STEPS = 1000
_TIMED_STEPS = 10
_SPHERE = Sphere(2)
_CHECKED = 128
_TOLERANCES = [10 ** (-2 - k / 12) for k in range(49)]
_LADDERS: list[list[Adaptive] | list[FixedStep]] = [
    [Adaptive(atol=tolerance, rtol=tolerance) for tolerance in _TOLERANCES],
    [Adaptive(Adams(5), atol=tolerance, rtol=tolerance) for tolerance in _TOLERANCES],
    [FixedStep(Adams(4), steps, grading=2.5) for steps in range(16, 80)],
]


def rows(turns: int = 3, steps: int = 400) -> list[Row]:
    """Time log-densities; without torchdiffeq, beside the Euler recipe only.

    Args:
        turns: of each comparison.
        steps: for which the field is fitted.
    """
    flow = rfm.fit(
        rfm.datasets.load("airports").points, _SPHERE, refine=False, steps=steps, progress=False, device="cpu"
    )
    with torch.no_grad():
        x = flow.sample(_POINTS, generator=torch.Generator().manual_seed(0))
        assert isinstance(flow.field, torch.nn.Module)
        precise = copy.deepcopy(flow.field).double()
        truth = log_prob(precise, flow.source, x[:_CHECKED].double(), Adaptive(atol=1e-7, rtol=1e-7))
        cases = []
        for ladder in _LADDERS:
            for how in ladder:
                error = _error(log_prob(flow.field, flow.source, x[:_CHECKED], how), truth)
                if error <= _GOAL:
                    break
            cases.append((flow.field, flow.source, x, truth, how, error, turns))
        return [_beside_euler(*cases[0]), *(row for what in cases for row in _beside_torchdiffeq(*what))]


def _name(how: Adaptive | FixedStep) -> str:
    steps = "Adams's" if isinstance(how.scheme, Adams) else "Runge-Kutta"
    if isinstance(how, Adaptive):
        return f"{steps} steps at tolerance {how.atol:.2g}"
    return f"{how.steps} graded steps of {steps}"


def _error(log_p: Tensor, truth: Tensor) -> float:
    return float((log_p.double() - truth).square().mean().sqrt())


def _beside_euler(
    field: Callable[..., Tensor],
    source: rfm.sources.Source,
    x: Tensor,
    truth: Tensor,
    how: Adaptive | FixedStep,
    error: float,
    turns: int,
) -> Row:
    def recipe(points: Tensor, count: int) -> Tensor:
        """Take the last ``count`` of the Euler steps from time 1 back to 0, and return the log-density."""
        total = torch.zeros(len(points))
        for i in range(count):
            t = torch.full((len(points),), 1 - i / _EULER_STEPS)

            def one(y: Tensor, s: Tensor) -> Tensor:
                return torch.func.jacrev(lambda z: field(_SPHERE.projx(z)[None], s[None])[0])(y)

            total = total + torch.func.vmap(one)(points, t).diagonal(dim1=-2, dim2=-1).sum(-1) / _EULER_STEPS
            points = _SPHERE.projx(points - field(points, t) / _EULER_STEPS)
        return source.log_prob(points) - total

    theirs = _error(recipe(x[:_CHECKED], _EULER_STEPS), truth)
    ours, other, ratio = in_turns(lambda: log_prob(field, source, x, how), lambda: recipe(x, _TIMED_STEPS), turns)
    scale = _EULER_STEPS / _TIMED_STEPS
    what = f"log-density of {_POINTS} points, {_name(how)}, beside 1000 Euler steps (timed: {_TIMED_STEPS})"
    return Row(what, ours, scale * other, ratio / scale, 1 / 20, error, f"error in nats, other: {theirs:.1e}, ours")


def _beside_torchdiffeq(
    field: Callable[..., Tensor],
    source: rfm.sources.Source,
    x: Tensor,
    truth: Tensor,
    how: Adaptive | FixedStep,
    error: float,
    turns: int,
) -> list[Row]:
    try:
        from torchdiffeq import odeint
    except ImportError:
        print("torchdiffeq is not installed (extra: bench): log-likelihood not compared with it")
        return []

    def joint(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y = _SPHERE.projx(state[0])
        return rfm.divergence(field, _SPHERE, y, t.expand(len(y)))

    def solve(tolerance: float) -> Tensor:
        y, integral = odeint(
            joint, (x, torch.zeros(len(x))), torch.tensor([1.0, 0.0]), rtol=tolerance, atol=tolerance, method="dopri5"
        )
        return source.log_prob(_SPHERE.projx(y[-1])) + integral[-1]

    for tolerance in _TOLERANCES:
        theirs = _error(solve(tolerance)[:_CHECKED], truth)
        if theirs <= _GOAL:
            break
    times = in_turns(lambda: log_prob(field, source, x, how), lambda: solve(tolerance), turns)
    what = f"log-density of {_POINTS} points, {_name(how)}, beside torchdiffeq dopri5 at {tolerance:.2g}"
    return [Row(what, *times, 1 / 2, error, f"error in nats, other: {theirs:.1e}, ours")]
