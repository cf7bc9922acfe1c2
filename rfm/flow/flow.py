"""A flow: a manifold, a velocity field and a source, as one distribution.

Longer than a file should be: it is one class, whose methods are short, but say at length what they take. What they do
is in `solves`, `refinement` and `posterior_target`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, integer, number, shown
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import points_of, shape_of
from rfm.conditions import Conditions
from rfm.field import Field, as_field
from rfm.flow.condition_vectors import batches, check_field_reads, encoded, rows_of, vectors_of
from rfm.flow.flow_mixture import RefinedDensity, checked_start
from rfm.flow.posterior_target import Part, Prior, slice_draws
from rfm.flow.progress import counting_bar
from rfm.flow.saved_flow import SavedFlow, load_weights, read_flow, write_flow
from rfm.flow.solves import carried, check_jumps, checked_time, densities, jumps_of, scores, unsteered, zero_outside
from rfm.integrators import Adaptive, Method, integrate
from rfm.likelihood import Hutchinson, LogProbEstimate
from rfm.likelihood.differentiable_operations import check_scripted
from rfm.networks.modes import evaluating
from rfm.networks.precision import in_precision_of_weights
from rfm.posterior import (
    Likelihood,
    LogLikelihood,
    NoFieldError,
    PosteriorDraws,
    Sampler,
    Slice,
    Tempering,
    Unmeasured,
    as_likelihood,
    at_points,
    drawn_until,
    slice_method,
)
from rfm.records.descriptions import SavedFlowError
from rfm.sources import Source, Uniform
from rfm.steering import Guidance, Steering
from rfm.steering.steering import check_steering

POINT_TOLERANCE = 1e-3
"""How far off the manifold points may be, relative to their size: tables round to a few digits."""
_BATCH = 4096


class DensityOptions(TypedDict, total=False):
    """What `Flow.log_prob` takes besides points and what decides the type of its result."""

    condition: Tensor | Mapping[str, Any] | None
    time: float
    steps: int | None
    solver: Method | None
    batch_size: int
    progress: bool | Callable[[int], Any]


class SampleOptions(DensityOptions, total=False):
    """What `Flow.sample` takes besides a shape and what decides the type of its result."""

    guidance: float
    steering: Sequence[Steering]
    generator: torch.Generator | None


class Flow(nn.Module):
    """The distribution at time 1 of points that start in the source and follow the field.

    A refined flow is a mixture of several such distributions, with sources at several times, see `rfm.flow.Refinement`
    and, given conditions, `rfm.flow.ConditionalRefinement`: so are its samples and log-densities. Trajectories follow
    the field all the same, and so do samples under guidance or other steering; `base` is the flow without it.

    Nothing here is differentiated: for gradients through a solve call `rfm.integrate`. Samples, log-densities and
    trajectories are those of the field in evaluation mode, without dropout and with running statistics, whichever mode
    the flow is in; that it keeps.

    Args:
        manifold: where the points live.
        field: ``field(x, t, **condition)``, tangent at ``x``; a module or a plain function. What it may offer besides:
            `rfm.Field`.
        source: the distribution at time ``start``; `rfm.sources.Uniform` where the volume is finite.
        conditions: what the entries of the field's condition vectors mean, so that conditions can be given by name.
        start: the time at which the source stands, from 0 to below 1.
        refinement: sources at several times, whose mixture is the density in place of that of ``source``.

    Raises:
        ValueError: an argument is not as said; or for a refinement that knows of other conditions.
    """

    def __init__(
        self,
        manifold: Manifold,
        field: Callable[..., Tensor],
        source: Source | None = None,
        *,
        conditions: Conditions | None = None,
        start: float = 0.0,
        refinement: RefinedDensity | None = None,
    ) -> None:
        super().__init__()
        check_instance("Flow", "manifold", manifold, Manifold, "Sphere(2)")
        check_function("Flow", "field", field, "VelocityField(manifold)")
        if source is not None:
            check_instance("Flow", "source", source, Source, "Uniform(manifold)")
        if conditions is not None:
            check_instance("Flow", "conditions", conditions, Conditions, "Conditions.of(columns)")
        self.manifold = manifold
        self.field = field
        self.source = Uniform(manifold) if source is None else source
        self.conditions = conditions
        if conditions is not None:
            check_field_reads(conditions, as_field(field))
        self.start = checked_start("Flow", start)
        self.refinement = refinement
        if refinement is not None:
            refinement.check(manifold, conditions)
        self.history: list[dict[str, float]] = []
        """One record per validation during the fit: step, loss, seconds, and validation_nll in nats unless the field
        could not be integrated yet; where the fit is to refine the flow, that of a quick refinement, with flow_nll of
        the flow alone beside it. From start points validation_loss and validation_mmd2 in its place. The last has the
        loss_floor and the loss_above_floor of the weights that are kept, where `rfm.Training` asks for them."""
        self.stopped = ""
        """Why the fit ended, in words."""
        self.refinement_report = ""
        """What the fit refined the flow by, in words, or why it did not."""

    @property
    def network(self) -> nn.Module:
        """The field as a module: what training changes."""
        assert isinstance(self.field, nn.Module), "a field in training is a module"
        return self.field

    @property
    def base(self) -> "Flow":
        """The flow without its refinement, with the same field, source and history: itself where it has none."""
        if self.refinement is None:
            return self
        return self._with(self.manifold, self.source)

    def on(self, manifold: Manifold) -> "Flow":
        """Return the flow that this field makes on another manifold, with the same weights.

        For a field that serves manifolds of several sizes, such as `rfm.networks.FrameField`: one that is trained on
        backbones of many lengths gives those of any length. The source goes along by its own ``on``.

        Raises:
            ValueError: if field or source are made for one manifold alone, as those of a refined flow are.
        """
        if self.refinement is not None:
            raise ValueError(f"Flow.on: the flow is refined by sources on {self.manifold}; use flow.base.on(manifold)")
        try:
            as_field(self.field).check_manifold(manifold)
        except ValueError as error:
            raise ValueError(f"Flow.on: the field was made for {self.manifold}: {error}") from None
        return self._with(manifold, self.source.on(manifold))

    def _with(self, manifold: Manifold, source: Source) -> "Flow":
        """Return an unrefined flow of the same field, history and mode."""
        flow = Flow(manifold, self.field, source, conditions=self.conditions, start=self.start)
        flow.history, flow.stopped = self.history, self.stopped
        return flow.train(self.training)

    @overload
    def sample(
        self,
        shape: int | Sequence[int],
        *,
        return_log_prob: Literal[False] = False,
        estimator: None = None,
        **options: Unpack[SampleOptions],
    ) -> Tensor: ...

    @overload
    def sample(
        self,
        shape: int | Sequence[int],
        *,
        return_log_prob: Literal[True],
        estimator: None = None,
        **options: Unpack[SampleOptions],
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def sample(
        self,
        shape: int | Sequence[int],
        *,
        return_log_prob: Literal[True],
        estimator: Hutchinson,
        **options: Unpack[SampleOptions],
    ) -> tuple[Tensor, LogProbEstimate]: ...

    @evaluating
    @in_precision_of_weights
    def sample(
        self,
        shape: int | Sequence[int],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        time: float = 1.0,
        steps: int | None = None,
        guidance: float = 1.0,
        steering: Sequence[Steering] = (),
        generator: torch.Generator | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        return_log_prob: bool = False,
        estimator: Hutchinson | None = None,
        progress: bool | Callable[[int], Any] = False,
    ) -> Tensor | tuple[Tensor, Tensor | LogProbEstimate]:
        """Draw points.

        Args:
            shape: how many, a number or a shape.
            condition: condition vectors ``(*shape, c)``, or one ``(c,)`` for all; or by name where the flow has
                `conditions`, such as ``{"magnitude": 6, "region": "chile"}``, one value each or one per point. What is
                left out or NaN is not known.
            time: of the distribution, from 0, the source, to 1, where the data are.
            steps: take so many jumps, of one evaluation each, in place of a solve: for a field that is a `rfm.FlowMap`,
                as `rfm.distil` trains one. The samples are then those of the jumps, whose log-density is another
                than that of the equation, and without guidance or steering but what was distilled.
            guidance: weight of classifier-free guidance, see `rfm.steering.Guidance`; 1 uses the conditional field
                alone, 0 the unconditional one.
            steering: what else changes where samples go, one after the other, such as `rfm.steering.Clocks` and
                `rfm.steering.SelfConditioning`; the samples then have another distribution. What a flow is refined by
                stands where the field alone has carried it, so samples under steering or guidance other than 1 are
                those of ``base``, with a warning.
            generator: source of randomness.
            solver: how to integrate; adaptive by default.
            batch_size: points integrated together, which bounds memory.
            return_log_prob: also return the log-density, computed on the way; for a refined flow by a second solve.
            estimator: estimate the divergence for it, instead of computing it exactly; for high dimensions.
            progress: show on stderr how many points are done, and how long the rest will take; or a function that is
                called with the number of points done each time.

        Returns:
            Points ``(*shape, *event_shape)``; with ``return_log_prob`` a pair with the log-densities ``(*shape)``, or
            with a `rfm.likelihood.LogProbEstimate` if there is an ``estimator``.

        Raises:
            ValueError: for guidance without a condition, or log-densities under guidance or steering: they change the
                distribution, and the samples are then not those of the flow's density. For a condition that a
                refinement knows nothing of.
        """
        size, weight = shape_of("Flow.sample", shape), number("Flow.sample", "guidance", guidance)
        time = checked_time("sample", time, self.start, self.refinement)
        check_instance("Flow.sample", "steering", steering, Sequence, "[SelfConditioning()]")
        steering = (*((Guidance(weight),) if weight != 1 else ()), *steering)
        if estimator is not None and not return_log_prob:
            raise ValueError(
                "Flow.sample: an estimator is for log-densities; pass return_log_prob=True, or leave it out"
            )
        given = None if condition is None else vectors_of(self.conditions, condition)
        if steps is not None:
            check_jumps("sample", as_field(self.field), steering, estimator is not None)
            solver = jumps_of("sample", steps, solver)
        if return_log_prob:
            self.source.check_density("Flow.sample")
        check_steering("Flow.sample", steering, as_field(self.field), given, return_log_prob)
        dtype, device = self._dtype_and_device()
        refinement = unsteered(self.refinement, steering)
        if refinement is not None:
            refinement.check_condition("sample", given is not None)
            with counting_bar(progress, "sample", size.numel()) as advance:
                like: dict[str, Any] = {"generator": generator, "dtype": dtype, "device": device}
                like |= {"batch_size": batch_size, "advance": advance}
                like["condition"] = rows_of(given, size, torch.empty(0, dtype=dtype, device=device))
                points = refinement.sample(as_field(self.field), self.manifold, size.numel(), solver, **like)
            points = points.reshape(*size, *self.manifold.event_shape)
            if not return_log_prob:
                return points
            of_draws: dict[str, Any] = {"condition": given, "solver": solver, "estimator": estimator}
            if steps is not None:
                of_draws |= {"steps": steps, "solver": None}
            scored: Any = self.log_prob(points, batch_size=batch_size, **of_draws)
            return points, scored
        solver = as_field(self.field).default_method if solver is None else solver
        x_0 = self.source.sample((size.numel(),), generator=generator, dtype=dtype, device=device)
        field, given = encoded(as_field(self.field), given, x_0)
        parts, log_probs, errors = list[Tensor](), list[Tensor](), list[Tensor]()
        with counting_bar(progress, "sample", len(x_0)) as advance:
            for x, own in batches(x_0, given, size, batch_size):
                # A field with a memory is new for each batch.
                steered = functools.reduce(lambda f, steer: steer.applied_to(f), steering, field)
                span = (self.start, time)
                found = carried(steered, self.source, x, span, solver, estimator, return_log_prob, **own)
                for known, part in zip((parts, log_probs, errors), found, strict=True):
                    known.extend([] if part is None else [part])
                advance(len(x))
        points = torch.cat(parts).reshape(*size, *self.manifold.event_shape)
        if not return_log_prob:
            return points
        total = torch.cat(log_probs).reshape(size)
        return points, total if estimator is None else LogProbEstimate(total, torch.cat(errors).reshape(size))

    @overload
    def log_prob(
        self, x: Tensor | np.ndarray[Any, Any], *, estimator: None = None, **options: Unpack[DensityOptions]
    ) -> Tensor: ...

    @overload
    def log_prob(
        self, x: Tensor | np.ndarray[Any, Any], *, estimator: Hutchinson, **options: Unpack[DensityOptions]
    ) -> LogProbEstimate: ...

    @evaluating
    @in_precision_of_weights
    def log_prob(
        self,
        x: Tensor | np.ndarray[Any, Any],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        time: float = 1.0,
        steps: int | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        estimator: Hutchinson | None = None,
        progress: bool | Callable[[int], Any] = False,
    ) -> Tensor | LogProbEstimate:
        """Return the log-density in nats, with respect to the Riemannian volume; exact unless an estimator is given.

        Args:
            x: points ``(*batch, *event_shape)``, at most 1e-3 off the manifold; they are projected to it. On a bounded
                set they may be anywhere on the manifold that it is a part of: outside the log-density is -inf.
            condition: condition vectors ``(*batch, c)``, or one ``(c,)`` for all; or by name, as in `sample`.
            time: of the density, from 0, where it is the source's, to 1, where it is that of the samples.
            steps: the density of what ``sample(steps=steps)`` draws, for a field that is a `rfm.FlowMap`: its jumps are
                inverted numerically, see `rfm.likelihood.jump_log_prob`.
            solver: how to integrate; adaptive by default.
            batch_size: points integrated together, which bounds memory.
            estimator: estimate the divergence, for high dimensions.
            progress: show on stderr how many points are done, and how long the rest will take; or a function that is
                called with the number of points done each time.

        Returns:
            ``(*batch)``, in the dtype of the field, at least float32; with an ``estimator`` a
            `rfm.likelihood.LogProbEstimate`.

        Raises:
            rfm.likelihood.NotInvertibleError: with ``steps``, where the jumps are not one-to-one.
        """
        if steps is not None:
            check_jumps("log_prob", as_field(self.field), (), estimator is not None)
            solver = jumps_of("log_prob", steps, solver)
        time = checked_time("log_prob", time, self.start, self.refinement)
        self.source.check_density("Flow.log_prob")
        given = None if condition is None else vectors_of(self.conditions, condition)
        x = points_of("Flow.log_prob", self.manifold, x)
        excluded = self.manifold.excludes(x)
        if excluded is not None and bool(excluded.any()):
            options: dict[str, Any] = {"time": time, "solver": solver, "batch_size": batch_size, "progress": progress}
            some = functools.partial(self.log_prob, estimator=estimator, **options)
            return zero_outside(some, x, ~excluded, given, self._dtype_and_device(x))
        flat, batch = self._checked("log_prob", x)
        field, given = self._read("log_prob", given, flat)
        exact, estimated = densities(field, self.source, (self.start, time), self.refinement, solver)
        parts, errors = [], []
        with counting_bar(progress, "log-prob", len(flat)) as advance:
            rows, more = batch_size, dict[str, Any]()
            if self.refinement is not None:
                rows, more = max(1, len(flat)), {"batch_size": batch_size, "advance": advance}
            for part, own in batches(flat, given, batch, rows):
                if estimator is None:
                    parts.append(exact(x=part, method=solver, **more, **own))
                else:
                    estimate = estimated(x=part, estimator=estimator, method=solver, **more, **own)
                    parts.append(estimate.log_prob)
                    errors.append(estimate.standard_error)
                if self.refinement is None:
                    advance(len(part))
        log_p = torch.cat(parts).reshape(batch)
        return log_p if estimator is None else LogProbEstimate(log_p, torch.cat(errors).reshape(batch))

    @evaluating
    @in_precision_of_weights
    def score(
        self,
        x: Tensor | np.ndarray[Any, Any],
        time: float = 1.0,
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
    ) -> Tensor:
        """Return the gradient of `log_prob` with respect to the metric, by differentiating its solve.

        It is as exact as the log-density itself. A field that jumps has no score where it does.

        Args:
            x: points ``(*batch, *event_shape)``, at most 1e-3 off the manifold; they are projected to it.
            time: of the density, from 0 to 1.
            condition: as in `log_prob`.
            solver: how to integrate; adaptive by default.
            batch_size: points integrated together; the solve is recorded, which takes memory for each of its steps.

        Returns:
            Tangent vectors ``(*batch, *event_shape)`` in the ambient form, in nats per unit of length.
        """
        time = checked_time("score", time, self.start, self.refinement)
        flat, batch = self._checked("score", x)
        given = None if condition is None else vectors_of(self.conditions, condition)
        field, given = self._read("score", given, flat)
        check_scripted("Flow.score", field)
        exact, _ = densities(field, self.source, (self.start, time), self.refinement)
        chunks = batches(flat, given, batch, batch_size)
        parts = [scores(exact, self.manifold, part, solver, **own) for part, own in chunks]
        return torch.cat(parts).reshape(*batch, *self.manifold.event_shape)

    @evaluating
    @in_precision_of_weights
    def trajectory(
        self,
        x_0: Tensor,
        times: Tensor | Sequence[float],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        solver: Method | None = None,
    ) -> Tensor:
        """Return where points ``x_0`` given at ``times[0]`` are at all the times, ``(len(times), *x_0.shape)``.

        The times may run down. The default solver keeps the error near 1e-6 per step.
        """
        flat, batch = self._checked("trajectory", x_0)
        given = None if condition is None else vectors_of(self.conditions, condition)
        solver = as_field(self.field).default_method if solver is None else solver
        field, given = encoded(as_field(self.field), given, flat)
        [(x, own)] = batches(flat, given, batch, max(1, len(flat)))
        solution = integrate(field, self.manifold, x, times, solver, **own)
        return solution.x.reshape(len(solution.times), *batch, *self.manifold.event_shape)

    @evaluating
    @in_precision_of_weights
    def transport(
        self,
        x_0: Tensor,
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        steps: int | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
    ) -> Tensor:
        """Return where start points of your own, at time 0, are carried to, ``(*batch, *event_shape)``.

        Arguments as for `trajectory` and `sample`.
        """
        if steps is not None:
            solver = jumps_of("transport", steps, solver)
        flat, batch = self._checked("transport", x_0)
        given = None if condition is None else vectors_of(self.conditions, condition)
        solver = as_field(self.field).default_method if solver is None else solver
        field, given = encoded(as_field(self.field), given, flat)
        parts = [
            integrate(field, self.manifold, x, (self.start, 1.0), solver, **own).final
            for x, own in batches(flat, given, batch, batch_size)
        ]
        return torch.cat(parts).reshape(*batch, *self.manifold.event_shape)

    @evaluating
    @in_precision_of_weights
    def velocity(self, x: Tensor, t: float, *, condition: Tensor | Mapping[str, Any] | None = None) -> Tensor:
        """Return the field at points ``x`` and one time, ``(*batch, *event_shape)``; conditions as for `sample`."""
        flat, batch = self._checked("velocity", x)
        given = None if condition is None else vectors_of(self.conditions, condition)
        field, given = encoded(as_field(self.field), given, flat)
        [(y, own)] = batches(flat, given, batch, max(1, len(flat)))
        times = torch.full((len(y),), number("Flow.velocity", "t", t), dtype=y.dtype, device=y.device)
        return field(y, times, **own).reshape(*batch, *self.manifold.event_shape)

    @evaluating
    @in_precision_of_weights
    def posterior(
        self,
        likelihood: LogLikelihood | None,
        n: int,
        *,
        known: Slice | None = None,
        method: Sampler | None = None,
        condition: Tensor | Mapping[str, Any] | None = None,
        worth: float = 0.5,
        repeats: int = 8,
        solver: Method | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = _BATCH,
    ) -> PosteriorDraws:
        """Draw points of the posterior: this flow as the prior, times a likelihood.

        The field stays as it is and the source is reweighted, so draws are exact in the limit of many, for the flow as
        ``solver`` carries it. What is ``known`` without error is exact too: draws are then of a slice of the density.
        From a refined flow draws are of each of its parts, in proportion to their evidence; methods that guide know the
        flow alone: `Twisted` draws are reweighted by the ratio of the two densities, which is exact in the limit as
        well, and those of methods that are not exact leave the refinement out.

        A method that is exact goes on, by independent runs, until its draws are worth what is requested.

        Args:
            likelihood: log-likelihoods ``(*batch)`` of points ``(*batch, *event_shape)``; a
                `rfm.posterior.Measurement`, or any function; None where only ``known`` says something.
            n: how many.
            known: parts of the point that are known without error, see `rfm.posterior.Slice`. Each step then evaluates
                the log-density, which costs more than a sample: take fewer particles.
            method: `rfm.posterior.Tempering` by default, `AdaptiveImportance` where some of a point is known and up to
                six dimensions are free; also `Chains` and `Importance`, which are exact in the limit, and the methods
                of `rfm.posterior` that are not.
            condition: one condition ``(c,)`` of the prior, or by name, as in `sample`.
            worth: share of ``n``, in (0, 1), that the draws are to be worth, as independent ones; a warning says where
                they are not.
            repeats: independent runs of the method, at most.
            solver: how to carry points, or to evaluate densities; adaptive to 1e-3 by default.
            generator: source of randomness.
            batch_size: points computed together where no gradient is needed, which bounds memory.

        Raises:
            ValueError: the likelihood is zero everywhere the source reaches, NaN, or of the wrong shape, or nothing is
                given.
        """
        n, repeats = integer("Flow.posterior", "n", n), integer("Flow.posterior", "repeats", repeats)
        if not 0 < number("Flow.posterior", "worth", worth) < 1:
            raise ValueError(f"Flow.posterior: worth is a share of the draws, between 0 and 1, got {worth}")
        if likelihood is None and known is None:
            raise ValueError("Flow.posterior: nothing is given; pass a likelihood, known=, or call sample")
        fits = Unmeasured(self.manifold) if likelihood is None else as_likelihood(likelihood)
        dtype, device = self._dtype_and_device()
        like = torch.empty(0, dtype=dtype, device=device)
        given = None if condition is None else vectors_of(self.conditions, condition)
        if self.refinement is not None:
            self.refinement.check_condition("posterior", given is not None)
        if given is not None and given.ndim != 1:
            raise ValueError(
                f"Flow.posterior: takes one condition for all draws, shape (c,), got {tuple(given.shape)}; call it "
                "once for each"
            )
        solver = Adaptive(atol=1e-3, rtol=1e-3) if solver is None else solver
        if known is not None:
            check_instance("Flow.posterior", "known", known, Slice, "Slice.of_position([0.0, 0.0, 1.0])")
            known.check(self.manifold)
        if method is None:
            method = Tempering() if known is None else slice_method(known)
        if isinstance(method, type) or not isinstance(method, Sampler):
            raise ValueError(
                f"Flow.posterior: method must be an object that draws, such as Tempering(), got {shown(method)}"
            )
        own: dict[str, Any] = {"condition": given, "solver": solver, "batch_size": batch_size}
        prior = self._prior(given, solver, batch_size, like)
        if known is not None:
            about = self.sample(4000, generator=generator, **own)
            density = functools.partial(self.log_prob, **own)
            run = functools.partial(slice_draws, known, self.manifold, density, about, fits, method, n, generator)
        else:
            run = functools.partial(prior.draws, method, fits, n, generator, like)
            if self.refinement is not None:
                run = functools.partial(self._refined_draws, run, method, fits, n, generator, own)
        draws = drawn_until(run, n, worth, repeats, generator)
        return replace(draws, warnings=(*draws.warnings, *fits.doubts(draws.points)))

    def _prior(self, condition: Tensor | None, solver: Method, batch_size: int, like: Tensor) -> Prior:
        """Return the flow as what posteriors are drawn from, given one condition vector."""
        field, context = encoded(as_field(self.field), condition, like)
        parts = [(self.start, 1.0, self.source)] if self.refinement is None else self.refinement.standing(condition)
        return Prior(field, [Part(*part) for part in parts], context, solver, batch_size)

    def _refined_draws(
        self,
        run: Callable[[], PosteriorDraws],
        method: Sampler,
        likelihood: Likelihood,
        n: int,
        generator: torch.Generator | None,
        own: dict[str, Any],
    ) -> PosteriorDraws:
        """Return draws of a refined flow, of methods that guide reweighted ones of its base."""
        try:
            return run()
        except NoFieldError:
            dtype, device = self._dtype_and_device()
            like = torch.empty(0, dtype=dtype, device=device)
            prior = self.base._prior(own["condition"], own["solver"], own["batch_size"], like)
            draws = prior.draws(method, likelihood, n, generator, like)
            if not draws.exact:
                return draws
            ratio = self.log_prob(draws.points, **own) - self.base.log_prob(draws.points, **own)
            return at_points(draws, draws.points, ratio)

    def save(self, folder: str | Path) -> None:
        """Save to a folder: ``flow.json`` and the tensors it names.

        Weights are written first, under a name made of their content; ``flow.json`` is replaced last, in one step.
        Interrupted at any moment, the folder holds the old flow or the new one.
        """
        own = (self.manifold, self.field, self.source, self.conditions, self.history, self.stopped)
        parts = SavedFlow(*own, self.start, self.refinement, self.refinement_report)
        write_flow(Path(folder), parts, self.state_dict())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        manifold: Manifold | None = None,
        field: Callable[..., Tensor] | None = None,
        source: Source | None = None,
    ) -> "Flow":
        """Load a saved flow.

        Args:
            folder: where `save` put it.
            manifold: needed if the flow was saved with a manifold of your own; it is never imported from the file's
                word.
            field: likewise for a field of your own.
            source: likewise for a source of your own.

        Raises:
            SavedFlowError: if the folder is not a saved flow, is damaged, or needs an object passed in.
            ValueError: if the manifold or source passed in is something else, such as what makes one.
        """
        folder = Path(folder)
        saved, tensors = read_flow(folder, manifold, field, source)
        try:
            own: dict[str, Any] = {"start": saved.start, "refinement": saved.refinement}
            flow = cls(saved.manifold, saved.field, saved.source, conditions=saved.conditions, **own)
        except ValueError as error:
            raise SavedFlowError(f"{folder / 'flow.json'} is damaged: {error}; fit again") from None
        load_weights(flow, tensors, folder)
        flow.history, flow.stopped = saved.history, saved.stopped
        flow.refinement_report = saved.refinement_report
        return flow.eval()

    def _read(self, where: str, condition: Tensor | None, x: Tensor) -> tuple[Field, Tensor | None]:
        """Return the field and the condition that a density of the flow is computed with."""
        if self.refinement is None:
            return encoded(as_field(self.field), condition, x)
        # Kernels tell of conditions as they are given.
        self.refinement.check_condition(where, condition is not None)
        return as_field(self.field), None if condition is None else condition.to(x)

    def _dtype_and_device(self, x: Tensor | None = None) -> tuple[torch.dtype, torch.device]:
        """Return the field's dtype, at least float32, and device; those of ``x`` for a field without parameters."""
        for tensor in (*self.parameters(), *(() if x is None else (x,))):
            return at_least_float32(tensor.dtype), tensor.device
        return torch.get_default_dtype(), torch.get_default_device()

    def _checked(self, where: str, x: Tensor | np.ndarray[Any, Any]) -> tuple[Tensor, torch.Size]:
        """Return points flat, projected, as the field takes them, and their batch shape.

        Raises:
            ValueError: if they are farther off the manifold than tables round, or not finite.
        """
        given = points_of(f"Flow.{where}", self.manifold, x)
        dtype, device = self._dtype_and_device(given)
        try:
            self.manifold.check_point(given.double(), tol=POINT_TOLERANCE)
        except ValueError as error:
            raise ValueError(f"Flow.{where}: {error}") from None
        flat = given.to(device=device, dtype=dtype).reshape(-1, *self.manifold.event_shape)
        return self.manifold.projx(flat), self.manifold.batch_shape(given)
