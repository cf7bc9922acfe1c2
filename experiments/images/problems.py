"""What is measured of the pictures, by operators of deepinv, and the reconstructions that every text starts from."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.images.pictures import PHANTOM_SIZE
from rfm.posterior import Measurement

_ANGLES = 20
_LINES, _CENTRAL_LINES = 10, 4
_POWER_STEPS = 30


@dataclass(frozen=True)
class Restoration:
    """A task: what is measured of pictures, with how much noise.

    Args:
        name: of the task.
        prior: name of the pictures, as in `experiments.images.priors.PRIORS`.
        shape: of a picture.
        physics: a linear operator of deepinv, with its adjoint.
        noise: standard deviation, in the unit of the measurement; pictures have values from -1 to 1.
        naive: from measurements of pictures with values from 0 to 1 to pictures, without a prior.
        naive_name: what that is called.
    """

    name: str
    prior: str
    shape: tuple[int, int, int]
    physics: Any
    noise: float
    naive: Callable[[Tensor], Tensor]
    naive_name: str

    def measured(self, x: Tensor, seed: int) -> Tensor:
        """Return noisy measurements ``(n, ...)`` of pictures ``(n, pixels)``."""
        y = self.physics.A(x.reshape(-1, *self.shape))
        noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        return y + self.noise * noise

    def without_prior(self, y: Tensor) -> Tensor:
        """Return the naive reconstruction of measurements ``(n, ...)``, ``(n, pixels)``."""
        white = self.physics.A(torch.ones(1, *self.shape))
        # Of grey values from 0 to 1: what is not seen is then black.
        return self.naive((y + white) / 2).reshape(len(y), -1).clamp(0, 1) * 2 - 1

    def likelihood(self, y: Tensor) -> Measurement:
        """Return the likelihood of points ``(k n, pixels)``, row i of which is the picture of measurement ``i % n``.

        Draws for several pictures then come from one call.

        Args:
            y: measurements ``(n, ...)``.
        """
        linear = Measurement(self.physics, y[0], self.noise, shape=self.shape).operator

        def misfit(x: Tensor) -> Tensor:
            return linear(x) - y.repeat(len(x) // len(y), *[1] * (y.ndim - 1))

        return Measurement(misfit, torch.zeros_like(y[0]), self.noise, shape=self.shape)

    def norm(self) -> float:
        """Return the largest singular value of the operator, by power iteration."""
        x = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(0))
        for _ in range(_POWER_STEPS):
            x = self.physics.A_adjoint(self.physics.A(x / x.norm()))
        return math.sqrt(float(x.norm()))


class RealMagneticResonance:
    """Some lines of the Fourier transform of a picture without imaginary part, on deepinv's operator.

    Args:
        physics: of pictures with two channels.
    """

    def __init__(self, physics: Any) -> None:
        self.physics = physics

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """Return real and imaginary parts of the lines ``(n, 2, h, w)`` of pictures ``(n, 1, h, w)``."""
        return self.physics.A(torch.cat([x, torch.zeros_like(x)], dim=1))

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """Return the adjoint, ``(n, 1, h, w)``."""
        return self.physics.A_adjoint(y)[:, :1]


class Matrix:
    """A linear operator of deepinv as its matrix: a Radon transform by interpolation takes a hundred times as long.

    Args:
        physics: the operator.
        shape: of a picture.
    """

    def __init__(self, physics: Any, shape: tuple[int, int, int]) -> None:
        columns = physics.A(torch.eye(math.prod(shape)).reshape(-1, *shape))
        self.shape, self.measured_shape = shape, columns.shape[1:]
        self.transposed = columns.flatten(1)

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """Return what is measured ``(n, ...)`` of pictures ``(n, *shape)``."""
        return (x.flatten(1) @ self.transposed).reshape(-1, *self.measured_shape)

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """Return the adjoint, ``(n, *shape)``."""
        return (y.flatten(1) @ self.transposed.mT).reshape(-1, *self.shape)


def restorations(prior: str) -> list[Restoration]:
    """Return the tasks for a set of pictures.

    Raises:
        ImportError: deepinv is missing.
    """
    if prior == "phantoms":
        return [tomography(), magnetic_resonance()]
    edge, factor = (8, 2) if prior == "digits" else (28, 4)
    return [deblurring(prior, edge), inpainting(prior, edge), super_resolution(prior, edge, factor)]


def deblurring(prior: str, edge: int) -> Restoration:
    """Return a Gaussian blur, a tenth of the number 28 pixels wide as the picture is 28 wide."""
    shape, sigma = (1, edge, edge), 1.5 * edge / 28 + 0.2
    blur = _physics().Blur(filter=_gaussian(sigma), padding="circular")
    return Restoration("deblurring", prior, shape, blur, 0.05, lambda y: y, "as measured")


def inpainting(prior: str, edge: int) -> Restoration:
    """Return a picture without the square in its middle, of three sevenths of its edge."""
    shape, hole = (1, edge, edge), round(edge * 3 / 7 / 2)
    kept = torch.ones(shape)
    kept[:, edge // 2 - hole : edge // 2 + hole, edge // 2 - hole : edge // 2 + hole] = 0
    mask = _physics().Inpainting(img_size=shape, mask=kept)
    return Restoration("inpainting", prior, shape, mask, 0.05, lambda y: y, "as measured")


def super_resolution(prior: str, edge: int, factor: int) -> Restoration:
    """Return a picture of fewer pixels, each a Gaussian mean."""
    shape = (1, edge, edge)
    coarse = _physics().Downsampling(filter=_gaussian(factor / 2.5), img_size=shape, factor=factor, padding="circular")

    def repeated(y: Tensor) -> Tensor:
        # A coarse pixel is centred at the first of the fine ones that it stands for.
        fine = torch.nn.functional.interpolate(y, scale_factor=float(factor), mode="bilinear")
        return fine.roll((-((factor - 1) // 2),) * 2, (-1, -2))

    return Restoration(f"super-resolution, {factor} times", prior, shape, coarse, 0.05, repeated, "interpolated")


def tomography() -> Restoration:
    """Return the Radon transform at few angles."""
    shape = (1, PHANTOM_SIZE, PHANTOM_SIZE)
    radon = _physics().Tomography(angles=_ANGLES, img_width=PHANTOM_SIZE, normalize=False)
    largest = float(radon.A(torch.ones(1, *shape)).max())
    return Restoration(
        f"tomography, {_ANGLES} angles",
        "phantoms",
        shape,
        Matrix(radon, shape),
        0.02 * largest,
        radon.A_dagger,
        "filtered back-projection",
    )


def magnetic_resonance() -> Restoration:
    """Return some lines of the Fourier transform, those of low frequency and others at random."""
    shape = (1, PHANTOM_SIZE, PHANTOM_SIZE)
    middle = PHANTOM_SIZE // 2
    central = torch.arange(middle - _CENTRAL_LINES // 2, middle + _CENTRAL_LINES // 2)
    rest = torch.tensor([line for line in range(PHANTOM_SIZE) if line not in central])
    some = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))[: _LINES - _CENTRAL_LINES]]
    mask = torch.zeros(1, 2, PHANTOM_SIZE, PHANTOM_SIZE)
    mask[..., central] = 1
    mask[..., some] = 1
    real = RealMagneticResonance(_physics().MRI(mask=mask, img_size=(2, PHANTOM_SIZE, PHANTOM_SIZE)))
    name = f"magnetic resonance, {_LINES} of {PHANTOM_SIZE} lines"
    return Restoration(name, "phantoms", shape, real, 0.05, real.A_adjoint, "zero-filled")


def _physics() -> Any:
    """Return deepinv's operators, whose import takes seconds."""
    try:
        import deepinv.physics
    except ImportError as error:
        raise ImportError(
            f"experiments.images: operators are those of deepinv ({error}); PYTHONPATH=.venv/imaging after make install"
        ) from None
    return deepinv.physics


def _gaussian(sigma: float) -> Tensor:
    """Return a normal kernel out to three standard deviations, ``(1, 1, k, k)``, sum 1."""
    reach = math.ceil(3 * sigma)
    line = (-(torch.arange(-reach, reach + 1) / sigma).square() / 2).exp()
    kernel = line[:, None] * line
    return (kernel / kernel.sum())[None, None]
