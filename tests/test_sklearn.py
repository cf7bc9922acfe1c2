"""The estimator that scikit-learn's pipelines take."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from manifolds import SO3, Sphere
from rfm.sklearn import FlowDensity
from rfm.sources import VonMisesFisher

_QUICK = {"steps": 5, "refine": False, "random_state": 0}


@parametrize_with_checks([FlowDensity(**_QUICK)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def _cap(n: int) -> np.ndarray:
    source = VonMisesFisher(Sphere(2), torch.tensor([0.0, 0.0, 1.0]), 20.0)
    return source.sample(n, torch.Generator().manual_seed(0), torch.float64).numpy()


def test_scores_and_samples_are_those_of_the_flow():
    x = _cap(200)
    model = FlowDensity(Sphere(2), **_QUICK).fit(x)
    with torch.no_grad():
        own = model.flow_.log_prob(torch.from_numpy(x)).double().numpy()
    np.testing.assert_array_equal(model.score_samples(x), own)
    assert model.score(x) == pytest.approx(own.sum())
    drawn = model.sample(7, random_state=1)
    assert drawn.shape == (7, 3)
    np.testing.assert_array_equal(drawn, model.sample(7, random_state=1))
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-6)


def test_it_learns():
    x = _cap(600)
    model = FlowDensity(Sphere(2), steps=100, refine=False, random_state=0).fit(x[:500])
    assert model.score(x[500:]) / 100 > -1.2  # uniform: -log(4 pi) = -2.53; the truth about -0.84


def test_in_a_pipeline_under_cross_validation_and_search():
    degrees = np.random.RandomState(0).uniform([-60, -180], [60, 180], (60, 2))

    def unit(rows: np.ndarray) -> np.ndarray:
        latitude, longitude = np.deg2rad(rows).T
        flat = np.cos(latitude)
        return np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], 1)

    model = make_pipeline(FunctionTransformer(unit), FlowDensity(Sphere(2), **_QUICK))
    assert np.isfinite(cross_val_score(model, degrees, cv=2)).all()
    search = GridSearchCV(model, {"flowdensity__steps": [2, 4]}, cv=2).fit(degrees)
    assert search.best_params_["flowdensity__steps"] in (2, 4)


def test_points_of_several_axes_are_flat_rows():
    x = SO3().random_uniform(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).flatten(1).numpy()
    model = clone(FlowDensity(SO3(), **_QUICK)).fit(x, sample_weight=np.ones(40))
    assert model.sample(3, random_state=0).shape == (3, 9)
    with pytest.raises(ValueError, match="has 9 coordinates, X has 3 features"):
        FlowDensity(SO3(), **_QUICK).fit(_cap(30))
    with pytest.raises(ValueError, match="FlowDensity: manifold must be"):
        FlowDensity("sphere", **_QUICK).fit(_cap(30))
