"""From data to a trained flow: `fit` and `fit_stream`, their loop, and the run folder that a kill leaves whole."""

from rfm.training.chain_batches import ChainBatch, ChainBatches
from rfm.training.closed_form import closed_form_field
from rfm.training.conditional_kernels import conditional_kernels
from rfm.training.distillation import distil
from rfm.training.fitting import default_field, fit
from rfm.training.loop import step_seed
from rfm.training.out_of_core import Survey, fit_out_of_core, survey
from rfm.training.points import train
from rfm.training.reflow import Reflow, reflow
from rfm.training.run import Run
from rfm.training.settings import Budget, Training
from rfm.training.streams import fit_stream
from rfm.training.weighted_points import Points
from rfm.training.windows import HashSplit, LargeTrainingSet

__all__ = [
    "Budget",
    "ChainBatch",
    "ChainBatches",
    "HashSplit",
    "LargeTrainingSet",
    "Points",
    "Reflow",
    "Run",
    "Survey",
    "Training",
    "closed_form_field",
    "conditional_kernels",
    "default_field",
    "distil",
    "fit",
    "fit_out_of_core",
    "fit_stream",
    "reflow",
    "step_seed",
    "survey",
    "train",
]
