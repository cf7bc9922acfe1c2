"""The logarithm of rotations of n dimensions, with derivatives that are right at repeated angles and at the identity.

A rotation turns orthogonal planes by angles in [0, pi]. The principal square root halves them: it is the polar factor
of ``1 + q``, which is well conditioned up to angles near pi. After two halvings no angle exceeds pi / 4, and the
eigenvectors of the skew part tell the planes apart. What rounding leaves is removed by Newton's method, whose last
steps carry the derivatives: no eigenvector is differentiated.

References:
    Higham, Functions of Matrices, 2008, sections 6.2 and 11.5 (square roots, and their inverse use for logarithms).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from manifolds.numerics import differentiated
from manifolds.numerics.blocks import in_blocks


class Spectrum(NamedTuple):
    """Of a skew-symmetric matrix ``s = vectors diag(i angles) vectors^*``."""

    angles: Tensor
    """Real, ``(*batch, n)``; each plane has one and its negative."""
    vectors: Tensor
    """Unitary, complex, ``(*batch, n, n)``."""


def skew(a: Tensor) -> Tensor:
    """Return the skew-symmetric part."""
    return (a - a.mT) / 2


def skew_spectrum(s: Tensor) -> Spectrum:
    """Return angles and eigenvectors of skew-symmetric matrices, as constants; NaN where they are not finite."""
    finite = torch.isfinite(s).all(-1).all(-1)[..., None]
    hermitian = torch.complex(torch.zeros_like(s), -torch.where(finite[..., None], s, 0.0)).detach()
    angles, vectors = torch.linalg.eigh(hermitian)
    return Spectrum(torch.where(finite, angles, torch.nan), vectors)


def rotation_log(turn: Tensor) -> Tensor:
    """Return the skew-symmetric logarithm of ``1 + turn``, a rotation, with rounding error in proportion to ``turn``.

    Angles are in [0, pi]. Where the rotation turns some planes by pi, which planes those are is a choice: it is made
    by what rounding leaves, or where that leaves nothing, always alike.

    Args:
        turn: rotations less the identity ``(*batch, n, n)``.
    """
    return in_blocks(_log_of_block, turn.shape[:-2], _HELD_MATRICES * turn.shape[-1] ** 2, turn)[0]


def _log_of_block(turn: Tensor) -> tuple[Tensor]:
    fixed = turn.detach()
    log = _by_halving(fixed)
    for _ in range(2):
        log = log + _newton(skew_spectrum(log), fixed)
    spectrum = skew_spectrum(log)
    first = log + _newton(spectrum, turn)
    if not differentiated(turn):
        return (first,)
    # The second step, from a logarithm that has first derivatives, has second ones.
    eye = torch.eye(turn.shape[-1], dtype=turn.dtype, device=turn.device)
    rest = skew(torch.linalg.matrix_exp(-first) @ (eye + turn))
    second = _inverse_derivative(spectrum, rest)
    return (first + (second - second.detach()),)


def _by_halving(turn: Tensor) -> Tensor:
    """Return the logarithm to a few units of rounding, to a thousandth where angles are pi."""
    eye = torch.eye(turn.shape[-1], dtype=turn.dtype, device=turn.device)
    finite = torch.isfinite(turn).all(-1).all(-1)[..., None, None]
    half = _square_root(torch.where(finite, turn, 0.0))
    u, _, vh = torch.linalg.svd(eye + half)
    quarter = skew_spectrum(skew(u @ vh))
    angles = 4 * torch.asin(quarter.angles.clamp(-1, 1))
    log = (quarter.vectors * (1j * angles)[..., None, :]) @ quarter.vectors.mH
    return torch.where(finite, skew(log.real), torch.nan)


def _square_root(turn: Tensor) -> Tensor:
    """Return the rotation by half the angles: the polar factor of ``2 + turn``.

    Its singular values are twice the cosines of half the angles. Next to pi, where they are lost in rounding, only the
    skew part is known, and enters alone, at a size at which nothing rounds it further.
    """
    n = turn.shape[-1]
    eye = torch.eye(n, dtype=turn.dtype, device=turn.device)
    double = 2 * eye + turn
    u, cosine, vh = torch.linalg.svd(double)
    lost = (cosine < torch.finfo(turn.dtype).eps ** 0.5).to(turn.dtype)
    known = (u * ((1 - lost) * cosine)[..., None, :]) @ vh
    there = (vh.mT * lost[..., None, :]) @ vh
    block = there @ skew(double) @ there
    size = block.abs().amax((-2, -1), keepdim=True)
    order = torch.arange(n, dtype=turn.dtype, device=turn.device)
    # Any skew matrix that no plane of coordinates annihilates.
    choice = torch.sign(order - order[:, None]) / (1 + order + order[:, None])
    block = block / torch.where(size > 0, size, 1.0) + _CHOICE * (there @ choice @ there)
    u, _, vh = torch.linalg.svd(known + block)
    return u @ vh


def _newton(spectrum: Spectrum, turn: Tensor) -> Tensor:
    """Return the Newton correction of the logarithm that has this spectrum, of ``1 + turn``."""
    angles, vectors = spectrum
    # exp(-s) (turn - (exp(s) - 1)), with exp(i a) - 1 = 2 i sin(a / 2) exp(i a / 2): in proportion to the turn.
    grown = 2j * torch.sin(angles / 2) * torch.exp(0.5j * angles)
    there = (vectors * grown[..., None, :]) @ vectors.mH
    back = (vectors * torch.exp(-1j * angles)[..., None, :]) @ vectors.mH
    return _inverse_derivative(spectrum, skew(back.real @ (turn - there.real)))


def _inverse_derivative(spectrum: Spectrum, step: Tensor) -> Tensor:
    """Return the change of s that changes ``exp(s)`` by ``exp(s) step``, for a small skew ``step``.

    In the eigenbasis entries are divided by ``(1 - exp(-i a)) / (i a)`` with a the difference of two angles. At a of
    2 pi, where two planes turn by pi, there is no such change: those entries, which are rounding then, are left out.
    """
    angles, v = spectrum
    a = angles[..., :, None] - angles[..., None, :]
    flat = a == 0
    sine = torch.sin(a / 2)
    conjugate = ~flat & (sine.abs() < torch.finfo(a.dtype).eps ** 0.5) & (a.abs() > 3)
    factor = torch.where(flat, 1.0, (a / 2) / torch.where(flat | conjugate, 1.0, sine)).masked_fill(conjugate, 0.0)
    core = (factor * torch.exp(0.5j * a)) * (v.mH @ step.to(v.dtype) @ v)
    return skew((v @ core @ v.mH).real)


_CHOICE = 1e-3
_HELD_MATRICES = 20
