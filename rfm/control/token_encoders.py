"""From the entries of observations to tokens."""

from functools import singledispatch
from typing import cast

import torch
from torch import Tensor, nn

from rfm.conditions import Picture
from rfm.control.observations import Observation, Observations, Point, Vector, Words
from rfm.networks import PictureEncoder
from rfm.networks.condition_inputs import ConditionInputs


class ObservationTokens(nn.Module):
    """Makes tokens of observations that look at each other: a transformer, in front of which each kind has its encoder.

    A token of what is not known is seen by none. One more token says that there is an observation at all, so that
    nothing is known of one of which every part is missing.

    Args:
        observations: what is seen.
        width: of the tokens, a multiple of ``heads``.
        depth: layers of attention between them.
        heads: of attention.
    """

    def __init__(self, observations: Observations, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.observations = observations
        self.encoders = nn.ModuleList(encoder_of(part, width) for part in observations.parts)
        self.count = 1 + sum(int(cast(TokenEncoder, encoder).count) for encoder in self.encoders)
        self.kinds = nn.Parameter(0.1 * torch.randn(self.count, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens ``(*batch, count, width)``, and which of them are known ``(*batch, count)``.

        Args:
            vectors: as `Observations.encode` makes them ``(*batch, w)``, NaN where not known.
        """
        batch, rows = vectors.shape[:-1], vectors.reshape(-1, vectors.shape[-1])
        tokens, known = [rows.new_zeros(len(rows), 1, self.kinds.shape[1])], [rows.new_ones(len(rows), 1).bool()]
        for encoder, entries in zip(self.encoders, self.observations.split(rows), strict=True):
            missing = entries.isnan()
            known.append(cast(TokenEncoder, encoder).known(~missing))
            tokens.append(encoder(torch.where(missing, 0.0, entries)))
        there = torch.cat(known, dim=1)
        found = self.layers(torch.cat(tokens, dim=1) + self.kinds, src_key_padding_mask=~there)
        return found.reshape(*batch, *found.shape[1:]), there.reshape(*batch, self.count)


class TokenEncoder(nn.Module):
    """From entries ``(n, w)`` to tokens ``(n, count, width)``."""

    count: int = 1

    def known(self, entries: Tensor) -> Tensor:
        """Return which tokens are known ``(n, count)``, from which entries are ``(n, w)``: by default all or none."""
        return entries.all(-1, keepdim=True).expand(-1, self.count)


class _Numbers(TokenEncoder):
    """One token from numbers, standardised and joined by their sines."""

    def __init__(self, offset: list[float], scale: list[float], width: int) -> None:
        super().__init__()
        self.inputs = ConditionInputs(offset, scale, [0] * len(offset))
        self.layers = nn.Sequential(nn.Linear(self.inputs.width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, entries: Tensor) -> Tensor:
        return self.layers(self.inputs(entries))[:, None]


class _Coordinates(_Numbers):
    """One token from the coordinates of a point."""

    def __init__(self, point: Point, width: int) -> None:
        n = point.manifold.embed_dim
        super().__init__(list(point.offset or [0.0] * n), [point.scale] * n, width)
        self.manifold = point.manifold

    def forward(self, entries: Tensor) -> Tensor:
        # Of a point that is missing there are zeros, which need be no point.
        points = self.manifold.projx(entries.reshape(-1, *self.manifold.event_shape))
        embedded = self.manifold.embed(points)
        return super().forward(torch.where(embedded.isfinite(), embedded, 0.0))


class _Words(TokenEncoder):
    """A token for each word, with a learned vector for it and one for its place."""

    def __init__(self, words: Words, width: int) -> None:
        super().__init__()
        self.count = words.length
        self.table = nn.Embedding(words.vocabulary, width)

    def known(self, entries: Tensor) -> Tensor:
        return entries

    def forward(self, entries: Tensor) -> Tensor:
        return self.table(entries.long())


class _Seen(TokenEncoder):
    """One token from a picture."""

    def __init__(self, picture: Picture, width: int) -> None:
        super().__init__()
        self.encoder = PictureEncoder(picture.size, width, width=16, hidden=2 * width)

    def forward(self, entries: Tensor) -> Tensor:
        return self.encoder(entries)[:, None]


@singledispatch
def encoder_of(observation: Observation, width: int) -> TokenEncoder:
    """Return a network that makes tokens of the entries of an observation.

    A generic function: ``encoder_of.register(MyObservation)`` gives a kind of your own one.
    """
    raise ValueError(
        f"ActionNetwork: there is no encoder for observations of {type(observation).__name__}; register one, "
        "rfm.control.encoder_of.register"
    )


@encoder_of.register
def _(observation: Vector, width: int) -> TokenEncoder:
    offset, scale = observation.offset or [0.0] * observation.size, observation.scale or [1.0] * observation.size
    return _Numbers(list(offset), list(scale), width)


@encoder_of.register
def _(observation: Point, width: int) -> TokenEncoder:
    return _Coordinates(observation, width)


@encoder_of.register
def _(observation: Words, width: int) -> TokenEncoder:
    return _Words(observation, width)


@encoder_of.register
def _(observation: Picture, width: int) -> TokenEncoder:
    return _Seen(observation, width)
