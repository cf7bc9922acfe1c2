"""Likelihoods of networks that forward mode does not know: exact in reverse mode, and differentiable again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_fields import normal, points
from torch import Tensor, nn

import rfm
from manifolds import SO3, Euclidean, Hyperboloid, Manifold, PoincareBall, Sphere
from rfm import divergence
from rfm.integrators import RK4, FixedStep
from rfm.likelihood import Hutchinson, divergence_estimates, estimate_log_prob, log_prob
from rfm.objectives.maximum_likelihood import MaximumLikelihood, negative_log_likelihood_loss
from rfm.sources import Source, Uniform, WrappedNormal

WIDTH = 8


class Square(torch.autograd.Function):
    """A function in the old form: no forward formula, no rule for vmap, unknown to torch.func."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        return 2 * g[0] * ctx.saved_tensors[0]


class Attention(nn.Module):
    """Scaled dot-product attention between coordinates."""

    def __init__(self, causal: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.causal, self.masked, self.inward = causal, masked, nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.inward(h).unflatten(-1, (3, 2, WIDTH // 2)).movedim(-3, 0).transpose(-3, -2).unbind(0)
        mask = torch.ones(h.shape[-2], h.shape[-2], dtype=torch.bool).tril() if self.masked else None
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return found.transpose(-3, -2).flatten(-2)


class OwnAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.attention(h, h, h, need_weights=False)[0]
        return found


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.layer(h)[0]
        return found


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: Tensor) -> Tensor:
        return self.function(h)


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.1, batch_first=True, activation="gelu")


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "causal": lambda: Attention(causal=True),
    "masked": lambda: Attention(masked=True),
    "multihead": OwnAttention,
    "layer": encoder_layer,
    "norm first": lambda: nn.TransformerEncoderLayer(
        WIDTH, 2, 16, batch_first=True, norm_first=True, activation="gelu"
    ),
    "encoder": lambda: nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False),
    "recurrent": Recurrent,
    "function": lambda: Applied(Square.apply),
    "distances": lambda: Applied(lambda h: h * torch.cdist(h, h.flip(-2) + 1).mean((-2, -1))[..., None, None]),
    "plain": nn.Identity,
}
EVERY = pytest.mark.parametrize("layer", [pytest.param(make, id=name) for name, make in LAYERS.items()])
TWICE = pytest.mark.parametrize(
    "layer", [pytest.param(LAYERS[n], id=n) for n in ("attention", "layer", "function", "plain")]
)


class Tokens(nn.Module):
    """A tangent field that takes each coordinate of a point for a token."""

    def __init__(self, m: Manifold, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.m = m
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inward, self.layer, self.outward = nn.Linear(3, WIDTH), layer(), nn.Linear(WIDTH, 1)
            self.place = nn.Parameter(torch.randn(m.embed_dim, WIDTH))
            self.mix = nn.Linear(m.embed_dim, m.field_dim)
        self.double().eval()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        e = self.m.embed(x)
        c = torch.zeros_like(t) if condition is None else condition[..., 0]
        h = self.inward(torch.stack([e, t[..., None].expand_as(e), c[..., None].expand_as(e)], -1)) + self.place
        h = self.layer(h.reshape(-1, *h.shape[-2:])).reshape(h.shape)
        return self.m.tangent_from_vector(x, self.mix(torch.tanh(self.outward(h)[..., 0])))


def by_differences(field: Callable[..., Tensor], m: Manifold, x: Tensor, t: Tensor, **own: Any) -> Tensor:
    """Return the divergence in an induced metric: the ambient trace of differences of ``v(projx(y))``."""
    total, h = torch.zeros(len(x), dtype=x.dtype), 1e-4
    for direction in torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:]):
        up, down = (field(m.projx(x + s * h * direction), t, **own) for s in (1, -1))
        total += ((up - down) * direction).flatten(1).sum(1) / (2 * h)
    return total


