"""scikit-learn's face of `rfm.fit`: an estimator of densities for its pipelines, searches and cross-validation.

It needs the extra ``metrics``, which brings scikit-learn.
"""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from manifolds import Euclidean, Manifold
from manifolds.arguments import check_instance
from rfm.flow import Flow
from rfm.training import Training, fit

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "rfm.sklearn needs the package scikit-learn; install the extra: pip install 'riemannian-flow-matching[metrics]'"
    ) from error

Array = NDArray[np.float64]


class FlowDensity(DensityMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """A density on a manifold, fitted by flow matching.

    Rows of ``X`` are points, with the coordinates of a point of several axes in one row: nine for a rotation.
    Densities are with respect to the Riemannian volume, so that scores compare on one manifold alone.

    Args:
        manifold: where the points live; flat space with a dimension for each column by default.
        steps: of the optimiser; as in `rfm.fit` by default.
        refine: whether to put kernels about the training points, carried by the flow, where they gain.
        validation: share of the rows held out to decide when to stop.
        batch_size: pairs per step; 512 by default.
        source: distribution at time 0, or what makes one, see `rfm.fit`.
        training: learning rate and the like.
        random_state: of the fit: a number, a `numpy.random.RandomState` or None for another fit every time.

    Attributes:
        flow_: the fitted `rfm.Flow`, with all that it can do beside.
        n_features_in_: coordinates of a row.

    Examples:
        Which share of the earthquakes of a region falls where, scored by cross-validation::

            model = make_pipeline(FunctionTransformer(to_unit_vectors), FlowDensity(Sphere(2)))
            cross_val_score(model, degrees)
    """

    def __init__(
        self,
        manifold: Manifold | None = None,
        *,
        steps: int | None = None,
        refine: bool = True,
        validation: float = 0.1,
        batch_size: int | None = None,
        source: Any = None,
        training: Training | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.manifold = manifold
        self.steps = steps
        self.refine = refine
        self.validation = validation
        self.batch_size = batch_size
        self.source = source
        self.training = training
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the density to the rows of ``X``, ``(n, features)``; ``y`` is not looked at.

        Args:
            X: points, ``(n, features)``.
            y: nothing.
            sample_weight: of the points, ``(n,)``, such as inverse sampling probabilities; equal by default.

        Raises:
            ValueError: as `rfm.fit`.
        """
        own = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        manifold = Euclidean(own.shape[1]) if self.manifold is None else self.manifold
        check_instance("FlowDensity", "manifold", manifold, Manifold, "Sphere(2)")
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, own, dtype=np.float64)
        self.flow_: Flow = fit(
            self._points(manifold, own),
            manifold,
            weights=weights,
            source=self.source,
            refine=self.refine,
            steps=self.steps,
            batch_size=self.batch_size,
            validation=self.validation,
            training=self.training,
            seed=int(check_random_state(self.random_state).randint(2**31)),
            progress=False,
        )
        return self

    def score_samples(self, X: Any) -> Array:
        """Return the log-density at each row in nats, ``(n,)``."""
        check_is_fitted(self)
        own = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        scores = self.flow_.log_prob(self._points(self.flow_.manifold, own))
        return scores.double().cpu().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the sum of the log-densities of the rows in nats, as `sklearn.neighbors.KernelDensity` does."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Array:
        """Draw points, ``(n_samples, features)``."""
        check_is_fitted(self)
        generator = torch.Generator().manual_seed(int(check_random_state(random_state).randint(2**31)))
        return self.flow_.sample(n_samples, generator=generator).flatten(1).double().cpu().numpy()

    @staticmethod
    def _points(manifold: Manifold, rows: NDArray[Any]) -> torch.Tensor:
        size = int(np.prod(manifold.event_shape))
        if rows.shape[1] != size:
            raise ValueError(
                f"FlowDensity: a point of {manifold} has {size} coordinates, X has {rows.shape[1]} features; give one "
                "point a row, flattened"
            )
        return torch.tensor(rows).reshape(-1, *manifold.event_shape)
