"""From data to a trained flow: `fit` and `fit_stream`, their loop, and the run folder that a kill leaves whole."""

from rfm.training.fitting import fit
from rfm.training.streams import fit_stream

__all__ = [
    "fit",
    "fit_stream",
]
