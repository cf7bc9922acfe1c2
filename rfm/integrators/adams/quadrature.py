"""Integrals of polynomials through values at given times."""

from collections.abc import Sequence

import torch
from torch import Tensor

_CLOSEST = 0.1


def interpolatory_weights(nodes: Sequence[float], start: float, end: float, moments: int = 1) -> list[list[float]]:
    """Return what to multiply values at the nodes by, so that the sum is the integral of the polynomial through them.

    Args:
        nodes: distinct times.
        start: where the integral begins.
        end: where it ends.
        moments: how many powers of ``(t - middle) / (end - start)`` the polynomial is multiplied by.

    Returns:
        One list of weights for each power, from 0 on.

    References:
        Golub & Van Loan, Matrix Computations, 2013, algorithm 4.6.2 (Bjorck & Pereyra's).
    """
    h, middle, n = end - start, (start + end) / 2, len(nodes)
    z = [(node - middle) / h for node in nodes]
    # The integrals of z^(p - 1) from -1/2 to 1/2, times h: the right sides of the systems.
    sides = [0.0 if p % 2 == 0 else h * 0.5 ** (p - 1) / p for p in range(1, n + moments)]
    gaps = [[z[i] - z[i - k - 1] for i in range(k + 1, n)] for k in range(n - 1)]
    weights = []
    for moment in range(moments):
        w = sides[moment : moment + n]
        for k in range(n - 1):
            for i in range(n - 1, k, -1):
                w[i] -= z[k] * w[i - 1]
        for k in range(n - 2, -1, -1):
            for i, gap in enumerate(gaps[k], k + 1):
                w[i] /= gap
                w[i - 1] -= w[i]
        weights.append(w)
    return weights


def composite_weights(nodes: Sequence[float], first: int, last: int, points: int) -> list[float]:
    """Return weights of all nodes for the integral from node ``first`` to node ``last``.

    Between neighbours it is that of the polynomial through them and the nearest others, ``points`` in all, as many on
    either side where there are; through fewer if there are fewer.
    """
    weights = [0.0] * len(nodes)
    for i in range(first, last):
        length = nodes[i + 1] - nodes[i]
        before, after = spaced(nodes, range(i, -1, -1), length), spaced(nodes, range(i + 1, len(nodes)), length)
        left = min(len(before), max(points // 2, points - len(after)))
        near = [*before[:left][::-1], *after[: points - left]]
        [own] = interpolatory_weights([nodes[j] for j in near], nodes[i], nodes[i + 1])
        for j, weight in zip(near, own, strict=True):
            weights[j] += weight
    return weights


def spaced(nodes: Sequence[float], indices: Sequence[int], length: float) -> list[int]:
    """Return the first of the indices, and those of the others whose nodes are not too close to the one before.

    Values at nodes that are much closer than the length integrated over are divided by little, and their errors grow.
    """
    chosen = list(indices[:1])
    for i in indices[1:]:
        if abs(nodes[i] - nodes[chosen[-1]]) >= _CLOSEST * abs(length):
            chosen.append(i)
    return chosen


def newton_weights(nodes: Tensor, t: Tensor, moments: int) -> tuple[Tensor, Tensor]:
    """Return how Newton's form of a polynomial, centred at the latest node, is carried on and integrated to ``t``.

    The polynomial is the sum of ``phi_j`` times the product over i < j of ``(s - nodes_i) / (nodes_0 - nodes_i+1)``.
    Each sample has its own nodes.

    Args:
        nodes: distinct times ``(k, n)``, the latest first.
        t: where to integrate to, from the latest node ``(n)``.
        moments: of how many powers of ``(s - middle) / (t - nodes_0)`` the integrals are requested, at most 3.

    Returns:
        What takes ``phi_j`` to the differences ``phi*_j`` of the form centred at ``t``, ``(k, n)``, and the integrals
        over ``phi*_j`` times those powers, divided by ``t - nodes_0``, ``(moments, k + 1, n)``: the last is that of the
        term that a value at ``t`` adds.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section III.5 (beta and g).
    """
    k, n = nodes.shape
    h = t - nodes[0]
    ahead = t - nodes
    carry = torch.cat([torch.ones_like(nodes[:1]), torch.cumprod(ahead[:-1] / (nodes[0] - nodes[1:]), 0)])
    power = torch.arange(1, k + moments + 1, dtype=nodes.dtype, device=nodes.device)[:, None]
    # Row q: the integral of the basis polynomial times (1 - s)^(q - 1), for s from 0 to 1.
    row, share = (1 / power).expand(-1, n), h / ahead[1:]
    rows = [row[:moments]]
    for j in range(k):
        row = 1 / (power[:-1] * (power[:-1] + 1)).expand(-1, n) if j == 0 else row[:-1] - row[1:] * share[j - 1]
        rows.append(row[:moments])
    c = torch.stack(rows, 1)
    centred = [c[0]]
    if moments > 1:
        centred.append(c[0] / 2 - c[1])
    if moments > 2:
        centred.append(c[0] / 4 - c[1] + c[2])
    return carry, torch.stack(centred)
