"""How good a model is: likelihoods with their standard errors, and distances between samples with theirs.

Likelihoods assess a density, and need no samples of it: `negative_log_likelihood`, `paired_difference`. The baseline
that a flow is compared with is `rfm.sources.KernelMixture`. It needs no training, so a model that does not beat
it is not good; on data with near-duplicates it is hard to beat.

Samples are compared by `maximum_mean_discrepancy`, `wasserstein_distance`, `classifier_two_sample` and `coverage`. Put
beside each figure the one between two samples of real data: that is how small it can be. `nearest_training` shows
whether samples copy the training points.

`importance_weights` make draws of one density stand for another: those of a few jumps for the equation's.

`flow_measures` and `path_measures` say how far and how straight points travel, and how low the loss can be.
"""

from rfm.metrics.copying import NearestTraining, nearest_distances, nearest_training
from rfm.metrics.estimates import Estimate, negative_log_likelihood, paired_difference
from rfm.metrics.flow_measures import FlowMeasures, flow_measures, path_measures
from rfm.metrics.importance_weights import ImportanceWeights, importance_weights
from rfm.metrics.kernels import AmbientGaussianKernel, GeodesicGaussianKernel, HeatKernel, Kernel, heat_kernel
from rfm.metrics.two_sample import (
    classifier_two_sample,
    coverage,
    maximum_mean_discrepancy,
    median_distance,
    wasserstein_distance,
)

__all__ = [
    "AmbientGaussianKernel",
    "Estimate",
    "FlowMeasures",
    "GeodesicGaussianKernel",
    "HeatKernel",
    "ImportanceWeights",
    "Kernel",
    "NearestTraining",
    "classifier_two_sample",
    "coverage",
    "flow_measures",
    "heat_kernel",
    "importance_weights",
    "maximum_mean_discrepancy",
    "median_distance",
    "nearest_distances",
    "nearest_training",
    "negative_log_likelihood",
    "paired_difference",
    "path_measures",
    "wasserstein_distance",
]
