"""Labels with points: exact networks give the law of the data, trained ones learn how both hang together."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from manifolds import FlatTorus, FractionalCoordinates, Product, Sphere
from rfm import Flow, GeodesicPath, Training
from rfm.discrete import (
    DiscreteFlow,
    JointFlow,
    Labelled,
    MaskedLabels,
    MixturePath,
    UniformLabels,
    fit_joint,
)
from rfm.discrete.mixture_path import LabelSource
from rfm.records.descriptions import SavedFlowError
from rfm.sources import Source, Uniform, default_source

CLASSES = 3
LABELS = torch.tensor([[0, 1], [2, 2], [1, 0]])
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
SOURCES = [MaskedLabels(CLASSES), UniformLabels(CLASSES)]


def sphere_points() -> Tensor:
    return Sphere(2).random_uniform(3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def exact_network(path: MixturePath, source: Source, labels: Tensor, x_1: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """The posterior and the velocity of finitely many data: Bayes' rule for the joint path, term by term."""
    geodesic, m = GeodesicPath(source.manifold), source.manifold
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).double()

    def network(on_the_way: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x, t = x.double(), t.double()
        left = path.kappa(t)[0][:, None, None]
        noise = path.source.probabilities[on_the_way][:, None]
        same = left * noise + (1 - left) * (on_the_way[:, None] == labels[None])
        given = geodesic.given_data(source, x[:, None], x_1[None], t[:, None])
        log_p = torch.log(same).sum(-1) + given.log_prob + torch.log(SHARES)
        # Where the solver has left all paths, the nearest data are as likely as before.
        log_p = torch.where(log_p == -torch.inf, -1e6 * (1 + m.dist(x[:, None], x_1[None])), log_p)
        q = torch.softmax(log_p, dim=-1)
        posterior = torch.log(torch.einsum("ns,slc->nlc", q, one_hot))
        return posterior, (q[..., None] * given.velocity).sum(1).to(torch.float32)

    return network


@pytest.mark.parametrize("labels", SOURCES, ids=str)
def test_an_exact_network_draws_the_data(labels: LabelSource) -> None:
    """Each draw ends at a datum, with the labels that belong to it, as often as its share says."""
    m, data, n = Sphere(2), sphere_points(), 2000
    path, source = MixturePath(labels), Uniform(m)
    flow = JointFlow(exact_network(path, source, LABELS, data), path, [source], [2])
    drawn = flow.sample_length(2, n, steps=60, generator=torch.Generator().manual_seed(0))
    distance = m.dist(drawn.x.double()[:, None], data[None])
    nearest = distance.argmin(-1)
    assert float(distance.min(-1).values.quantile(0.98)) < 0.02
    assert float((drawn.labels == LABELS[nearest]).all(-1).double().mean()) > 0.97
    found = torch.bincount(nearest, minlength=3).double() / n
    assert float(((found - SHARES) / (SHARES * (1 - SHARES) / n).sqrt()).abs().max()) < 5


def test_losses_are_least_at_the_exact_network() -> None:
    m, data, path = Sphere(2), sphere_points(), MixturePath(MaskedLabels(CLASSES))
    source = Uniform(m)
    exact = exact_network(path, source, LABELS, data)
    rows = torch.multinomial(SHARES, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    batch = Labelled(LABELS[rows], data[rows].float())

    def losses(velocity: float, sharpened: float) -> tuple[float, float]:
        def network(labels: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            logits, u = exact(labels, x, t)
            return (sharpened * logits.float()).clamp(min=-50), velocity * u

        flow = JointFlow(network, path, [source], [2])
        t = 0.9 * torch.rand(4000, generator=torch.Generator().manual_seed(1))
        found = flow.losses(batch, t, torch.Generator().manual_seed(2))
        return float(found.velocity), float(found.labels)

    best = losses(1.0, 1.0)
    assert best[0] < min(losses(0.8, 1.0)[0], losses(1.2, 1.0)[0])
    assert best[1] < min(losses(1.0, 0.7)[1], losses(1.0, 1.5)[1])


class Small(nn.Module):
    """A network of labels and coordinates of any length on a torus: each label beside its angle."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.labels = nn.Embedding(states, 16)
        self.layers = nn.Sequential(nn.Linear(16 + 3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.logits, self.move = nn.Linear(64, 2), nn.Linear(64, 1)

    def forward(self, labels: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.labels(labels), torch.cos(x)[..., None], torch.sin(x)[..., None]]
        h = self.layers(torch.cat([*parts, t[:, None, None].expand(*labels.shape, 1)], dim=-1))
        return self.logits(h), self.move(h)[..., 0]


def sorted_angles(count: int, k: int, seed: int) -> Labelled:
    """Labels 1 at angles about 1.5 and labels 0 about -1.5, a quarter and three quarters of them."""
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, k, generator=g) < 0.25).long()
    return Labelled(labels, 1.5 * (2 * labels - 1) + 0.2 * torch.randn(count, k, generator=g))


def untrained(labels: LabelSource) -> JointFlow:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small(labels.states)
    sources = [Uniform(FlatTorus(k)) for k in (1, 3)]
    return JointFlow(network, MixturePath(labels), sources, [1, 3], [0.25, 0.75])


@pytest.mark.parametrize("labels", [MaskedLabels(2), pytest.param(UniformLabels(2), marks=pytest.mark.slow)], ids=str)
def test_fit_learns_how_labels_and_points_hang_together(labels: LabelSource, tmp_path: Path) -> None:
    data, held = ([sorted_angles(n, k, seed=k) for k in (1, 3)] for n in (2000, 200))

    def fitted(**options: bool) -> JointFlow:
        return fit_joint(
            data,
            untrained(labels),
            held_out=held,
            steps=600,
            batch_size=256,
            out=tmp_path / "run",
            progress=False,
            training=Training(learning_rate=1e-2),
            **options,
        )

    flow = fitted()
    drawn = flow.sample(2000, steps=40, generator=torch.Generator().manual_seed(0))
    assert [batch.labels.shape[1] for batch in drawn] == [1, 3]
    assert len(drawn[1].labels) == pytest.approx(1500, abs=100)
    for batch in drawn:
        assert float(batch.labels.double().mean()) == pytest.approx(0.25, abs=0.05)
        # Angles on the side that their label says; of independent ones 5/8 would be.
        assert float(((batch.x > 0) == (batch.labels == 1)).double().mean()) > 0.95
    last = flow.history[-1]
    assert last["validation_loss"] == pytest.approx(last["velocity_loss"] + last["cross_entropy"])
    # A finished run is loaded, by a new object; what it draws is the same.
    again = fitted(resume=True)
    assert again.history == flow.history
    torch.testing.assert_close(
        again.sample_length(3, 5, generator=torch.Generator().manual_seed(1)),
        flow.sample_length(3, 5, generator=torch.Generator().manual_seed(1)),
    )


def test_save_and_load(tmp_path: Path) -> None:
    flow = untrained(MaskedLabels(2))
    flow.save(tmp_path)
    loaded = JointFlow.load(tmp_path, network=Small(3))
    assert (loaded.lengths, loaded.shares) == ([1, 3], [0.25, 0.75])
    for a, b in zip(flow.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(SavedFlowError, match="Small, which is not part of this library; pass it"):
        JointFlow.load(tmp_path)
    with pytest.raises(SavedFlowError, match=r"holds an rfm joint flow.*load it with rfm\.discrete\.JointFlow\.load"):
        Flow.load(tmp_path)
    with pytest.raises(SavedFlowError, match=r"JointFlow\.load"):
        DiscreteFlow.load(tmp_path)


def test_crystals_of_several_sizes_are_joint_flows() -> None:
    """Places modulo translations beside a cell: draws are points, and the network may see any number of atoms."""
    spaces = {k: Product(FractionalCoordinates(k), FlatTorus(1)) for k in (2, 4)}

    def network(labels: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(*labels.shape, 5), torch.zeros_like(x)

    sources = [default_source(m, m.random_uniform(4, generator=torch.Generator())) for m in spaces.values()]
    flow = JointFlow(network, MixturePath(MaskedLabels(5)), sources, list(spaces))
    for batch in flow.sample(50, steps=3, generator=torch.Generator().manual_seed(0)):
        k = batch.labels.shape[1]
        spaces[k].check_point(batch.x)
        assert set(batch.labels.flatten().tolist()) <= set(range(5))


def test_bad_input() -> None:
    flow = untrained(MaskedLabels(2))
    for data, message in (
        (Labelled(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(2, 1)), "as many points"),
        (Labelled(torch.zeros(3, 1), torch.zeros(3, 1)), "whole numbers"),
        (Labelled(torch.full((3, 1), 2), torch.zeros(3, 1)), "labels must be 0 to 1"),
        (Labelled(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2)), "no source for 2 labels"),
        (Labelled(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1)), "no data"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            fit_joint([data], flow, held_out=[data], progress=False)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="one source and one share"):
        JointFlow(Small(3), MixturePath(MaskedLabels(2)), [Uniform(FlatTorus(1))], [1, 2])