@EVERY
@pytest.mark.parametrize("m", [Sphere(2), Euclidean(3)], ids=str)
@pytest.mark.parametrize("recorded", [False, True])
def test_divergences_are_those_of_differences(layer: Callable[[], nn.Module], m: Manifold, recorded: bool) -> None:
    field, x, t, c = Tokens(m, layer), points(m, 4), torch.rand(4, dtype=torch.float64), normal(4, 1, seed=3)
    for own in ({}, {"condition": c}):
        with torch.no_grad():
            truth = by_differences(field, m, x, t, **own)
        for frozen in (False, True):
            field.requires_grad_(not frozen)
            with torch.set_grad_enabled(recorded):
                u, div = divergence(field, m, x, t, **own)
                torch.testing.assert_close(u, field(x, t, **own))
            torch.testing.assert_close(div.detach(), truth, rtol=1e-6, atol=1e-6)
            assert div.requires_grad == u.requires_grad == (recorded and not frozen)
            # Along the axes of the ambient space probes are no estimate.
            axes = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:]).expand(4, -1, *x.shape[1:])
            with torch.set_grad_enabled(recorded):
                estimates = divergence_estimates(field, m, x, t, axes, **own)[1]
            torch.testing.assert_close(estimates.sum(-1).detach(), truth, rtol=1e-6, atol=1e-6)


@TWICE
@pytest.mark.parametrize("m", [SO3(), Hyperboloid(2), PoincareBall(2)], ids=str)
def test_any_metric(layer: Callable[[], nn.Module], m: Manifold) -> None:
    """The ambient trace of differences along the frame that defines the divergence."""
    field, x, t = Tokens(m, layer), points(m, 3), torch.rand(3, dtype=torch.float64)
    with torch.no_grad():
        u, div = divergence(field, m, x, t)
        vectors, covectors = m.divergence_frame(x)
        truth, h = m.log_volume_derivative(x, u), 1e-4
        axis = x.ndim - len(m.event_shape)
        for e, w in zip(vectors.unbind(axis), covectors.unbind(axis), strict=True):
            change = (field(x + h * e, t) - field(x - h * e, t)) / (2 * h)
            truth = truth + (change * w).flatten(1).sum(1)
    torch.testing.assert_close(div, truth, rtol=1e-6, atol=1e-6)


@TWICE
def test_solves(layer: Callable[[], nn.Module]) -> None:
    m = Sphere(2)
    field, x = Tokens(m, layer), points(m, 3)
    flow = rfm.Flow(m, field)
    tight = FixedStep(RK4, 16)
    log_p = flow.log_prob(x, solver=tight)
    # By the change of volume of the flow map, between orthonormal bases.
    h, columns = 1e-4, []
    basis = m.tangent_basis(x).movedim(-2, 0)
    end = flow.trajectory(x, (1.0, 0.0), solver=tight)[-1]
    frame = m.tangent_basis(end).movedim(-2, 0)
    for e in basis:
        up, down = (flow.trajectory(m.expmap(x, s * h * e), (1.0, 0.0), solver=tight)[-1] for s in (1, -1))
        columns.append((m.logmap(end, up) - m.logmap(end, down)) / (2 * h))
    matrix = torch.stack([torch.stack([(c * f).sum(-1) for f in frame], -1) for c in columns], -1)
    assert m.volume is not None
    truth = -torch.log(torch.tensor(m.volume)) + torch.linalg.slogdet(matrix).logabsdet
    torch.testing.assert_close(log_p, truth.to(log_p), rtol=1e-5, atol=1e-5)
    y, density = flow.sample(3, generator=torch.Generator().manual_seed(0), solver=tight, return_log_prob=True)
    torch.testing.assert_close(density, flow.log_prob(y, solver=tight), rtol=1e-6, atol=1e-6)
    probes = Hutchinson(64, torch.Generator().manual_seed(0))
    estimate = flow.log_prob(x, estimator=probes, solver=FixedStep(RK4, 6))
    exact = flow.log_prob(x, solver=FixedStep(RK4, 6))
    assert bool(((estimate.log_prob - exact).abs() <= 5 * estimate.standard_error + 1e-6).all())


