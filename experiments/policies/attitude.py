"""A rigid body that is turned by torques to a random attitude, and held there."""

import torch
from torch import Tensor

from manifolds import SO3, Euclidean
from manifolds.rotations import hat, rotvec_from_matrix
from rfm.control import Environments, Step

INERTIA = (1.0, 1.5, 2.0)
"""About the principal axes, kg m^2."""
SECONDS, MOMENTS = 0.1, 100
"""Of a step, and steps of an episode."""


class Attitude(Environments):
    """Turns rigid bodies on SO(3) by torques of at most 1 N m about each of their axes.

    A body begins at rest in a uniform random attitude relative to that which it is to reach, so that the group's
    identity is the goal. Its rates obey Euler's equations; rewards are minus the angle that is left, in radians, minus
    a twentieth of the squared torque. Seen are the entries of the rotation and the rates.

    Args:
        count: how many bodies.
        seed: of the attitudes.
    """

    observation_size = 12

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.actions, self.group = count, Euclidean(3), SO3()
        self.generator = torch.Generator().manual_seed(seed)
        self.inertia = torch.tensor(INERTIA)
        self.age = torch.zeros(count, dtype=torch.int64)
        self.attitude, self.rate = torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 3)

    def reset(self) -> Tensor:
        self._begin(torch.ones(self.count, dtype=torch.bool))
        self.age = torch.zeros_like(self.age)
        return self._seen()

    def step(self, actions: Tensor) -> Step:
        torque = actions.detach().clamp(-1, 1)
        gyroscopic = torch.linalg.cross(self.rate, self.inertia * self.rate)
        self.rate = self.rate + SECONDS * (torque - gyroscopic) / self.inertia
        self.attitude = self.group.expmap(self.attitude, self.attitude @ hat(SECONDS * self.rate))
        self.age = self.age + 1
        reward = -self.angle() - 0.05 * torque.square().sum(-1)
        final, over = self._seen(), self.age >= MOMENTS
        self.age = torch.where(over, 0, self.age)
        self._begin(over)
        return Step(self._seen(), reward, torch.zeros_like(over), over, final)

    def angle(self) -> Tensor:
        """Return how far bodies are from where they are to be, in radians ``(n,)``."""
        return self.group.dist(self.attitude, torch.eye(3).expand_as(self.attitude))

    def _begin(self, which: Tensor) -> None:
        """Begin new episodes, with rates of zero."""
        drawn = self.group.random_uniform(self.count, generator=self.generator, dtype=torch.float32)
        self.attitude = torch.where(which[:, None, None], drawn, self.attitude)
        self.rate = torch.where(which[:, None], 0.0, self.rate)

    def _seen(self) -> Tensor:
        return torch.cat([self.attitude.flatten(1), self.rate], dim=-1)


def steered(observation: Tensor) -> Tensor:
    """Return torques of a proportional and derivative controller on SO(3), cut off at 1, as a reference."""
    attitude, rate = observation[:, :9].unflatten(1, (3, 3)), observation[:, 9:]
    # Critically damped about each axis.
    return (-torch.tensor(INERTIA) * (rotvec_from_matrix(attitude) + 2 * rate)).clamp(-1, 1)
