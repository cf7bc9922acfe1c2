"""Log-densities of a flow for pictures, with progress."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rfm.flow import Flow
from rfm.integrators import Method
from rfm.plotting.panels import Array

_PART = 1024
"""Points between two reports of progress."""


def log_density(
    flow: Flow,
    points: Array,
    solver: Method,
    condition: Tensor | Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Array:
    """Return the log-density at points ``(n, *event_shape)``, nats; with ``progress``, a bar on stderr."""
    x = torch.from_numpy(points).float()
    options: dict[str, Any] = {"batch_size": _PART, "progress": True} if progress else {}
    return flow.log_prob(x, solver=solver, condition=condition, **options).double().cpu().numpy()
