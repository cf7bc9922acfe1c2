"""Environments that run side by side, in tensors."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from manifolds import Euclidean, Manifold
from rfm.records.packages import optional_package


class Step(NamedTuple):
    """What environments return for an action, of each of n environments."""

    observation: Tensor
    """What is seen next ``(n, o)``: of a new episode where one ended."""
    reward: Tensor
    """``(n,)``."""
    terminated: Tensor
    """Whether the episode came to an end of its own ``(n,)``, after which nothing is gained."""
    truncated: Tensor
    """Whether it was cut off at its time limit ``(n,)``; more could have been gained."""
    final_observation: Tensor
    """What is seen after the action in the same episode ``(n, o)``."""


class Environments(ABC):
    """Several environments of one kind, each of which begins a new episode by itself when one ends.

    A subclass sets the attributes, and writes `reset` and `step`.
    """

    count: int
    """How many environments."""
    observation_size: int
    """Length of the vectors that are seen."""
    actions: Manifold
    """Where one action lives."""

    @abstractmethod
    def reset(self) -> Tensor:
        """Begin new episodes, and return what is seen, ``(n, observation_size)``."""

    @abstractmethod
    def step(self, actions: Tensor) -> Step:
        """Carry out the actions ``(n, *event_shape)``."""


class GymnasiumEnvironments(Environments):
    """A vector environment of `gymnasium` with vectors for observations and boxes of actions.

    Actions are points of `manifolds.Euclidean`, in units in which the box is from -1 to 1; what exceeds it is cut off.

    Args:
        environment: as `of` makes them, or ``gymnasium.make_vec("Pendulum-v1", 8, vectorization_mode="async",
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP})``.
        seed: of the episodes.

    Raises:
        ValueError: if observations are no vectors, actions no bounded box, or episodes do not begin anew in the step in
            which the last one ended.
    """

    def __init__(self, environment: Any, seed: int = 0) -> None:
        seen, box = environment.single_observation_space, environment.single_action_space
        gymnasium = optional_package("gymnasium", "control", "GymnasiumEnvironments")
        boxes = isinstance(seen, gymnasium.spaces.Box) and isinstance(box, gymnasium.spaces.Box)
        if not boxes or len(seen.shape) != 1 or not box.is_bounded():
            raise ValueError(
                f"GymnasiumEnvironments: observations are vectors and actions a bounded box, got {seen} and {box}; "
                "wrap the environment, gymnasium.wrappers.vector.FlattenObservation"
            )
        mode = environment.metadata.get("autoreset_mode")
        if mode is None or mode.name != "SAME_STEP":
            raise ValueError(
                f"GymnasiumEnvironments: episodes begin anew in the step in which the last one ended, got {mode}; make "
                "the environment with vector_kwargs={'autoreset_mode': gymnasium.vector.AutoresetMode.SAME_STEP}"
            )
        self.environment = environment
        self.seed: int | None = seed
        self.count, self.observation_size = int(environment.num_envs), int(seen.shape[0])
        low, high = (torch.as_tensor(each).flatten() for each in (box.low, box.high))
        self.actions = Euclidean(len(low))
        self.middle, self.half = ((high + low) / 2).float(), ((high - low) / 2).float()
        self.shape = box.shape

    @classmethod
    def of(cls, name: str, count: int, seed: int = 0, **options: Any) -> Self:
        """Return so many environments of a registered name, one after the other in this process.

        Args:
            name: such as ``"Pendulum-v1"``.
            count: how many.
            seed: of the episodes.
            options: of each environment, passed on to `gymnasium.make_vec`.

        Raises:
            rfm.records.packages.MissingPackageError: gymnasium is not installed.
        """
        gymnasium = optional_package("gymnasium", "control", "GymnasiumEnvironments")
        again = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        own = gymnasium.make_vec(name, count, vectorization_mode="sync", vector_kwargs=again, **options)
        return cls(own, seed)

    def reset(self) -> Tensor:
        # Once: seeded anew, every reset would begin the same episodes.
        seed, self.seed = self.seed, None
        return _float(self.environment.reset(seed=seed)[0])

    def step(self, actions: Tensor) -> Step:
        numbers = self.into_box(actions.detach()).numpy()
        seen, reward, terminated, truncated, info = self.environment.step(numbers)
        observation, final = _float(seen), _float(seen).clone()
        for i, last in enumerate(info.get("final_obs", ())):
            if last is not None:
                final[i] = _float(last)
        ends = torch.as_tensor(terminated), torch.as_tensor(truncated)
        return Step(observation, _float(reward), *ends, final)

    def into_box(self, actions: Tensor) -> Tensor:
        """Return actions ``(n, d)`` in the units of the environment, cut off at the bounds of its box."""
        return (self.middle + self.half * actions.clamp(-1, 1)).reshape(len(actions), *self.shape)

    def from_box(self, numbers: Tensor) -> Tensor:
        """Return numbers in the units of the environment as actions ``(n, d)``."""
        return (numbers.flatten(1) - self.middle) / self.half


def _float(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
