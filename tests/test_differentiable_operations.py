"""Gradients of divergences and log-densities of users' networks, whatever operations these are made of."""

from collections.abc import Callable

import pytest
import torch
from random_fields import normal, points
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import rfm
from manifolds import Euclidean, Sphere
from rfm import Hutchinson, negative_log_likelihood_loss
from rfm.integrators import RK4, FixedStep
from rfm.likelihood import divergence_estimates
from rfm.likelihood.differentiable_operations import with_right_derivatives
from rfm.sources import Uniform

N = 4
# Drawn outside of torch.func.vmap, which refuses random numbers.
FIXED, FREQUENCIES = normal(N, N, seed=3) + 3 * torch.eye(N, dtype=torch.float64), normal(N, N, seed=4)
WEIGHTS = (normal(N, seed=7), normal(N, seed=8))
READOUT = normal(N * N, N, seed=9)


def matrix(x: Tensor) -> Tensor:
    """Return matrices (*batch, 4, 4), regular and not symmetric, that depend on points (*batch, 4)."""
    return FIXED + 0.4 * torch.sin(x[..., :, None] * FREQUENCIES + x[..., None, :])


def tensor(x: Tensor) -> Tensor:
    """Return tensors (1, 4, 4) for a batch of none: batches of one picture with 4 channels and 4 places."""
    return matrix(x)[None]


def lower(x: Tensor) -> Tensor:
    return torch.linalg.cholesky(matrix(x) @ matrix(x).mT)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.LayerNorm": lambda x: nn.LayerNorm(N, dtype=x.dtype)(matrix(x)),
    "functional.layer_norm, two axes": lambda x: functional.layer_norm(matrix(x), (N, N), eps=0.1),
    "torch.layer_norm": lambda x: torch.layer_norm(matrix(x), [N], *WEIGHTS),
    "nn.GroupNorm": lambda x: nn.GroupNorm(2, N, dtype=x.dtype)(tensor(x)),
    "nn.RMSNorm": lambda x: nn.RMSNorm(N, dtype=x.dtype)(matrix(x)),
    "nn.InstanceNorm1d": lambda x: nn.InstanceNorm1d(N, dtype=x.dtype)(tensor(x)),
    "functional.instance_norm": lambda x: functional.instance_norm(tensor(x), None, None, *WEIGHTS),
    "torch.instance_norm": lambda x: torch.instance_norm(tensor(x), *WEIGHTS, None, None, True, 0.1, 1e-5, False),
    "nn.BatchNorm1d, training": lambda x: nn.BatchNorm1d(N, dtype=x.dtype)(tensor(x)),
    "nn.BatchNorm1d, evaluation": lambda x: nn.BatchNorm1d(N, dtype=x.dtype).eval()(tensor(x) ** 2),
    "functional.batch_norm": lambda x: functional.batch_norm(tensor(x), None, None, *WEIGHTS, True),
    "torch.batch_norm": lambda x: torch.batch_norm(tensor(x), *WEIGHTS, None, None, True, 0.1, 1e-5, False),
    "linalg.solve": lambda x: torch.linalg.solve(matrix(x), matrix(2 * x)),
    "linalg.solve, vector": lambda x: torch.linalg.solve(matrix(x), torch.cos(x)),
    "linalg.solve, from the right": lambda x: torch.linalg.solve(matrix(x), matrix(2 * x), left=False),
    "linalg.solve_ex": lambda x: torch.linalg.solve_ex(matrix(x), torch.cos(x))[0],
    "linalg.inv": lambda x: torch.linalg.inv(matrix(x)),
    "linalg.tensorsolve": lambda x: torch.linalg.tensorsolve(matrix(x).reshape(N, 2, 2), torch.cos(x)),
    "linalg.tensorsolve, dims": lambda x: torch.linalg.tensorsolve(matrix(x).reshape(2, N, 2), torch.cos(x), dims=(0,)),
    "linalg.det": lambda x: torch.linalg.det(matrix(x)),
    "torch.det": lambda x: torch.det(matrix(x)),
    "Tensor.det": lambda x: matrix(x)[[1, 0, 2, 3]].det(),
    "linalg.slogdet": lambda x: torch.linalg.slogdet(matrix(x)).logabsdet,
    "torch.slogdet": lambda x: torch.slogdet(matrix(x)).logabsdet,
    "Tensor.slogdet": lambda x: matrix(x)[[1, 0, 2, 3]].slogdet()[1],
    "torch.logdet": lambda x: torch.logdet(matrix(x) @ matrix(x).mT),
    "Tensor.logdet": lambda x: (matrix(x) @ matrix(x).mT).logdet(),
    "torch.cholesky_inverse": lambda x: torch.cholesky_inverse(lower(x)),
    "Tensor.cholesky_inverse": lambda x: lower(x).mT.cholesky_inverse(upper=True),
    "torch.cholesky_solve": lambda x: torch.cholesky_solve(matrix(x), lower(x)),
    "linalg.solve_triangular": lambda x: torch.linalg.solve_triangular(lower(x), matrix(x), upper=False),
    "linalg.householder_product": lambda x: torch.linalg.householder_product(matrix(x)[:, :3], torch.sin(x[:3])),
    "torch.orgqr": lambda x: torch.orgqr(matrix(x), torch.sin(x[:3])),
    "linalg.lu_solve": lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(matrix(x)), matrix(2 * x)),
    "linalg.pinv": lambda x: torch.linalg.pinv(matrix(x)[:, :2]),
    "linalg.matrix_power": lambda x: torch.linalg.matrix_power(matrix(x), -2),
    "linalg.lstsq": lambda x: torch.linalg.lstsq(matrix(x)[:, :2], matrix(2 * x)).solution,
    "scatter_reduce, mean": lambda x: torch.scatter_reduce(
        x.new_zeros(2), 0, torch.tensor([0, 1, 0, 1]), torch.sin(x), "mean", include_self=False
    ),
}


