"""One policy: trained, with its learning curve, and assessed."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.policies.tasks import Task
from rfm.control import FlowActor

_POINTS = 40
"""Of a learning curve."""


@dataclass
class Curve:
    """Collects the returns of training episodes, and says how far training is.

    Args:
        title: of the run.
        steps: of environments in all.
    """

    title: str
    steps: int
    at: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=time.process_time)
    _last: list[float] = field(default_factory=list)
    _reported: int = 0

    def add(self, steps: int, episodes: Sequence[float]) -> None:
        """Take the returns of episodes that ended into account."""
        self._last += episodes
        due = steps >= (len(self.at) + 1) * self.steps / _POINTS or steps >= self.steps
        if self._last and due:
            self.at.append(min(steps, self.steps))
            self.returns.append(float(np.mean(self._last)))
            self._last = []
        if 10 * steps // self.steps > self._reported and self.returns:
            self._reported = 10 * steps // self.steps
            gone = time.perf_counter() - self.started
            left = gone * max(0, self.steps - steps) / steps
            share = f"{100 * min(1, steps / self.steps):.0f} % of {self.steps:,} steps"
            print(
                f"{self.title}: {share}, return {self.returns[-1]:.2f}, {left:.0f} s left", file=sys.stderr, flush=True
            )


def trained(task: Task, method: str, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return learning curve and final returns of a policy; a flow's weights are left in the folder."""
    curve = Curve(f"{task.name}, {method}, seed {seed}", steps)
    if method == "PPO":
        from experiments.policies import gaussian

        act = gaussian.trained(task, steps, seed, curve.add)
    else:
        act = _flow(task, method, steps, seed, folder, curve)
    seconds = time.process_time() - curve.processor
    found = {
        "task": task.name,
        "method": method,
        "seed": seed,
        "steps": steps,
        "at": curve.at,
        "returns": curve.returns,
    }
    found |= {"seconds": seconds, "final": assessed(task, act, True), "drawn": assessed(task, act, False)}
    if not task.certain:
        found["ways"] = _ways(task, act)
    return found


def _ways(task: Task, act: Callable[..., Tensor]) -> dict[str, Any]:
    """Return what was decided in a moment, and given which obstacles."""
    obstacles = task.environment(task.assessed, 20_000).reset()
    return {"points": act(obstacles, False).tolist(), "obstacles": obstacles.tolist()}


def _flow(task: Task, method: str, steps: int, seed: int, folder: Path, curve: Curve) -> Callable[..., Tensor]:
    environments = task.environment(task.environments, seed)
    actor = task.actor(environments, seed)
    # Of seeds that environments do not have: noise would be what they draw.
    generator = torch.Generator().manual_seed(1000 + seed)
    for iteration in task.algorithm(method).train(actor, environments, steps, generator):
        curve.add(iteration.steps, iteration.episodes)
    torch.save(actor.state_dict(), folder / f"{task.file}-{method}-{seed}.pt")
    return policy(actor, torch.Generator().manual_seed(2000 + seed))


def policy(actor: FlowActor, generator: torch.Generator) -> Callable[..., Tensor]:
    """Return a flow as a function of observations, and of whether it acts without noise."""

    def act(observation: Tensor, certain: bool) -> Tensor:
        noise = torch.zeros(len(observation), *actor.source.manifold.event_shape) if certain else None
        return actor.act(observation, noise=noise, generator=generator)

    return act


@torch.no_grad()
def assessed(task: Task, act: Callable[..., Tensor], certain: bool) -> list[float]:
    """Return the sums of rewards of fresh episodes, one from each of the environments."""
    if certain and not task.certain:
        return []
    environments = task.environment(task.assessed, 10_000)
    seen = environments.reset()
    total, going = torch.zeros(task.assessed), torch.ones(task.assessed, dtype=torch.bool)
    while bool(going.any()):
        step = environments.step(act(seen, certain))
        total += torch.where(going, step.reward, 0.0)
        going &= ~(step.terminated | step.truncated)
        seen = step.observation
    return [float(each) for each in total]
