"""From demonstrations to a policy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manifolds import Padded
from manifolds.arguments import check_instance, seed_of
from rfm.arrays import points_of
from rfm.control.action_chunks import ActionChunks, SameFactors
from rfm.control.action_matching import ActionMatching
from rfm.control.action_network import ActionNetwork
from rfm.control.observations import Observations, origin_and_scale
from rfm.control.policy import FlowPolicy
from rfm.couplings import Coupling, Independent
from rfm.flow.progress import Report
from rfm.objectives import Objective
from rfm.sources import KernelMixture, PowerSource, Source, default_source
from rfm.statistics import frechet_mean
from rfm.training import Training, fit


def action_network(
    chunks: Tensor, manifold: ActionChunks, observations: Observations, seed: int = 0, **sizes: int
) -> ActionNetwork:
    """Return a new network with the origin and scale of actions, and weights that a seed decides.

    Args:
        chunks: ``(n, horizon, *event_shape)``.
        manifold: where they live.
        observations: what is seen.
        seed: of the weights.
        sizes: ``width``, ``depth``, ``seen_depth`` and ``heads`` of `ActionNetwork`.
    """
    chunks = points_of("action_network", manifold, chunks)
    embedded = manifold.m.embed(chunks.reshape(-1, *manifold.m.event_shape).double())
    offset, scale = origin_and_scale(manifold.m, embedded)
    # The initialisers of modules know global randomness only.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("action_network", seed))
        return ActionNetwork(manifold, observations, offset=offset, scale=scale, **sizes)


def action_source(chunks: Tensor, manifold: ActionChunks) -> Source:
    """Return noise for chunks of actions: that of one kernel about their mean, as wide as the actions are spread.

    In flat space that is the normal distribution of the actions' mean and spread. On a compact manifold the uniform
    distribution, which `rfm.sources.default_source` takes, is farther from actions that occupy a part of it, and what a
    policy misses by grows with the way. Where the manifold has no kernel it is the default nevertheless.

    Args:
        chunks: ``(n, horizon, *event_shape)``; a thousand of them, evenly spaced, are looked at.
        manifold: where they live.
    """
    chunks, one = points_of("action_source", manifold, chunks), manifold.manifold
    some = chunks[:: max(1, len(chunks) // _LOOKED_AT)].double()
    actions = some.reshape(-1, *one.event_shape)
    if one.kernel is None or isinstance(one, Padded):
        return default_source(manifold, chunks)
    actions = actions[:: max(1, len(actions) // _LOOKED_AT)]
    centre = frechet_mean(one, actions).point
    squared = (one.embed(actions) - one.embed(centre)).square().sum(-1).mean().clamp(min=_SMALLEST)
    width, weights = (one.dim / squared)[None], torch.tensor([1.0, 0.0], dtype=torch.float64)
    kernel = KernelMixture(one, centre[None], width, weights, default_source(one, actions))
    return PowerSource(manifold, kernel)


_LOOKED_AT = 1000
_SMALLEST = 1e-12
"""Squared spread of actions that are all alike."""


def fit_policy(
    chunks: Tensor,
    manifold: ActionChunks,
    observations: Observations,
    observation: Mapping[str, Any],
    *,
    groups: Any = None,
    execute: int | None = None,
    there: Any = None,
    network: ActionNetwork | None = None,
    objective: Objective | None = None,
    source: Source | None = None,
    steps: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Report = True,
    training: Training | None = None,
) -> FlowPolicy:
    """Train a policy by imitation: ``fit_policy(chunks, manifold, observations, {"pose": poses})``.

    That is `rfm.fit` with what suits policies: an `ActionNetwork` with the scales of the actions, noise about their
    mean (`action_source`), `ActionMatching`, no refinement, and noise with the factors of the actions that it leads to
    where actions are of `manifolds.Padded`.

    Args:
        chunks: of demonstrations, such as `ActionChunks.windows` cuts ``(n, horizon, *event_shape)``.
        manifold: where they live.
        observations: what is seen.
        observation: values by name, one for each chunk, of when it begins.
        groups: the demonstration that each chunk is of ``(n,)``; a tenth of them is held out to decide when to stop.
        execute: of each chunk, see `FlowPolicy`.
        there: which factors the policy's actions have, see `FlowPolicy`.
        network: in place of `action_network` with its defaults.
        objective: in place of ``ActionMatching()``.
        source: of noise, `action_source` by default.
        steps: optimiser steps, as those that follow for `rfm.fit`.
        batch_size: pairs per step.
        seed: of every random draw.
        device: "cpu", "cuda", ...
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``.
        progress: show a progress bar on stderr, or a function.
        training: learning rate, 1e-3 by default, cap on the time, and more.

    Raises:
        ValueError: for values that cannot be used.
    """
    check_instance("fit_policy", "manifold", manifold, ActionChunks, "ActionChunks(SE3(), 16)")
    check_instance("fit_policy", "observations", observations, Observations, "Observations([Point('pose', SE3())])")
    network = action_network(chunks, manifold, observations, seed) if network is None else network
    padded = isinstance(manifold.m, Padded)
    coupling: Coupling = SameFactors(manifold) if padded else Independent()
    flow = fit(
        chunks,
        manifold,
        condition=observations.encode(observation),
        groups=groups,
        source=action_source(chunks, manifold) if source is None else source,
        field=network,
        objective=ActionMatching() if objective is None else objective,
        coupling=coupling,
        refine=False,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
        training=Training(learning_rate=1e-3) if training is None else training,
    )
    return FlowPolicy(flow, execute, there=there, seed=seed)
