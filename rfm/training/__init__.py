"""From data to a trained flow: `fit` and `fit_stream`, their loop, and the run folder that a kill leaves whole."""

from rfm.training.chain_batches import ChainBatch, ChainBatches
from rfm.training.fitting import default_field, fit
from rfm.training.loop import step_seed
from rfm.training.points import Points, train
from rfm.training.run import Run
from rfm.training.settings import Budget, Training
from rfm.training.streams import fit_stream

__all__ = [
    "Budget",
    "ChainBatch",
    "ChainBatches",
    "Points",
    "Run",
    "Training",
    "default_field",
    "fit",
    "fit_stream",
    "step_seed",
    "train",
]