def field_of(operation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a field on R^4 made of one operation."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        flat = operation(x).flatten()
        return torch.sin(flat) @ READOUT[: flat.shape[-1]] + t * x

    return field


def slope(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> float:
    h = 1e-3
    at = [float(f(x + k * h * direction)) for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_the_divergence(name: str) -> None:
    field, m, t = field_of(OPERATIONS[name]), Euclidean(N), torch.tensor(0.3, dtype=torch.float64)
    x, direction, noise = 0.3 * normal(N, seed=1), normal(N, seed=2), normal(2, N, seed=5).sign()

    def exact(y: Tensor) -> Tensor:
        return rfm.divergence(field, m, y, t)[1]

    def estimated(y: Tensor) -> Tensor:
        return divergence_estimates(field, m, y, t, noise)[1].sum()

    h = 1e-5
    ahead, behind = (
        torch.stack([field(x + k * h * e, t)[i] for i, e in enumerate(torch.eye(N).to(x))]) for k in (1, -1)
    )
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            assert float(exact(x).detach()) == pytest.approx(float((ahead - behind).detach().sum()) / (2 * h), rel=1e-6)
    for f in (exact, estimated):
        expected = slope(torch.no_grad()(f), x, direction)
        assert abs(expected) > 1e-3
        y = x.clone().requires_grad_()
        (recorded,) = torch.autograd.grad(f(y), y)
        transformed = torch.func.grad(f)(x)
        forward = torch.func.jvp(f, (x,), (direction,))[1]
        for found in ((recorded * direction).sum(), (transformed * direction).sum(), forward):
            assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_are_those_of_torch(name: str) -> None:
    x = 0.3 * normal(N, seed=1)
    found = with_right_derivatives(OPERATIONS[name])(x)
    torch.testing.assert_close(found, OPERATIONS[name](x), rtol=1e-10, atol=1e-10)


NORMALISATIONS = {
    "layer": lambda: nn.LayerNorm((4, 5)),
    "instance": lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    "batch": lambda: nn.BatchNorm1d(4),
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations_keep_precision_and_statistics(name: str, dtype: torch.dtype, autocast: bool) -> None:
    x = (5 + 3 * normal(3, 4, 5)).to(dtype)
    found = []
    for changed in (lambda f: f, with_right_derivatives):
        layer = NORMALISATIONS[name]().to(torch.float32 if autocast else dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = changed(layer)(x)
        found.append((y, *layer.buffers()))
    for expected, result in zip(*found, strict=True):
        torch.testing.assert_close(result, expected, rtol=2 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_empty_batches_are_normalised() -> None:
    assert with_right_derivatives(nn.LayerNorm(4))(torch.zeros(0, 3, 4)).shape == (0, 3, 4)


def test_an_operation_without_a_replacement_is_refused() -> None:
    def field(x: Tensor, t: Tensor) -> Tensor:
        return x * torch.scatter_reduce(x.new_ones(2), 0, torch.tensor([0, 1, 0, 1]), x, "prod")[0]

    with pytest.raises(ValueError, match=r"divergence: the field uses scatter_reduce with products.*; multiply"):
        rfm.divergence(field, Euclidean(N), normal(N), torch.tensor(0.3, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_layers_are_refused() -> None:
    m = Euclidean(N)
    source = rfm.sources.WrappedNormal(m, torch.zeros(N), 1.0)

    class Scripted(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = torch.jit.trace(layer, torch.ones(2, N))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.layer(x)

    with pytest.raises(ValueError, match=r"layer is compiled by TorchScript and uses layer_norm, .*; pass the module"):
        negative_log_likelihood_loss(Scripted(nn.LayerNorm(N)), source, torch.ones(2, N))
    assert negative_log_likelihood_loss(Scripted(nn.Linear(N, N)), source, torch.ones(2, N)).isfinite()


# Networks.


class Normalised(nn.Module):
    """A user's network on the sphere, with layer normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = torch.cat([x, t.expand(x.shape[:-1])[..., None]], -1)
        return Sphere(2).proju(x, self.last(torch.tanh(self.norm(self.first(h)))))


class Transformer(nn.Module):
    """A user's network on the sphere that takes each point for three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 1)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.layer(self.first(x[..., None] + t.expand(x.shape[:-1])[..., None, None]))
        return Sphere(2).proju(x, self.last(h)[..., 0])


@pytest.mark.parametrize("probes", [None, 2])
@pytest.mark.parametrize("adjoint", [False, True], ids=["backpropagation", "adjoint"])
@pytest.mark.parametrize("network", [Normalised, Transformer])
def test_gradients_of_the_likelihood(network: Callable[[], nn.Module], adjoint: bool, probes: int | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = network().double()
    m = Sphere(2)
    x = points(m, 3)

    def loss() -> Tensor:
        estimator = None if probes is None else Hutchinson(probes, torch.Generator().manual_seed(0))
        method = FixedStep(RK4, 12 if adjoint else 3)
        return negative_log_likelihood_loss(field, Uniform(m), x, method, adjoint=adjoint, estimator=estimator)

    with sdpa_kernel(SDPBackend.MATH):
        found = torch.autograd.grad(loss(), list(field.parameters()), materialize_grads=True, allow_unused=True)
        directions = [normal(*p.shape, seed=i) for i, p in enumerate(field.parameters())]
        kept = [p.detach().clone() for p in field.parameters()]

        def along(s: Tensor) -> Tensor:
            for p, start, direction in zip(field.parameters(), kept, directions, strict=True):
                p.copy_(start + s * direction)
            return loss()

        zero = torch.zeros((), dtype=torch.float64)
        expected = slope(torch.no_grad()(along), zero, zero + 0.1)
    assert abs(expected) > 1e-4
    derivative = 0.1 * sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    assert derivative == pytest.approx(expected, rel=1e-3 if adjoint else 1e-6)
