"""A convolutional network that turns a picture into a context vector."""

import torch
from torch import Tensor, nn

from rfm.networks.precision import in_precision_of_weights


class PictureEncoder(nn.Module):
    """Turns grey pictures into vectors, for a velocity network to be conditional on.

    Three halvings of the resolution, with a residual block (He et al., Deep Residual Learning for Image Recognition,
    2015, arXiv:1512.03385; here without normalisation, which would make pictures of a batch depend on each other) at
    the second and at the third, and two dense layers on all that is left: where in the picture something is seen
    matters as much as what.

    Args:
        size: pixels along an edge, a multiple of 8.
        out_features: length of the vectors.
        width: channels after the first halving; doubled at the second and at the third.
        hidden: width of the dense layer.
    """

    def __init__(self, size: int, out_features: int, width: int = 32, hidden: int = 512) -> None:
        super().__init__()
        if size < 8 or size % 8:
            raise ValueError(f"PictureEncoder: size must be a multiple of 8, got {size}")
        self.size, self.out_features, self.width, self.hidden = size, out_features, width, hidden
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            _Residual(2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            _Residual(4 * width),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(4 * width * (size // 8) ** 2, hidden),
            nn.SiLU(),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, out_features),
        )

    @in_precision_of_weights
    def forward(self, pictures: Tensor) -> Tensor:
        """Return vectors ``(*batch, out_features)`` of pictures with values from 0 to 1.

        Args:
            pictures: ``(*batch, size, size)``, or ``(*batch, size * size)``, row by row.
        """
        if pictures.shape[-1] == self.size**2:
            pictures = pictures.unflatten(-1, (self.size, self.size))
        if pictures.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"PictureEncoder: pictures of {self.size} x {self.size} pixels are required, got shape "
                f"{tuple(pictures.shape)}"
            )
        flat = (2 * pictures.reshape(-1, 1, self.size, self.size) - 1).contiguous(memory_format=torch.channels_last)
        # Where no gradient keeps the intermediate results anyway, memory is bounded.
        parts = (flat,) if torch.is_grad_enabled() else flat.split(_BLOCK)
        return torch.cat([self.layers(part) for part in parts]).reshape(*pictures.shape[:-2], self.out_features)


_BLOCK = 512


class _Residual(nn.Module):
    """``x + conv(silu(conv(silu(x))))``, the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(nn.functional.silu(self.first(nn.functional.silu(x))))
