"""A flow: a manifold, a velocity field and a source, as one distribution."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, number, whole
from manifolds.precision import at_least_float32
from rfm.arrays import points_of, shape_of, tensor_of
from rfm.clocks import Clocks
from rfm.conditions import Conditions
from rfm.integrators import Method, integrate
from rfm.likelihood import Hutchinson, LogProbEstimate, estimate_log_prob, estimate_transport, log_prob, transport
from rfm.networks.modes import evaluating
from rfm.precision import in_precision_of_weights
from rfm.progress import counting_bar
from rfm.saved_flow import SavedFlow, load_weights, read_flow, write_flow
from rfm.serialization import SavedFlowError
from rfm.sources import Source, Uniform

POINT_TOLERANCE = 1e-3
"""How far off the manifold points may be, relative to their size: tables round to a few digits."""
_BATCH = 4096


class Flow(nn.Module):
    """The distribution at time 1 of points that start in the source at time 0 and follow the field.

    Nothing here is differentiated: for gradients through a solve call `rfm.integrate`. Samples, log-densities and
    trajectories are those of the field in evaluation mode, without dropout and with running statistics, whichever mode
    the flow is in; that it keeps.

    Args:
        manifold: where the points live.
        field: ``field(x, t, **condition)``, tangent at ``x``; a module or a plain function.
        source: the distribution at time 0; `rfm.sources.Uniform` where the volume is finite.
        conditions: what the entries of the field's condition vectors mean, so that conditions can be given by name.
    """

    def __init__(
        self,
        manifold: Manifold,
        field: Callable[..., Tensor],
        source: Source | None = None,
        *,
        conditions: Conditions | None = None,
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
            _check_fit(field, conditions)
        self.history: list[dict[str, float]] = []
        """One record per validation during the fit: step, loss, seconds, and validation_nll in nats unless the field
        could not be integrated yet."""
        self.stopped = ""
        """Why the fit ended, in words."""

    def on(self, manifold: Manifold) -> "Flow":
        """Return the flow that this field makes on another manifold, with the same weights.

        For a field that serves manifolds of several sizes, such as `rfm.networks.FrameField`: one that is trained on
        backbones of many lengths gives those of any length. The source goes along by its own ``on``.

        Raises:
            ValueError: if field or source are made for one manifold alone.
        """
        check = getattr(self.field, "check_manifold", None)
        if check is None:
            raise ValueError(
                f"Flow.on: the field {type(self.field).__name__} is made for {self.manifold} alone; one that serves "
                "others says which by its method check_manifold(manifold)"
            )
        check(manifold)
        flow = Flow(manifold, self.field, self.source.on(manifold), conditions=self.conditions)
        flow.history, flow.stopped = self.history, self.stopped
        return flow.train(self.training)

    @evaluating
    @in_precision_of_weights
    def sample(
        self,
        shape: int | Sequence[int],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        guidance: float = 1.0,
        clocks: Clocks | None = None,
        self_conditioning: bool = False,
        generator: torch.Generator | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        return_log_prob: bool = False,
        estimator: Hutchinson | None = None,
        progress: bool | Callable[[int], Any] = False,
    ) -> Any:
        """Draw points.

        Args:
            shape: how many, a number or a shape.
            condition: condition vectors ``(*shape, c)``, or one ``(c,)`` for all; or by name where the flow has
                `conditions`, such as ``{"magnitude": 6, "region": "chile"}``, one value each or one per point. What is
                left out or NaN is not known.
            guidance: weight w of classifier-free guidance: the field is ``(1 - w) v(x, t) + w v(x, t, condition)``
                (Ho & Salimans, 2022, arXiv:2207.12598, in the tangent space); 1 uses the conditional field alone, 0 the
                unconditional one.
            clocks: speeds of the parts of a point that differ from those the field was trained for, such as rotations
                that settle before positions do; the samples then have another distribution.
            self_conditioning: give the field, at each step, what it predicted at the step before; for fields that have
                ``self_conditioned``, and solvers of one evaluation per step. It changes the distribution too.
            generator: source of randomness.
            solver: how to integrate; adaptive by default.
            batch_size: points integrated together, which bounds memory.
            return_log_prob: also return the log-density, computed on the way, without a second solve.
            estimator: estimate the divergence for it, instead of computing it exactly; for high dimensions.
            progress: show on stderr how many points are done, and how long the rest will take; or a function that is
                called with the number of points done each time.

        Returns:
            Points ``(*shape, *event_shape)``; with ``return_log_prob`` a pair with the log-densities ``(*shape)``, or
            with a `rfm.likelihood.LogProbEstimate` if there is an ``estimator``.

        Raises:
            ValueError: for guidance without a condition, or log-densities under guidance, clocks or self-conditioning:
                they change the distribution, and the samples are then not those of the flow's density.
        """
        size, guidance = shape_of("Flow.sample", shape), number("Flow.sample", "guidance", guidance)
        if guidance != 1.0 and condition is None:
            raise ValueError("Flow.sample: guidance needs a condition to guide towards; pass condition=")
        if guidance != 1.0 and return_log_prob:
            raise ValueError("Flow.sample: a guided sample has no exact log-density; use guidance=1")
        if clocks is not None and return_log_prob:
            raise ValueError(
                "Flow.sample: clocks change the distribution of the samples, which then have no log-density under this "
                "flow; leave out clocks, or return_log_prob"
            )
        remembering = getattr(self.field, "self_conditioned", None) if self_conditioning else None
        if self_conditioning and (return_log_prob or guidance != 1.0 or remembering is None):
            raise ValueError(
                "Flow.sample: self_conditioning is for fields that have a self_conditioned(), such as FrameField, and "
                "its samples have no log-density under this flow; leave it out, or return_log_prob and guidance"
            )
        if estimator is not None and not return_log_prob:
            raise ValueError(
                "Flow.sample: an estimator is for log-densities; pass return_log_prob=True, or leave it out"
            )
        dtype, device = self._dtype_and_device()
        x_0 = self.source.sample((size.numel(),), generator=generator, dtype=dtype, device=device)
        plain, condition = self._given(condition)
        if guidance != 1.0 and plain is not self.field:
            raise ValueError(
                "Flow.sample: guidance needs a velocity that knows no condition, which a field behind an encoder does "
                "not have; use guidance=1"
            )
        plain = plain if guidance in (0.0, 1.0) else _guided(plain, guidance)
        parts, log_probs, errors = [], [], []
        with counting_bar(progress, "sample", len(x_0)) as advance:
            for x, given in self._batches(x_0, condition, size, batch_size):
                own = {} if guidance == 0.0 else given
                # It has a memory: a new one for each batch.
                field = remembering() if remembering else plain
                field = field if clocks is None else clocks.applied_to(field)
                if not return_log_prob:
                    solution = integrate(field, self.manifold, x, (0.0, 1.0), solver, **own)
                elif estimator is None:
                    solution = transport(field, self.manifold, x, 0.0, 1.0, solver, **own)
                else:
                    solution, error = estimate_transport(field, self.manifold, x, 0.0, 1.0, estimator, solver, **own)
                    errors.append(error)
                if solution.integral is not None:
                    log_probs.append(self.source.log_prob(x) - solution.integral[-1])
                parts.append(solution.final)
                advance(len(x))
        points = torch.cat(parts).reshape(*size, *self.manifold.event_shape)
        if not return_log_prob:
            return points
        log_p = torch.cat(log_probs).reshape(size)
        return points, log_p if estimator is None else LogProbEstimate(log_p, torch.cat(errors).reshape(size))

    @overload
    def log_prob(
        self,
        x: Tensor | np.ndarray[Any, Any],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        estimator: None = None,
        progress: bool | Callable[[int], Any] = False,
    ) -> Tensor: ...

    @overload
    def log_prob(
        self,
        x: Tensor | np.ndarray[Any, Any],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        estimator: Hutchinson,
        progress: bool | Callable[[int], Any] = False,
    ) -> LogProbEstimate: ...

    @evaluating
    @in_precision_of_weights
    def log_prob(
        self,
        x: Tensor | np.ndarray[Any, Any],
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        estimator: Hutchinson | None = None,
        progress: bool | Callable[[int], Any] = False,
    ) -> Tensor | LogProbEstimate:
        """Return the log-density in nats, with respect to the Riemannian volume; exact unless an estimator is given.

        Args:
            x: points ``(*batch, *event_shape)``, at most 1e-3 off the manifold; they are projected to it.
            condition: condition vectors ``(*batch, c)``, or one ``(c,)`` for all; or by name, as in `sample`.
            solver: how to integrate; adaptive by default.
            batch_size: points integrated together, which bounds memory.
            estimator: estimate the divergence, for high dimensions.
            progress: show on stderr how many points are done, and how long the rest will take; or a function that is
                called with the number of points done each time.

        Returns:
            ``(*batch)``, in the dtype of the field, at least float32; with an ``estimator`` a
            `rfm.likelihood.LogProbEstimate`.
        """
        flat, batch = self._checked("log_prob", x)
        field, condition = self._given(condition)
        parts, errors = [], []
        with counting_bar(progress, "log-prob", len(flat)) as advance:
            for part, own in self._batches(flat, condition, batch, batch_size):
                if estimator is None:
                    parts.append(log_prob(field, self.source, part, solver, **own))
                else:
                    estimate = estimate_log_prob(field, self.source, part, estimator, solver, **own)
                    parts.append(estimate.log_prob)
                    errors.append(estimate.standard_error)
                advance(len(part))
        log_p = torch.cat(parts).reshape(batch)
        return log_p if estimator is None else LogProbEstimate(log_p, torch.cat(errors).reshape(batch))

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
        field, condition = self._given(condition)
        [(x, own)] = self._batches(flat, condition, batch, max(1, len(flat)))
        solution = integrate(field, self.manifold, x, times, solver, **own)
        return solution.x.reshape(len(solution.times), *batch, *self.manifold.event_shape)

    def save(self, folder: str | Path) -> None:
        """Save to a folder: ``flow.json`` and the tensors it names.

        Weights are written first, under a name made of their content; ``flow.json`` is replaced last, in one step.
        Interrupted at any moment, the folder holds the old flow or the new one.
        """
        parts = SavedFlow(self.manifold, self.field, self.source, self.conditions, self.history, self.stopped)
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
            flow = cls(saved.manifold, saved.field, saved.source, conditions=saved.conditions)
        except ValueError as error:
            raise SavedFlowError(f"{folder / 'flow.json'} is damaged: {error}; fit again") from None
        load_weights(flow, tensors, folder)
        flow.history, flow.stopped = saved.history, saved.stopped
        return flow.eval()

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

    def _given(self, condition: Tensor | Mapping[str, Any] | None) -> tuple[Callable[..., Tensor], Tensor | None]:
        """Return the field to follow and its condition vectors; what the field has to encode first is encoded once."""
        vectors = None if condition is None else self._vectors(condition)
        encoded = getattr(self.field, "encoded", None)
        if encoded is None:
            return self.field, vectors
        if vectors is None:
            raise ValueError("Flow: this field needs to be told what it is conditional on; pass condition=")
        dtype, device = self._dtype_and_device()
        field, context = encoded(vectors.to(device=device, dtype=dtype))
        return field, context

    def _batches(
        self, x: Tensor, condition: Tensor | None, shape: torch.Size, batch_size: int
    ) -> list[tuple[Tensor, dict[str, Any]]]:
        """Return chunks of ``x`` with their conditions."""
        batch_size = whole("Flow", "batch_size", batch_size, None)
        if batch_size < 1:
            raise ValueError(f"Flow: batch_size must be at least 1, got {batch_size}")
        chunks = x.split(batch_size)
        if condition is None:
            return [(chunk, {}) for chunk in chunks]
        # As many axes as the points, or one vector: one row of a batch that happens to fit would be nobody's.
        fits = condition.ndim == 1 or condition.ndim == 1 + len(shape)
        if not fits or any(a not in (1, b) for a, b in zip(condition.shape[:-1], shape, strict=False)):
            raise ValueError(
                f"Flow: condition of shape {tuple(condition.shape)} does not fit points of batch shape {tuple(shape)}; "
                "give one vector (c,), or one per point"
            )
        full = condition.to(x).expand(*shape, condition.shape[-1]).reshape(len(x), condition.shape[-1])
        return [(c, {"condition": own}) for c, own in zip(chunks, full.split(batch_size), strict=True)]

    def _vectors(self, condition: Tensor | Mapping[str, Any]) -> Tensor:
        """Return condition vectors, checked where it is known what they mean."""
        if isinstance(condition, Mapping):
            if self.conditions is None:
                raise ValueError(
                    "Flow: this flow has no names for conditions; fit with condition={name: values}, or pass vectors"
                )
            vectors = self.conditions.encode(condition)
            for sentence in self.conditions.extrapolations(vectors):
                warnings.warn(f"Flow: {sentence}", stacklevel=7)
            return vectors
        vectors = tensor_of("Flow", "condition", condition)
        if self.conditions is not None and vectors.ndim:
            self.conditions.check(vectors)
        return vectors


def _check_fit(field: Any, conditions: Conditions) -> None:
    """Raise ValueError if a field that says how many labels the entries of its conditions have says something else."""
    dim = getattr(field, "condition_dim", None)
    if dim is None:
        return
    labels = tuple(getattr(field, "condition_labels", None) or [0] * dim)
    if labels != conditions.labels:
        raise ValueError(
            f"Flow: the conditions {', '.join(conditions.names)} have {list(conditions.labels)} labels, the field was "
            f"made for {list(labels)}; give it condition_dim={len(conditions.labels)} and condition_labels="
            f"{list(conditions.labels)}"
        )


def _guided(field: Callable[..., Tensor], weight: float) -> Callable[..., Tensor]:
    """Return the field of classifier-free guidance; the combination of two tangent vectors is tangent.

    A field may offer both velocities from one evaluation, as ``without_and_with(x, t, condition)``.
    """
    both = getattr(field, "without_and_with", None)

    def guided(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        free, given = both(x, t, condition) if both else (field(x, t), field(x, t, condition=condition))
        return torch.lerp(free, given, weight)

    return guided
