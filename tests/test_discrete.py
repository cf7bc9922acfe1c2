"""Discrete flow matching, assessed on a Markov chain whose law is known exactly."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rfm import Flow, Training, discrete
from rfm.discrete import DiscreteFlow, MaskedLabels, MixturePath, UniformLabels
from rfm.discrete.mixture_path import LabelSource
from rfm.paths.schedules import CosineKappa, LinearKappa, PolynomialKappa
from rfm.records.descriptions import SavedFlowError

CLASSES, LENGTH = 3, 4
SOURCES = [UniformLabels(CLASSES), MaskedLabels(CLASSES)]
KAPPAS = [LinearKappa(), PolynomialKappa(2), CosineKappa()]


def chain_law(seed: int = 0) -> Tensor:
    """Return the probabilities of all sequences of a Markov chain, by their product along the sequence."""
    g = torch.Generator().manual_seed(seed)
    start = torch.softmax(torch.randn(CLASSES, generator=g, dtype=torch.float64), -1)
    move = torch.softmax(2 * torch.randn(CLASSES, CLASSES, generator=g, dtype=torch.float64), -1)
    law = []
    for s in itertools.product(range(CLASSES), repeat=LENGTH):
        p = float(start[s[0]])
        for a, b in itertools.pairwise(s):
            p *= float(move[a, b])
        law.append(p)
    return torch.tensor(law, dtype=torch.float64)


def drawn(law: Tensor, count: int, seed: int = 0) -> Tensor:
    index = torch.multinomial(law, count, replacement=True, generator=torch.Generator().manual_seed(seed))
    return discrete.every_sequence(CLASSES, LENGTH)[index]


def frequencies(x: Tensor) -> Tensor:
    powers = CLASSES ** torch.arange(LENGTH - 1, -1, -1)
    return torch.bincount((x * powers).sum(-1), minlength=CLASSES**LENGTH).double() / len(x)


@pytest.mark.parametrize("kappa", KAPPAS, ids=str)
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_path_has_the_mixture_as_its_law(source: LabelSource, kappa: LinearKappa) -> None:
    path = MixturePath(source, kappa)
    x_1 = torch.tensor([0, 2, 1, 1]).expand(20000, LENGTH)
    for time in (0.0, 0.3, 1.0):
        x = path.sample(x_1, torch.full((20000,), time), torch.Generator().manual_seed(0))
        left = float(kappa(torch.tensor(time, dtype=torch.float64))[0])
        for position in range(LENGTH):
            found = torch.bincount(x[:, position], minlength=source.states).double() / 20000
            expected = left * source.probabilities
            expected[x_1[0, position]] += 1 - left
            assert float((found - expected).abs().max()) < 0.02


@pytest.mark.parametrize("kappa", KAPPAS, ids=str)
def test_jump_probability_integrates_the_rate(kappa: LinearKappa) -> None:
    """1 - exp(-integral of the rate), by quadrature; 1 up to the end of time."""
    path = MixturePath(MaskedLabels(2), kappa)
    t = torch.linspace(0.2, 0.7, 20001, dtype=torch.float64)
    integral = float(torch.trapezoid(path.jump_rate(t), t))
    assert path.jump_probability(0.2, 0.7) == pytest.approx(1 - float(torch.tensor(-integral).exp()), rel=1e-6)
    assert path.jump_probability(0.9, 1.0) == 1.0
    assert path.jump_probability(1.0, 1.0) == 1.0


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_marginals_of_the_exact_posterior_solve_the_jump_equation(source: LabelSource) -> None:
    """d p_t / dt = rate (sum over sources of posterior jumps - p_t), the continuity equation of jumps, at one time."""
    path, law, t, h = MixturePath(source), chain_law(), 0.4, 1e-4
    sequences = discrete.every_sequence(source.states, LENGTH)
    data = discrete.every_sequence(CLASSES, LENGTH)

    def marginal(time: float) -> Tensor:
        kept = (sequences[:, None] == data[None]).double()
        each = (1 - time) * source.probabilities[sequences][:, None] + time * kept
        return each.prod(-1) @ law

    times = torch.full((len(sequences),), t, dtype=torch.float64)
    q = torch.softmax(discrete.exact_posterior(path, law, LENGTH)(sequences, times), -1)
    p, rate = marginal(t), 1 / (1 - t)
    q = torch.nan_to_num(q)
    flux = torch.zeros_like(p)
    index = {tuple(s.tolist()): i for i, s in enumerate(sequences)}
    for i, s in enumerate(sequences.tolist()):
        for position in range(LENGTH):
            for label in range(CLASSES):
                end = index[(*s[:position], label, *s[position + 1 :])]
                moved = rate * p[i] * q[i, position, label]
                flux[end] += moved
                flux[i] -= moved
    torch.testing.assert_close(flux, (marginal(t + h) - marginal(t - h)) / (2 * h), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kappa", KAPPAS, ids=str)
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_law_of_the_exact_posterior_converges_to_that_of_the_data(source: LabelSource, kappa: LinearKappa) -> None:
    """First order in the number of steps, in total variation, without any sampling noise."""
    path, law = MixturePath(source, kappa), chain_law()
    flow = DiscreteFlow(discrete.exact_posterior(path, law, LENGTH), path, LENGTH)
    errors = []
    for steps in (1, 16, 32, 64):
        found = flow.law(steps=steps)
        assert float(found.sum()) == pytest.approx(1)
        errors.append(discrete.total_variation(found, law))
    assert errors[0] > 0.1
    assert errors[3] < 0.03
    assert errors[2] / errors[3] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_draws_have_the_enumerated_law(source: LabelSource) -> None:
    path, law = MixturePath(source), chain_law()
    flow = DiscreteFlow(discrete.exact_posterior(path, law, LENGTH), path, LENGTH)
    x = flow.sample(20000, steps=6, generator=torch.Generator().manual_seed(0))
    exact = flow.law(steps=6)
    noise = (exact * (1 - exact) / 20000).sqrt()
    assert float(((frequencies(x) - exact).abs() / noise.clamp(min=1e-4)).max()) < 5
    assert discrete.total_variation(exact, law) > 2 * discrete.total_variation(frequencies(x), exact)


def test_loss_is_least_at_the_exact_posterior() -> None:
    path, law = MixturePath(MaskedLabels(CLASSES)), chain_law()
    x = drawn(law, 5000)
    exact = discrete.exact_posterior(path, law, LENGTH)

    def loss(sharpened: float) -> float:
        flow = DiscreteFlow(lambda x, t: (sharpened * exact(x, t)).clamp(min=-50), path, LENGTH)
        return float(flow.loss(x, generator=torch.Generator().manual_seed(0)))

    assert loss(1.0) < min(loss(0.7), loss(1.4))


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_fit(source: LabelSource) -> None:
    """A trained network's law is near the chain's, as its bigrams are; far from that of independent positions."""
    law = chain_law()
    flow = discrete.fit(
        drawn(law, 4000), MixturePath(source), steps=250, seed=0, progress=False, training=Training(learning_rate=4e-3)
    )
    found = flow.law(steps=32)
    sequences = discrete.every_sequence(CLASSES, LENGTH)
    marginals = [torch.zeros(CLASSES).double().index_add(0, sequences[:, i], law) for i in range(LENGTH)]
    independent = torch.stack([m[sequences[:, i]] for i, m in enumerate(marginals)]).prod(0)
    assert discrete.total_variation(found, law) < 0.15 < 0.3 < discrete.total_variation(independent, law)
    pairs = sequences[:, 1] * CLASSES + sequences[:, 2]
    bigrams = [torch.zeros(CLASSES**2).double().index_add(0, pairs, p) for p in (found, law)]
    assert discrete.total_variation(*bigrams) < 0.08
    assert flow.history[-1]["cross_entropy"] < flow.history[0]["cross_entropy"]
    again = discrete.fit(drawn(law, 4000), MixturePath(source), steps=5, seed=3, progress=False)
    repeated = discrete.fit(drawn(law, 4000), MixturePath(source), steps=5, seed=3, progress=False)
    assert torch.equal(again.law(steps=2), repeated.law(steps=2))


def test_bad_input() -> None:
    path = MixturePath(MaskedLabels(3))
    for sequences, message in (
        (torch.zeros(5, dtype=torch.int64), "table"),
        (torch.full((5, 2), 3), "labels must be 0 to 2"),
        (torch.zeros(5, 2), "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            discrete.fit(sequences, path, steps=1)
    with pytest.raises(ValueError, match="more than"):
        discrete.every_sequence(4, 12)
    with pytest.raises(ValueError, match="source"):
        MixturePath(3)  # type: ignore[arg-type]


def test_a_saved_flow_has_the_same_law(tmp_path: Path) -> None:
    path = MixturePath(UniformLabels(CLASSES), PolynomialKappa(2))
    flow = discrete.fit(drawn(chain_law(), 500), path, steps=20, progress=False, out=tmp_path)
    loaded = DiscreteFlow.load(tmp_path)
    assert repr(loaded.path.source) == repr(path.source)
    assert loaded.path.kappa == path.kappa
    assert (loaded.history, loaded.stopped) == (flow.history, "all 20 steps done")
    assert torch.equal(loaded.law(steps=3), flow.law(steps=3))
    with pytest.raises(
        SavedFlowError, match=r"holds an rfm discrete flow, not an rfm flow; load it with rfm\.discrete"
    ):
        Flow.load(tmp_path)


def test_a_posterior_of_ones_own_is_passed_in(tmp_path: Path) -> None:
    path, own = MixturePath(MaskedLabels(CLASSES)), Own()
    DiscreteFlow(own, path, LENGTH).save(tmp_path)
    with pytest.raises(SavedFlowError, match="Own, which is not part of this library; pass it"):
        DiscreteFlow.load(tmp_path)
    other = Own()
    DiscreteFlow.load(tmp_path, posterior=other)
    assert torch.equal(other.logits, own.logits)


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """To the same law as one that was never stopped; and not with other data."""
    x, path = drawn(chain_law(), 500), MixturePath(MaskedLabels(CLASSES))

    def fitted(out: Path | None, data: Tensor = x, **options: Any) -> DiscreteFlow:
        return discrete.fit(data, path, steps=32, batch_size=32, out=out, progress=False, **options)

    class StoppedError(Exception):
        pass

    def stop(share: float, record: object) -> None:
        if share >= 0.5:
            raise StoppedError

    with pytest.raises(StoppedError):
        discrete.fit(x, path, steps=32, batch_size=32, out=tmp_path, progress=stop)
    assert not (tmp_path / "flow.json").exists()
    with pytest.raises(FileExistsError, match="already holds an unfinished run"):
        fitted(tmp_path)
    resumed, full = fitted(tmp_path, resume=True), fitted(None)
    assert [record["step"] for record in resumed.history] == [record["step"] for record in full.history]
    assert torch.equal(resumed.law(steps=2), full.law(steps=2))
    assert torch.equal(fitted(tmp_path, resume=True).law(steps=2), full.law(steps=2))
    with pytest.raises(SavedFlowError, match="other data or with other settings"):
        fitted(tmp_path, drawn(chain_law(), 500, seed=1), resume=True)


class Own(nn.Module):
    """A posterior of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(LENGTH, CLASSES))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.logits.expand(len(x), LENGTH, CLASSES)
