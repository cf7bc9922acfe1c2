"""One of our manifolds where geoopt expects one of its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds.base import Manifold

try:
    import geoopt
except ImportError as error:
    raise ImportError(
        "manifolds.interop.geoopt: geoopt cannot be imported; pip install 'riemannian-flow-matching[geoopt]'"
    ) from error

__all__ = ["Sizes", "ToGeoopt", "geoopt"]

Sizes = tuple[int, ...]


class ToGeoopt(geoopt.Manifold):  # type: ignore[misc]
    """One of our manifolds as a geoopt manifold; made by `to_geoopt`.

    ``retr`` is the exponential map and ``transp`` our transport. A gradient becomes the one of the manifold's own
    metric: the tangent vector ``g`` with ``inner(x, g, v) == <gradient, v>`` for every tangent ``v``.

    Args:
        manifold: the manifold.
    """

    __scaling__ = geoopt.Manifold.__scaling__.copy()
    reversible = False

    def __init__(self, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold
        self.name = repr(manifold)
        self.ndim = len(manifold.event_shape)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return self.manifold.projx(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self.manifold.proju(x, u)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        if self.manifold.metric_is_induced:
            return self.manifold.proju(x, u)
        basis = self.manifold.tangent_basis(x)
        axis = x.ndim - self.ndim
        coefficients = (basis * u.unsqueeze(axis)).flatten(axis + 1).sum(-1)
        return (self.manifold.lift(coefficients) * basis).sum(axis)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return self._kept(self.manifold.inner(x, u, u if v is None else v), keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        return self._kept(self.manifold.norm(x, u), keepdim)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return self._kept(self.manifold.dist(x, y), keepdim)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.manifold.expmap(x, u)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return self.manifold.expmap(x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.manifold.logmap(x, y)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.manifold.transp(x, y, v)

    def random(
        self,
        *size: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return uniform points of shape ``size``, which ends with the shape of one point."""
        shape = geoopt.utils.size2shape(*size)
        self._assert_check_shape(shape, "size")
        points = self.manifold.random_uniform(
            *shape[: len(shape) - self.ndim], generator=generator, dtype=dtype, device=device
        )
        return geoopt.ManifoldTensor(points, manifold=self)

    # Checks.

    def _check_shape(self, shape: Sizes, name: str) -> tuple[bool, str | None]:
        if len(shape) >= self.ndim and tuple(shape[len(shape) - self.ndim :]) == tuple(self.manifold.event_shape):
            return True, None
        return False, f"`{name}` should end with {tuple(self.manifold.event_shape)}, got {tuple(shape)}"

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        return _passes(self.manifold.check_point, x, tol=max(atol, rtol))

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return _passes(self.manifold.check_tangent, x, u, tol=max(atol, rtol))

    def _kept(self, value: Tensor, keepdim: bool) -> Tensor:
        return self.manifold.lift(value) if keepdim else value


def _passes(check: Callable[..., None], *arguments: Tensor, tol: float) -> tuple[bool, str | None]:
    try:
        check(*arguments, tol=tol)
    except ValueError as error:
        return False, str(error)
    return True, None
