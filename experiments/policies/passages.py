"""A fleet that has to part: left or right round an obstacle on the sphere."""

import math

import torch
from torch import Tensor

from manifolds import Sphere
from rfm.control import Environments, Step

FLEET, RADIUS, HALF_WAY = 32, 0.3, 1.2
"""Robots of a fleet, radius of the obstacle and half the distance from start to goal, in radians."""
_POINTS = 24


class Passages(Environments):
    """Each robot of a fleet chooses a via point on the sphere, through which it goes from one place to another.

    The way is two geodesics, along the equator if the via point is on it. In between lies an obstacle, which all robots
    of a fleet see at the same place, and which is different for each fleet and moment. A robot gains 1, less what its
    way is longer than the straight one in radians, less 1 if it meets the obstacle, less ``2 s - 1`` where a share s of
    its fleet passes on the same side. The fleet does best where each robot goes left or right by the flip of a coin;
    none knows what the others do. An episode is one decision.

    Args:
        count: how many robots, a multiple of a fleet.
        seed: of the obstacles.
    """

    observation_size = 3

    def __init__(self, count: int, seed: int = 0) -> None:
        if count % FLEET:
            raise ValueError(f"Passages: count is a multiple of {FLEET}, the robots of a fleet, got {count}")
        self.count, self.actions = count, Sphere(2)
        self.generator = torch.Generator().manual_seed(seed)
        ends = torch.tensor([[math.cos(HALF_WAY), side * math.sin(HALF_WAY), 0.0] for side in (-1, 1)])
        self.start, self.goal = ends.unbind()
        self.obstacle = self.start.expand(count, 3)

    def reset(self) -> Tensor:
        place = (torch.rand(self.count // FLEET, 2, generator=self.generator) - 0.5) * torch.tensor([0.6, 0.3])
        longitude, latitude = place.repeat_interleave(FLEET, 0).unbind(-1)
        across = torch.cos(latitude)
        self.obstacle = torch.stack(
            [across * torch.cos(longitude), across * torch.sin(longitude), torch.sin(latitude)], -1
        )
        return self.obstacle

    def step(self, actions: Tensor) -> Step:
        length, hit, north = self.passed(actions.detach(), self.obstacle)
        northern = north.float().unflatten(0, (-1, FLEET)).mean(1).repeat_interleave(FLEET)
        share = torch.where(north, northern, 1 - northern)
        reward = 1 - (length - 2 * HALF_WAY) - hit.float() - (2 * share - 1)
        final, over = self.obstacle, torch.ones(self.count, dtype=torch.bool)
        return Step(self.reset(), reward, over, torch.zeros_like(over), final)

    def way(self, points: Tensor) -> Tensor:
        """Return the ways through points ``(n, 3)``, ``(2 * 24, n, 3)``."""
        m, t = self.actions, torch.linspace(0, 1, _POINTS)[:, None].expand(_POINTS, len(points))
        legs = [
            m.geodesic(self.start.expand_as(points), points, t)[0],
            m.geodesic(points, self.goal.expand_as(points), t)[0],
        ]
        return torch.cat(legs)

    def passed(self, points: Tensor, obstacle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return lengths of ways through points, which meet the obstacle, and which pass to its north, ``(n,)``."""
        m, way = self.actions, self.way(points)
        distance = m.dist(way, obstacle.expand_as(way))
        nearest = torch.take_along_dim(way, distance.argmin(0)[None, :, None], 0)[0]
        length = m.dist(self.start.expand_as(points), points) + m.dist(points, self.goal.expand_as(points))
        return length, distance.amin(0) < RADIUS, nearest[:, 2] > obstacle[:, 2]
