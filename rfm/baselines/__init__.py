"""Densities to compare with: kernels, and the normalising flows that came before flow matching.

`BASELINES` lists them; `NormalizingFlow` makes one of zuko a `rfm.sources.Source`.
"""

from rfm.baselines.baseline import BASELINES, HEAT_KERNEL, KERNELS, NORMALIZING_FLOWS, Baseline, kernels_of
from rfm.baselines.charts import Chart, chart_of
from rfm.baselines.normalizing_flow import NormalizingFlow

__all__ = [
    "BASELINES",
    "HEAT_KERNEL",
    "KERNELS",
    "NORMALIZING_FLOWS",
    "Baseline",
    "Chart",
    "NormalizingFlow",
    "chart_of",
    "kernels_of",
]
