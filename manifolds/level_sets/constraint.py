"""Equations F(x) = 0: their derivatives, and Newton's method on them, sample by sample, in a fixed number of rounds."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds.level_sets.collocation import choose
from manifolds.numerics import differentiated
from manifolds.numerics.constants import Constants
from manifolds.numerics.linear_algebra import solve

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
        if self._undifferentiated(x, multiplier):
            with torch.inference_mode(False), torch.enable_grad():
                z = x.clone().requires_grad_()
                slope = backwards(self.value(z) * multiplier.clone(), z)
                return torch.stack([backwards(a, z, keep=False) for a in slope.unbind(-1)], -2)
        units = torch.eye(self.n, dtype=x.dtype, device=x.device)[(slice(None), *(None,) * (x.ndim - 1))]
        many = (self.n, *x.shape)

        def gradient(z: Tensor) -> Tensor:
            pulled: Tensor = torch.func.vjp(self.value, z)[1](multiplier.expand(self.n, *multiplier.shape))[0]
            return pulled

        columns = torch.func.jvp(gradient, (x.expand(many).contiguous(),), (units.expand(many).contiguous(),))[1]
        return columns.movedim(0, -1)

    def bend(self, x: Tensor, v: Tensor, u: Tensor) -> Tensor:
        """Return the normal vector ``-J^+ D^2 F(v, u)``: how a tangent ``u`` has to turn while x moves along ``v``."""
        jacobian, turned = self._turned(x, v)
        return -lift(jacobian, (turned * u[..., None, :]).sum(-1))

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the second derivative of the geodesic through ``x`` with velocity ``v``."""
        return self.bend(x, v, v)

    def acceleration_slopes(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the acceleration and its derivatives by position and by velocity, ``(*batch, n, n)``."""
        if not self._undifferentiated(x, v):
            return self._slopes_forward(x, v)
        jacobian, turned, third, hessians = self._three_times_backwards(x, v)
        multiplier = solve_normal(jacobian, (turned * v[..., None, :]).sum(-1))
        pull = (multiplier[..., None] * jacobian).sum(-2)
        bent = (multiplier[..., None, None] * hessians).sum(-3)
        # The acceleration is -J' m, with J J' m = D^2 F(v, v): the derivative of this equation gives that of m.
        change = third - (hessians @ pull[..., None, :, None])[..., 0] - jacobian @ bent
        return -pull, -bent - lift_columns(jacobian, change), -2 * lift_columns(jacobian, turned)

    def second_fundamental_forms(self, x: Tensor, basis: Tensor) -> Tensor:
        """Return those of orthonormal normals, in an orthonormal basis of the tangent space, ``(*batch, k, d, d)``."""
        jacobian = self.jacobian(x)[1]
        if self.count == 1:
            units = 1 / torch.linalg.vector_norm(jacobian, dim=-1, keepdim=True)
        else:
            # Orthonormal normals: the rows of L^-1 J with L L' = J J'.
            units = torch.linalg.inv(torch.linalg.cholesky(jacobian @ jacobian.mT))
        return torch.stack([basis @ self.hessian(x, r) @ basis.mT for r in units.unbind(-2)], -3)

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

    # Derivatives. Where nobody differentiates the result, backwards over and over: nested transforms take six times as
    # long for small batches.

    def _undifferentiated(self, x: Tensor, other: Tensor) -> bool:
        return not torch.compiler.is_compiling() and not any(differentiated(a) for a in (self.value(x), other))

    def _turned(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Jacobian, and its derivative along ``v``, each ``(*batch, k, n)``."""
        if not self._undifferentiated(x, v):
            # A Hessian is symmetric: backwards again costs less than forwards.
            def along(z: Tensor) -> tuple[Tensor, Tensor]:
                jacobian = self.jacobian(z)[1]
                return (jacobian * v[..., None, :]).sum(-1), jacobian

            found: tuple[Any, ...] = torch.func.vjp(along, x, has_aux=True)
            value, pull, jacobian = found
            units = torch.eye(self.count, dtype=x.dtype, device=x.device)
            rows = [pull(e.expand(value.shape))[0] for e in units]
            return jacobian, torch.stack(rows, -2)
        with torch.inference_mode(False), torch.enable_grad():
            _, rows, turned = self._graph(x, v)
        return torch.stack(rows, -2).detach(), torch.stack(turned, -2).detach()

    def _graph(self, x: Tensor, v: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return a copy of ``x``, the rows of the Jacobian there and their derivatives along ``v``, with graphs."""
        z, v = x.clone().requires_grad_(), v.clone()
        rows = [backwards(f, z) for f in self.value(z).unbind(-1)]
        return z, rows, [backwards(row * v, z) for row in rows]

    def _three_times_backwards(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return J, D^2 F(v, .), D^3 F(v, v, .), each ``(*batch, k, n)``, and D^2 F, ``(*batch, k, n, n)``."""
        with torch.inference_mode(False), torch.enable_grad():
            z, rows, turned = self._graph(x, v)
            third = torch.stack([backwards(t * v.clone(), z, keep=False) for t in turned], -2)
            hessians = [torch.stack([backwards(a, z, keep=False) for a in row.unbind(-1)], -2) for row in rows]
        return torch.stack(rows, -2).detach(), torch.stack(turned, -2).detach(), third, torch.stack(hessians, -3)

    def _slopes_forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # One derivative along all 2 n directions, which go first in a batch: faster than mapping over them.
        n = self.n
        units = torch.eye(2 * n, dtype=x.dtype, device=x.device)[(slice(None), *(None,) * (x.ndim - 1))]
        many = (2 * n, *x.shape)
        at = (x.expand(many).contiguous(), v.expand(many).contiguous())
        along = (units[..., :n].expand(many).contiguous(), units[..., n:].expand(many).contiguous())
        values, slopes = torch.func.jvp(self.acceleration, at, along)[:2]
        slopes = slopes.movedim(0, -1)
        return values[0], slopes[..., :n], slopes[..., n:]


def reflected_axes(normal: Tensor) -> Tensor:
    """Return the axes but the first, in the reflection that takes that to the normal: ``(*batch, n - 1, n)``."""
    normal = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    sign = torch.where(normal[..., :1] < 0, -1.0, 1.0).to(normal.dtype)
    v = torch.cat([normal[..., :1] + sign, normal[..., 1:]], dim=-1)
    scaled = normal[..., 1:, None] / (1 + sign * normal[..., :1])[..., None]
    return torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)[1:] - scaled * v[..., None, :]


def backwards(f: Tensor, x: Tensor, keep: bool = True) -> Tensor:
    """Return the gradient of the sum of ``f``, itself with a graph if that is to be kept; 0 if f does not need x."""
    if not f.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(f.sum(), x, create_graph=keep, retain_graph=True, materialize_grads=True)[0]


def solve_normal(jacobian: Tensor, right: Tensor) -> Tensor:
    """Return ``(J J')^-1 right``, ``(*batch, k)``; not finite where rows of J depend on each other."""
    if jacobian.shape[-2] == 1:
        return right / (jacobian * jacobian).sum(-1)
    return solve(jacobian @ jacobian.mT, right)


def lift(jacobian: Tensor, right: Tensor) -> Tensor:
    """Return ``J' (J J')^-1 right``, the shortest vector whose image under J is ``right``."""
    return (jacobian * solve_normal(jacobian, right)[..., None]).sum(-2)


def lift_columns(jacobian: Tensor, right: Tensor) -> Tensor:
    """Return `lift` of each column of ``right``, ``(*batch, n, columns)``."""
    return lift(jacobian[..., None, :, :], right.mT).mT
