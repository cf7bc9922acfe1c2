"""Run the laws and write the report."""

import math
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.testing import (
    calculus,
    differentials,
    distances,
    geodesics,
    logarithms,
    projections,
    second_derivatives,
    structure,
)
from manifolds.testing.law import Law
from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe, choose_points
from manifolds.testing.report import Finding, Report, magnitude

LAWS: tuple[Law, ...] = (
    *structure.EARLY,
    *projections.PROJECTIONS,
    *geodesics.EXPONENTIAL,
    *projections.EMBEDDING,
    *geodesics.METRIC,
    *logarithms.LOGARITHM,
    *distances.DISTANCE,
    *calculus.DERIVATIVES,
    *calculus.VOLUME,
    second_derivatives.second_derivatives_right,
    differentials.differentials_right,
    *projections.CHECKS,
    *structure.LATE,
)
"""Every law, in the order in which roots of trouble are looked for."""


def check_manifold(
    manifold: Manifold,
    *,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64),
    seed: int = 0,
    samples: int = 12,
    points: Tensor | None = None,
    compile: bool | str = False,
    device: torch.device | str = "cpu",
    laws: Iterable[Law] = LAWS,
) -> Report:
    """Test a manifold against the contract, and say what is wrong as a reviewer would.

    The manifold is copied, and moved to each dtype, so that buffers follow. Points that are equivalence classes
    (subspaces, orbits) are compared by ``embed`` or, where that is the default, by ``dist``. Six optional attributes
    of the manifold are read, each with a default:

    - ``points_are_classes`` (False): different tensors may stand for one point;
    - ``points_per_class`` (1): how many times the volume covers one class;
    - ``logmap_radius`` (infinite): the distance up to which a solver's logarithm is claimed to be right;
    - ``solver_accuracy`` (0): the relative error of a solver's maps up to there, which is allowed besides rounding;
    - ``transp_is_isometric``: whether transport keeps inner products; by default, whether it is overridden;
    - ``metric_is_induced``: of the base class.

    Args:
        manifold: what to test.
        dtypes: floating-point types; laws that need differentiation or counting are tested in the most accurate one.
        seed: seed of every random input; the report states it.
        samples: number of points, at least 6.
        points: points of the manifold to test at ``(n, *event_shape)`` instead of drawn ones.
        compile: also capture every method with ``torch.compile(fullgraph=True)``; a string names the backend, True is
            "eager", which traces without generating code.
        device: where to run.
        laws: the laws to test.

    Returns:
        A report; ``report.passed``, ``print(report)``, ``report.raise_if_failed()``.

    Raises:
        ValueError: ``manifold`` is not a `Manifold`, or there are fewer than 6 points.
    """
    start = time.perf_counter()
    _check_arguments(manifold, samples, points)
    _warm_forward_mode()
    best = max(dtypes, key=lambda dtype: -torch.finfo(dtype).eps)
    failures: dict[Law, list[_Failure]] = {}
    try:
        backend = ("eager" if compile is True else compile) or None
        settings: dict[str, Any] = {"device": torch.device(device), "compile_backend": backend}
        probes = _probes(manifold, dtypes, points, samples, seed, **settings)
    except Exception as error:
        # The first law is that methods run: there is nothing to test any other at.
        failures[structure.methods_run] = [_raised(best, error, "while test points were made")]
        probes, laws = [], ()
    held, notes = _test_all(laws, probes, best, failures)
    if manifold.injectivity_radius is None:
        notes.append("logmap beyond length 0.5, and the cut locus: injectivity_radius is None")
    seconds = time.perf_counter() - start
    return Report(repr(manifold), _diagnose(failures), tuple(held), tuple(dict.fromkeys(notes)), seed, seconds)


def _check_arguments(manifold: object, samples: int, points: Tensor | None) -> None:
    if not isinstance(manifold, Manifold):
        raise ValueError(
            f"check_manifold: manifold must be an instance of manifolds.Manifold, got {manifold!r}; subclass it, and "
            "pass an instance, not the class"
        )
    if samples < 6 or (points is not None and len(points) < 6):
        raise ValueError("check_manifold: at least 6 points are needed; raise samples, or pass more points")


