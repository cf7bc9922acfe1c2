"""Whether chains have converged, by arviz."""

import numpy as np
from torch import Tensor

R_HAT = 1.01
"""Above it chains disagree: Vehtari et al. 2021."""


def chain_diagnostics(values: Tensor) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the worst diagnostics over several functions of the state, and what is doubtful, a sentence each.

    Args:
        values: ``(chains, draws, functions)``.

    Returns:
        ``r_hat`` (rank-normalised, split), ``bulk_ess`` and ``tail_ess``, each the worst over the functions that vary.

    References:
        Vehtari, Gelman, Simpson, Carpenter and Buerkner, Rank-normalization, folding, and localization: an improved
        R-hat for assessing convergence of MCMC, 2021.
    """
    try:
        from arviz_stats.base.array import array_stats
    except ImportError:
        raise ImportError(
            "Chains: convergence is assessed by arviz-stats; pip install 'riemannian-flow-matching[posterior]', or use "
            "Tempering"
        ) from None
    array = values.detach().cpu().numpy()
    # What never varies, such as a padding coordinate, has no R-hat.
    varying = np.ptp(array, axis=(0, 1)) > 1e-12 * (1 + np.abs(array).max(axis=(0, 1)))
    columns = [array[..., i] for i in np.flatnonzero(varying)]
    if array.shape[1] < 4 or not columns:
        return {"r_hat": float("nan"), "bulk_ess": float("nan"), "tail_ess": float("nan")}, (
            "too few draws per chain to say whether the chains converged; request more draws or use fewer chains",
        )
    axes = {"chain_axis": 0, "draw_axis": 1}
    worst = {
        "r_hat": max(float(array_stats.rhat(c, **axes)) for c in columns),
        "bulk_ess": min(float(array_stats.ess(c, **axes, method="bulk")) for c in columns),
        "tail_ess": min(float(array_stats.ess(c, **axes, method="tail", prob=(0.05, 0.95))) for c in columns),
    }
    note = (
        f"the chains disagree (R-hat {worst['r_hat']:.3f}, above {R_HAT}): run them longer, or use Tempering, "
        "which finds separate modes"
    )
    return worst, () if worst["r_hat"] <= R_HAT else (note,)
