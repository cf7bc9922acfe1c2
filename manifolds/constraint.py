"""Equations F(x) = 0: their derivatives, and Newton's method on them, sample by sample, in a fixed number of rounds."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds.collocation import choose, solve
from manifolds.constants import Constants

_DAMPING = (1.0, 0.5, 0.1, 0.0)


class Constraint(Constants):
    """One or several equations on R^n.

    Args:
        function: of points ``(*batch, n)``; returns ``(*batch)``, or ``(*batch, k)`` for k equations. Written in
            PyTorch, smooth, and of each point alone.
        n: dimension of the ambient space.

    Raises:
        ValueError: if the function returns another shape, or as many equations as there are coordinates.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], n: int) -> None:
        super().__init__()
        self.function, self.n = function, n
        shape = tuple(function(torch.full((2, 3, n), 0.5)).shape)
        self.single = shape == (2, 3)
        if not self.single and (len(shape) != 3 or shape[:2] != (2, 3)):
            raise ValueError(
                f"LevelSet: constraint must turn points (*batch, {n}) into (*batch) or (*batch, k), got {shape} for "
                f"points of shape (2, 3, {n}); reduce over the last axis only"
            )
        self.count = 1 if self.single else shape[2]
        if not 0 < self.count < n:
            raise ValueError(
                f"LevelSet: {self.count} equations in {n} coordinates leave no manifold; give at most {n - 1}"
            )

    def value(self, x: Tensor) -> Tensor:
        """Return F, ``(*batch, k)``."""
        value = self.function(x)
        return value[..., None] if self.single else value

    def jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return F ``(*batch, k)`` and its derivative ``(*batch, k, n)``."""
        value, pull = torch.func.vjp(self.value, x)[:2]
        if self.count == 1:
            return value, pull(value.new_ones(value.shape))[0][..., None, :]
        units = torch.eye(self.count, dtype=x.dtype, device=x.device)
        rows = torch.func.vmap(lambda e: pull(e.expand(value.shape))[0], out_dims=-2)(units)
        return value, rows

    def hessian(self, x: Tensor, multiplier: Tensor) -> Tensor:
        """Return the second derivatives of ``multiplier . F``, ``(*batch, n, n)``."""
        units = torch.eye(self.n, dtype=x.dtype, device=x.device)[(slice(None), *(None,) * (x.ndim - 1))]
        many = (self.n, *x.shape)

        def gradient(z: Tensor) -> Tensor:
            pulled: Tensor = torch.func.vjp(self.value, z)[1](multiplier.expand(self.n, *multiplier.shape))[0]
            return pulled

        columns = torch.func.jvp(gradient, (x.expand(many).contiguous(),), (units.expand(many).contiguous(),))[1]
        return columns.movedim(0, -1)

    def bend(self, x: Tensor, v: Tensor, u: Tensor) -> Tensor:
        """Return the normal vector ``-J^+ D^2 F(v, u)``: how a tangent ``u`` has to turn while x moves along ``v``."""
        jacobian, turned = torch.func.jvp(lambda z: self.jacobian(z)[1], (x,), (v,))[:2]
        return -lift(jacobian, (turned * u[..., None, :]).sum(-1))

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the second derivative of the geodesic through ``x`` with velocity ``v``."""
        return self.bend(x, v, v)

    # Getting onto the set.

    def newton_step(self, x: Tensor) -> Tensor:
        """Return the shortest vector that solves the linearised equations."""
        value, jacobian = self.jacobian(x)
        return -lift(jacobian, value)

    def land(self, x: Tensor, rounds: int) -> Tensor:
        """Return points near ``x`` on the set: Newton steps along the normals, shortened until F falls."""
        shares = x.new_tensor(_DAMPING)[(..., *(None,) * x.ndim)]
        for _ in range(rounds):
            candidates = x + shares * self.newton_step(x).nan_to_num(0.0, 0.0, 0.0)
            merit = self.value(candidates).square().sum(-1).nan_to_num(math.inf)
            x = choose(candidates, merit, 1)
        return x

    def nearest_step(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Newton correction of ``y`` towards the point of the set nearest to ``x``.

        Lagrange's conditions ``y - x + J' m = 0``, ``F(y) = 0``, with the multipliers ``m`` that fit best at ``y``.
        """
        value, jacobian = self.jacobian(y)
        multiplier = (solve_normal(jacobian, (jacobian * (x - y)[..., None, :]).sum(-1))).contiguous()
        hessian = self.hessian(y, multiplier)
        eye = torch.eye(self.n, dtype=y.dtype, device=y.device)
        corner = y.new_zeros(*jacobian.shape[:-1], self.count)
        matrix = torch.cat([torch.cat([eye + hessian, jacobian.mT], -1), torch.cat([jacobian, corner], -1)], -2)
        right = torch.cat([x - y, -value], -1)
        return solve(matrix, right)[..., : self.n]


def solve_normal(jacobian: Tensor, right: Tensor) -> Tensor:
    """Return ``(J J')^-1 right``, ``(*batch, k)``; not finite where rows of J depend on each other."""
    if jacobian.shape[-2] == 1:
        return right / (jacobian * jacobian).sum(-1)
    return solve(jacobian @ jacobian.mT, right)


def lift(jacobian: Tensor, right: Tensor) -> Tensor:
    """Return ``J' (J J')^-1 right``, the shortest vector whose image under J is ``right``."""
    return (jacobian * solve_normal(jacobian, right)[..., None]).sum(-2)
