"""A flow of action chunks as a policy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds import Padded
from manifolds.arguments import check_instance, integer, number, seed_of
from rfm.control.action_chunks import ActionChunks
from rfm.control.action_matching import TEN_STEPS
from rfm.control.action_network import ActionNetwork
from rfm.control.observations import Observations
from rfm.control.real_time import RealTimeChunking
from rfm.field import Field, as_field, as_flow_map
from rfm.flow import Flow
from rfm.integrators import Jumps, Method, integrate
from rfm.networks.modes import evaluating
from rfm.paths import GeodesicPath


class FlowPolicy:
    """Draws a chunk of actions given what is seen, carries out the first of them, and looks again.

    ``act`` returns the action that is due, and draws a new chunk when ``execute`` of the last one are done: receding
    horizon. Policies of several environments that run side by side act on a batch, in step.

    The flow is one like any other: save it by ``policy.flow.save(folder)``, and make the policy again from
    ``rfm.Flow.load(folder)``.

    Args:
        flow: of `ActionChunks`, given the vectors of `Observations`, such as one with an `ActionNetwork`.
        execute: how many actions of a chunk are carried out; half of them by default.
        solver: how a chunk is drawn, ten steps of Euler's method by default.
        steps: take so many jumps, of one evaluation each, in place of the solver: for a field that is a flow map, such
            as an `ActionMap` that `rfm.distil` has trained.
        start: the time at which a chunk after the first begins, on the geodesic from noise to what is left of the last
            one: a warm start, which saves steps and keeps to what was planned. 0 begins in noise.
        chunking: how chunks are made to agree with what is left of the last one; they are drawn afresh by default.
        there: which factors the actions have, where an action is a point of `manifolds.Padded`; all by default.
        observations: what is seen, for a field that does not say so itself as an `ActionNetwork` does.
        seed: of the noise.

    Raises:
        ValueError: an argument is not as said, or jumps are to be guided.
    """

    def __init__(
        self,
        flow: Flow,
        execute: int | None = None,
        *,
        solver: Method | None = None,
        steps: int | None = None,
        start: float = 0.0,
        chunking: RealTimeChunking | None = None,
        there: Sequence[bool] | None = None,
        observations: Observations | None = None,
        seed: int = 0,
    ) -> None:
        check_instance("FlowPolicy", "flow", flow, Flow, "Flow(ActionChunks(SE3(), 16), network)")
        check_instance("FlowPolicy", "flow.manifold", flow.manifold, ActionChunks, "ActionChunks(SE3(), 16)")
        if observations is None:
            check_instance("FlowPolicy", "flow.field", flow.field, ActionNetwork, "ActionNetwork(chunks, observations)")
            assert isinstance(flow.field, ActionNetwork)
            observations = flow.field.observations
        assert isinstance(flow.manifold, ActionChunks)
        self.flow, self.chunks, self.chunking, self.observations = flow, flow.manifold, chunking, observations
        horizon = self.chunks.horizon
        self.execute = (horizon + 1) // 2 if execute is None else integer("FlowPolicy", "execute", execute)
        delay = 0 if chunking is None else chunking.delay
        if self.execute + delay > horizon:
            raise ValueError(
                f"FlowPolicy: {self.execute} actions are to be executed after a delay of {delay}, a chunk has "
                f"{horizon}; execute fewer"
            )
        self.start = number("FlowPolicy", "start", start)
        if not 0 <= self.start < 1:
            raise ValueError(f"FlowPolicy: start is a time from 0 to below 1, got {start}; 0 begins in noise")
        self.solver, self.there = _method(flow, solver, steps, chunking), there
        if there is not None:
            check_instance("FlowPolicy: there says which factors", "actions", self.chunks.m, Padded, "Padded(SE3())")
        self.generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(seed_of("FlowPolicy", seed))
        self.reset()

    def reset(self) -> None:
        """Forget the last chunk: a new episode begins."""
        self._last: Tensor | None = None
        self._done = 0

    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """Return the action that is due, ``(*batch, *event_shape)``.

        What is seen is used when a chunk is drawn; in between, actions come from the last one.

        Args:
            observation: values by name, each of one observation or of n, see `Observations.encode`.
        """
        if self._last is None or self._done >= self.execute:
            left = None if self._last is None else self.chunks.later(self._last, self._done)
            self._last, self._done = self.plan(observation, left), 0
        axis = self._last.ndim - 1 - len(self.chunks.m.event_shape)
        self._done += 1
        return self._last.select(axis, self._done - 1)

    def plan(self, observation: Mapping[str, Any], left: Tensor | None = None) -> Tensor:
        """Return a chunk, ``(*batch, horizon, *event_shape)``.

        Args:
            observation: as for `act`.
            left: what is left of the last chunk, as `ActionChunks.later` returns it.
        """
        vectors = self.observations.encode(observation)
        batch = vectors.shape[:-1]
        chunk = _drawn(self.flow, self, vectors.reshape(-1, vectors.shape[-1]), left)
        return chunk.reshape(*batch, *self.chunks.event_shape)

    def _begun(self, n: int, left: Tensor | None) -> tuple[Tensor, float]:
        """Return where chunks begin, and when."""
        flow, m = self.flow, self.chunks.m
        dtype, device = flow._dtype_and_device()
        x = flow.source.sample((n,), generator=self.generator, dtype=dtype, device=device)
        if self.there is not None and isinstance(m, Padded):
            x = m.limited(x, torch.tensor(list(self.there), device=device))
        if left is None or self.start == 0:
            return x, 0.0
        return GeodesicPath(self.chunks).sample(x, left, x.new_full((n,), self.start)).x_t, self.start

    def _steered(self, field: Field, left: Tensor | None) -> Field:
        if left is None or self.chunking is None:
            return field
        return self.chunking.guidance(self.chunks, left, self.execute).applied_to(field)


@evaluating
def _drawn(flow: Flow, policy: FlowPolicy, vectors: Tensor, left: Tensor | None) -> Tensor:
    """Return a chunk for each vector ``(n, w)``; the keys and values of observations are computed once."""
    if left is not None:
        left = left.reshape(len(vectors), *policy.chunks.event_shape)
    x, start = policy._begun(len(vectors), left)
    field, cache = as_field(flow.field).encoded(vectors.to(x))
    steered = policy._steered(as_field(field), left)
    chunk = integrate(steered, policy.chunks, x, (start, 1.0), policy.solver, condition=cache).final
    if left is not None and policy.chunking is not None:
        # What is done while the chunk is computed is done as it was planned.
        chunk[:, : policy.chunking.delay] = left[:, : policy.chunking.delay]
    return chunk


def _method(flow: Flow, solver: Method | None, steps: int | None, chunking: RealTimeChunking | None) -> Method:
    """Return how chunks are drawn.

    Raises:
        ValueError: for jumps beside a solver, without a flow map, or guided.
    """
    if steps is None:
        return TEN_STEPS if solver is None else solver
    as_flow_map("FlowPolicy", flow.field)
    if solver is not None or chunking is not None:
        raise ValueError(
            "FlowPolicy: steps are jumps of a flow map, which no solver takes and no guidance reaches; leave out steps "
            "or, beside them, solver and chunking (start= agrees with the last chunk too)"
        )
    return Jumps(integer("FlowPolicy", "steps", steps))