@TWICE
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("probes", [None, 1])
def test_gradients_of_likelihoods(layer: Callable[[], nn.Module], adjoint: bool, probes: int | None) -> None:
    m = Sphere(2)
    field, x, method = Tokens(m, layer), points(m, 2), FixedStep(RK4, 8 if adjoint else 2)

    def loss() -> Tensor:
        estimator = None if probes is None else Hutchinson(probes, torch.Generator().manual_seed(0))
        return negative_log_likelihood_loss(field, Uniform(m), x, method, adjoint=adjoint, estimator=estimator)

    parameters = list(field.parameters())
    found = torch.autograd.grad(loss(), parameters, allow_unused=True)
    directions = [normal(*p.shape, seed=5) for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True) if g is not None)
    values = []
    with torch.no_grad():
        for step in (1e-4, -2e-4):
            torch._foreach_add_(parameters, directions, alpha=step)
            values.append(float(loss()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-4, rel=2e-3 if adjoint else 1e-5, abs=1e-5)


def test_fit_validates_and_learns_by_maximum_likelihood() -> None:
    m = Sphere(2)
    options: dict[str, Any] = {"steps": 16, "batch_size": 16, "progress": False, "device": "cpu"}
    for objective in (None, MaximumLikelihood(FixedStep(RK4, 2)), MaximumLikelihood(FixedStep(RK4, 2), probes=1)):
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
        flow = rfm.fit(points(m, 40), m, field=Tokens(m, lambda made=layer: made), objective=objective, **options)
        assert all("validation_nll" in record for record in flow.history)


def test_guidance_and_transformations() -> None:
    m = Sphere(2)
    field, x, c = Tokens(m, encoder_layer), points(m, 3), normal(1, seed=3)
    flow = rfm.Flow(m, field)
    assert flow.sample(3, condition=c, guidance=1.5, solver=FixedStep(RK4, 4)).isfinite().all()

    def one(y: Tensor) -> Tensor:
        return divergence(field, m, y, torch.full((1,), 0.3, dtype=y.dtype))[1]

    # The fast path of an encoder layer has no rule for vmap; attention has.
    field = Tokens(m, Attention)
    with torch.no_grad():
        together = divergence(field, m, x, torch.full((3,), 0.3, dtype=x.dtype))[1]
        torch.testing.assert_close(torch.func.vmap(one)(x[:, None])[:, 0], together)


def test_the_mode_is_found_once_for_a_solve() -> None:
    m = Sphere(2)
    calls = {"plain": 0}
    inner = Tokens(m, encoder_layer)

    def field(x: Tensor, t: Tensor) -> Tensor:
        calls["plain"] += 1
        return inner(x, t)

    counts = []
    for steps in (2, 4, 8):
        calls["plain"] = 0
        with torch.no_grad():
            log_prob(field, Uniform(m), points(m, 3), FixedStep(RK4, steps))
        counts.append(calls["plain"] - 4 * steps)
    # One more in vain in forward mode, one to tell the field's own errors.
    assert counts == [2, 2, 2]
    smooth = Tokens(m, nn.Identity)
    inner.forward = smooth.forward  # type: ignore[method-assign]
    calls["plain"] = 0
    log_prob(field, Uniform(m), points(m, 3), FixedStep(RK4, 2))
    assert calls["plain"] == 8


def test_errors_of_the_fields_own_are_not_hidden() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return x @ torch.ones(5, 5).to(x)

    with pytest.raises(RuntimeError, match="shape"):
        divergence(broken, Sphere(2), points(Sphere(2), 3), torch.rand(3))

    def refusing(x: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError("not written yet")

    with pytest.raises(NotImplementedError, match="not written yet"):
        divergence(refusing, Sphere(2), points(Sphere(2), 3), torch.rand(3))


def test_what_has_no_derivative_is_told_in_a_sentence() -> None:
    def special(x: Tensor, t: Tensor) -> Tensor:
        return torch.special.gammainc(x.abs() + 1, x.abs() + 1)

    with pytest.raises(ValueError, match=r"^divergence: the field can be differentiated neither .* pushforward$"):
        divergence(special, Euclidean(3), points(Euclidean(3), 3), torch.rand(3))


def test_random_fields_have_no_density() -> None:
    def dropping(x: Tensor, t: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)

    attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.3, batch_first=True).double()

    def attending(x: Tensor, t: Tensor) -> Tensor:
        h = x[..., None].expand(*x.shape, WIDTH)
        return attention(h, h, h, need_weights=False)[0].mean(-1)

    m = Euclidean(3)
    for field in (dropping, attending):
        with pytest.raises(ValueError, match="draws random numbers, as dropout in training mode does"):
            divergence(field, m, points(m, 3), torch.rand(3))
    attention.eval()
    assert divergence(attending, m, points(m, 3), torch.rand(3))[1].isfinite().all()


def test_sources_on_other_spaces() -> None:
    m = Euclidean(3)
    source: Source = WrappedNormal(m, torch.zeros(3), 1.0)
    field, x = Tokens(m, Attention), points(m, 4)
    exact = log_prob(field, source, x, FixedStep(RK4, 6))
    estimate = estimate_log_prob(field, source, x, Hutchinson(200, torch.Generator().manual_seed(0)), FixedStep(RK4, 6))
    assert bool(((estimate.log_prob - exact).abs() <= 5 * estimate.standard_error + 1e-6).all())