def _probes(
    manifold: Manifold, dtypes: Sequence[torch.dtype], points: Tensor | None, samples: int, seed: int, **settings: Any
) -> list[Probe]:
    """Return one probe for each dtype, all at the same points."""
    generator = torch.Generator().manual_seed(seed)
    chosen = choose_points(manifold, samples, generator) if points is None else points.double()
    return [Probe(manifold, dtype, chosen, samples=samples, seed=seed, **settings) for dtype in dtypes]


def _warm_forward_mode() -> None:
    """Take the first forward-mode derivative of the process, which warns about torch's own insides.

    Where warnings are errors, that would be blamed on the manifold.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def _test_all(
    laws: Iterable[Law], probes: Sequence[Probe], best: torch.dtype, failures: "dict[Law, list[_Failure]]"
) -> tuple[list[str], list[str]]:
    """Test every law at every dtype that it is for, add what is broken to ``failures``; return laws held, and notes."""
    held: list[str] = []
    notes: list[str] = []
    for law in laws:
        relevant = [probe for probe in probes if law.every_dtype or probe.dtype == best]
        reasons = {law.applies(probe) for probe in relevant}
        if "" not in reasons:
            notes += sorted(reasons)
            continue
        worst = [failure for probe in relevant if (failure := _test(law, probe)) is not None]
        if worst:
            failures[law] = worst
        else:
            held.append(law.name)
    return held, notes


@dataclass(frozen=True)
class _Failure:
    """A broken law in one dtype, at its worst input."""

    dtype: torch.dtype
    ratio: float
    error: float
    allowed: float
    found: str
    inputs: dict[str, Tensor]


def _test(law: Law, probe: Probe) -> _Failure | None:
    """Return the worst failure of a law, or None."""
    worst: _Failure | None = None
    # Random inputs of one law must not depend on which laws ran before it.
    probe.generator.manual_seed(probe.seed)
    try:
        for measurement in law.measure(probe):
            failure = _worst(measurement, probe.dtype)
            if failure is not None and (worst is None or failure.ratio > worst.ratio):
                worst = failure
    except Exception as error:
        return _raised(probe.dtype, error, f"in {probe.m.last_call or 'no method'}")
    return worst


def _worst(measurement: Measurement, dtype: torch.dtype) -> _Failure | None:
    error, allowed = (a.detach().double().cpu() for a in (measurement.error, measurement.allowed))
    error, allowed = torch.broadcast_tensors(error, allowed)
    broken = ~(error <= allowed)
    if not bool(broken.any()):
        return None
    tiny = torch.finfo(torch.float64).tiny
    ratio = (error / allowed.abs().clamp(min=tiny)).nan_to_num(math.inf, math.inf)
    i = int(torch.where(broken, ratio, -math.inf).argmax())
    inputs = {name: value[i].detach().cpu() for name, value in measurement.inputs.items()}
    by, bound = float(error[i]), float(allowed[i])
    found = measurement.found or f"{measurement.what} is off by {magnitude(by)}, allowed {bound:.3g}"
    if len(error) > 1:
        found += f" (broken at {int(broken.sum())} of {len(error)} inputs)"
    return _Failure(dtype, float(ratio[i]), by, bound, found, inputs)


def _raised(dtype: torch.dtype, error: Exception, where: str) -> _Failure:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    place = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    found = f"{type(error).__name__} {where}{place}: {structure.first_line(str(error))}"
    return _Failure(dtype, math.inf, math.inf, 0.0, found, {})


def _diagnose(failures: dict[Law, list[_Failure]]) -> tuple[Finding, ...]:
    """Return findings: root causes in the order of `LAWS`, then laws that rest on broken ones."""
    findings = []
    for law, worst in failures.items():
        failure = max(worst, key=lambda f: f.ratio)
        findings.append(
            Finding(
                law=law.name,
                claim=law.claim,
                dtypes=tuple(f.dtype for f in worst),
                found=failure.found,
                error=failure.error,
                allowed=failure.allowed,
                inputs=failure.inputs,
                means=law.means,
                remedy=law.remedy,
                follows_from=tuple(need.name for need in failures if need in _foundations(law)),
            )
        )
    return tuple(sorted(findings, key=lambda finding: bool(finding.follows_from)))


def _foundations(law: Law) -> set[Law]:
    """Return the laws that this one rests on, directly or not."""
    return set(law.needs).union(*(_foundations(need) for need in law.needs))
