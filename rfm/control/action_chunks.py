"""Chunks of actions as points of a manifold, and the windows of demonstrations that they are cut from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold, Padded, Power
from manifolds.arguments import check_instance
from rfm.arrays import points_of
from rfm.couplings import Pairs


class ActionChunks(Power):
    """The next ``horizon`` actions as one point: the power of the manifold where one action lives.

    ``ActionChunks(Product(SE3(), Euclidean(1)), 16)`` holds poses of a hand with its gripper, ``ActionChunks(Bounded(
    FlatTorus(7), JointLimits(low, high)), 16)`` angles of joints that stay within their limits. Robots of several kinds
    share a batch where an action is a point of `manifolds.Padded`; an action after the end of a demonstration is then
    one of which nothing is there.

    Args:
        manifold: where one action lives.
        horizon: how many actions a chunk has.
    """

    def __init__(self, manifold: Manifold, horizon: int) -> None:
        super().__init__(manifold, horizon)

    @property
    def manifold(self) -> Manifold:
        """Where one action lives."""
        return self.m

    @property
    def horizon(self) -> int:
        """How many actions a chunk has."""
        return self.k

    def windows(self, actions: Tensor, stride: int = 1) -> Tensor:
        """Return the chunks that begin at each action of a demonstration, ``(n, horizon, *event_shape)``.

        After the end of the demonstration, nothing of an action of `manifolds.Padded` is there; on other manifolds the
        last action is repeated.

        Args:
            actions: of one demonstration, in order ``(n, *event_shape)``.
            stride: a chunk has each so-manieth action.

        Raises:
            ValueError: if they are no points of the manifold of actions.
        """
        actions = points_of("ActionChunks.windows", self.m, actions)
        if actions.ndim != 1 + len(self.m.event_shape) or not len(actions):
            raise ValueError(
                f"ActionChunks.windows: takes the actions of one demonstration, (n, {_sizes(self.m.event_shape)}), got "
                f"shape {tuple(actions.shape)}; call it once for each"
            )
        n = len(actions)
        index = torch.arange(n)[:, None] + stride * torch.arange(self.k)
        chunks = actions[index.clamp(max=n - 1).to(actions.device)]
        if isinstance(self.m, Padded):
            chunks = self.m.limited(chunks, (index < n)[..., None].to(actions.device))
        return chunks

    def later(self, chunks: Tensor, count: int) -> Tensor:
        """Return what is left of chunks when so many actions are done, the last one repeated at the end."""
        index = (torch.arange(self.k, device=chunks.device) + count).clamp(max=self.k - 1)
        return chunks.index_select(chunks.ndim - 1 - len(self.m.event_shape), index)

    def extra_repr(self) -> str:
        return f"{self.m!r}, {self.k}"


@dataclass(frozen=True)
class SameFactors:
    """The coupling of chunks of `manifolds.Padded` actions: noise has the factors of the actions that it is led to.

    Args:
        manifold: the chunks.

    Raises:
        ValueError: if they have no padding.
    """

    manifold: ActionChunks

    def __post_init__(self) -> None:
        check_instance("SameFactors", "manifold", self.manifold, ActionChunks, "ActionChunks(padded, 16)")
        check_instance("SameFactors", "manifold.manifold", self.manifold.m, Padded, "Padded(SE3(), Euclidean(1))")

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        m = self.manifold.m
        assert isinstance(m, Padded)
        return Pairs(m.limited(x_0, m.there(x_1)), x_1, condition)


def _sizes(shape: torch.Size) -> str:
    return ", ".join(map(str, shape))
