"""Normalising flows of zuko as sources: the ancestors of flow matching, to be compared with it or to start from."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import integer, seed_of, shown
from manifolds.numerics.constants import Constants
from rfm.arrays import points_of, tensor_of
from rfm.baselines.charts import chart_of
from rfm.records.packages import optional_package
from rfm.sources.base import Source, draws

BATCH = 512
RATE = 1e-3
VALIDATE_EVERY, PATIENCE = 100, 10
"""Steps between validations, and how many of them without a gain end the fit."""
_INITIAL = 0.1
"""Share of zuko's initial last layers that is left: maps start near the identity."""
_VALIDATED = 4096
"""Points at most that a validation scores."""


def _nice(zuko: Any, dim: int, **settings: Any) -> nn.Module:
    # The class of that name in zuko is RealNVP unless its coupling is told to add alone; then volumes are kept, and a
    # last scaling of each coordinate belongs to the method (section 3.3).
    couplings = zuko.flows.NICE(dim, univariate=zuko.transforms.AdditiveTransform, shapes=[()], **settings)
    zeros = torch.zeros(dim)
    scaling = zuko.flows.UnconditionalTransform(zuko.transforms.MonotonicAffineTransform, zeros, zeros.clone())
    return zuko.flows.Flow([*couplings.transform.transforms, scaling], couplings.base)


def _named(name: str, zuko: Any, dim: int, **settings: Any) -> nn.Module:
    return getattr(zuko.flows, name)(dim, **settings)


FLAT: dict[str, Callable[..., nn.Module]] = {
    "nice": _nice,
    "realnvp": functools.partial(_named, "RealNVP"),
    "maf": functools.partial(_named, "MAF"),
    "spline": functools.partial(_named, "NSF"),
}
"""Flows of vectors of any numbers, from the simplest."""

CIRCULAR: dict[str, Callable[..., nn.Module]] = {"circular-spline": functools.partial(_named, "NCSF")}
"""Flows of vectors of angles."""


class NormalizingFlow(Source, Constants):
    """A normalising flow in coordinates of a manifold, as a distribution on the manifold.

    Invertible maps of a simple distribution, with an explicit determinant, of zuko (extra: ``baselines``). Being a
    `Source` it can be drawn from, scored, plotted, be the start of a flow, and stand beside one in ``rfm evaluate``.

    ==================== ==================================================== =======================================
    ``kind``             maps                                                 coordinates
    ==================== ==================================================== =======================================
    ``nice``             coupling, additive                                   Euclidean space
    ``realnvp``          coupling, affine                                     Euclidean space
    ``maf``              masked autoregressive, affine                        Euclidean space
    ``spline``           masked autoregressive, rational-quadratic splines    Euclidean space
    ``circular-spline``  the same on circles                                  torus, and the charts of ``Sphere(2)``,
                                                                              by longitude and height, and ``SO3()``,
                                                                              by Euler angles
    ==================== ==================================================== =======================================

    On the sphere and on rotations the density is torn at the poles of the coordinates, see `rfm.baselines.charts`.
    Log-densities are computed in the precision of the network, float32.

    Args:
        manifold: where it lives.
        kind: one of the table.
        location: of flat coordinates, ``event_shape``; that of the points it is fitted to. 0 by default.
        scale: of flat coordinates, likewise. 1 by default.
        transforms: number of maps.
        hidden_features: widths of their networks.
        seed: of the networks' weights.

    Raises:
        ValueError: the manifold has no chart, or the kind is none of its coordinates.
        MissingPackageError: zuko is not installed.

    References:
        Dinh et al., NICE, 2014, arXiv:1410.8516; Density estimation using Real NVP, 2016, arXiv:1605.08803.
        Papamakarios et al., Masked Autoregressive Flow, 2017, arXiv:1705.07057.
        Durkan et al., Neural Spline Flows, 2019, arXiv:1906.04032.
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020, arXiv:2002.02428.
    """

    location: Tensor
    scale: Tensor

    def __init__(
        self,
        manifold: Manifold,
        kind: str,
        location: Tensor | None = None,
        scale: Tensor | None = None,
        transforms: int = 3,
        hidden_features: Sequence[int] = (64, 64),
        seed: int = 0,
    ) -> None:
        super().__init__(manifold)
        shape = tuple(manifold.event_shape)
        owner = "NormalizingFlow"
        location = torch.zeros(shape) if location is None else location
        scale = torch.ones(shape) if scale is None else scale
        self.constant("location", tensor_of(owner, "location", location, torch.float64))
        self.constant("scale", tensor_of(owner, "scale", scale, torch.float64))
        self.kind, self.hidden_features = kind, tuple(hidden_features)
        self.transforms = integer("NormalizingFlow", "transforms", transforms)
        self.seed = seed_of("NormalizingFlow", seed)
        kinds = CIRCULAR if self.chart.circular else FLAT
        if kind not in kinds:
            raise ValueError(
                f"NormalizingFlow: kind must be one of {', '.join(kinds)} on {manifold}, got {shown(kind)}; leave it "
                "out for splines"
            )
        if manifold.dim == 1 and kind in ("nice", "realnvp"):
            raise ValueError(
                f"NormalizingFlow: couplings change a part of the coordinates by the rest, and {manifold} has one "
                "coordinate; choose maf or spline"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            zuko = optional_package("zuko", "baselines", "a normalising flow")
            settings: dict[str, Any] = {"transforms": self.transforms, "hidden_features": self.hidden_features}
            self.flow = kinds[kind](zuko, manifold.dim, **settings)
        _nearly_the_identity(self.flow)
        self.flow.requires_grad_(False)
        self.history: list[dict[str, float]] = []
        """One record per validation of the fit: step, loss and validation_nll in nats."""

    @property
    def chart(self) -> Any:
        """The coordinates, a `rfm.baselines.charts.Chart`."""
        return chart_of(self.manifold, self.location, self.scale)

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        weight = next(self.flow.parameters())
        size = (*shape, self.manifold.dim)
        options: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
        if self.chart.circular:
            base = torch.pi * (2 * torch.rand(size, generator=generator, **options) - 1)
        else:
            base = torch.randn(size, generator=generator, **options)
        with torch.no_grad():
            v = self.flow().transform.inv(base)
        points = self.chart.point(v.to(dtype or torch.get_default_dtype()))
        return points if device is None else points.to(device)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("NormalizingFlow", self.manifold, x)
        weight = next(self.flow.parameters())
        # In float64 before they are rounded: a chart takes differences.
        v = self.chart.coordinates(x.double()).to(weight)
        return self.flow().log_prob(v).to(x) + self.chart.log_scale

    @classmethod
    def fit(
        cls,
        manifold: Manifold,
        train: Tensor,
        validation: Tensor,
        *,
        kind: str | None = None,
        steps: int = 3000,
        sample_weights: Tensor | None = None,
        validation_weights: Tensor | None = None,
        seed: int = 0,
        transforms: int = 3,
        hidden_features: Sequence[int] = (64, 64),
    ) -> Self:
        """Return the flow under which the training points are likeliest, as far as the validation points agree.

        Adam takes steps of 512 points; of the parameters those are kept that validate best, and ten validations, of a
        hundred steps each, without a gain end the fit.

        Args:
            manifold: where the points live.
            train: points ``(n, *event_shape)``.
            validation: points ``(m, *event_shape)``.
            kind: as for the constructor; ``spline`` or ``circular-spline`` by default.
            steps: at most.
            sample_weights: of the training points ``(n,)``, not negative; equal by default.
            validation_weights: of the validation points, likewise.
            seed: of the weights and of the batches.
            transforms: as for the constructor.
            hidden_features: likewise.
        """
        owner = "NormalizingFlow.fit"
        train = points_of(owner, manifold, train, torch.float64).detach()
        validation = points_of(owner, manifold, validation, torch.float64).detach()[:_VALIDATED]
        if not len(validation) or len(train) < 2:
            raise ValueError(
                f"{owner}: two points to train on and one to validate are needed, got {len(train)} and "
                f"{len(validation)}; hold out a tenth"
            )
        spread = train.std(0)
        flat = {"location": train.mean(0), "scale": torch.where(spread > 0, spread, torch.ones_like(spread))}
        circular = chart_of(manifold, **flat).circular
        source = cls(
            manifold,
            kind or ("circular-spline" if circular else "spline"),
            transforms=transforms,
            hidden_features=hidden_features,
            seed=seed,
            **({} if circular else flat),
        )
        source._train(train, validation, integer(owner, "steps", steps), sample_weights, validation_weights)
        return source

    def _train(
        self, train: Tensor, validation: Tensor, steps: int, weights: Tensor | None, validation_weights: Tensor | None
    ) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.flow.requires_grad_(True)
        optimiser = torch.optim.Adam(self.flow.parameters(), lr=RATE)
        shares = torch.ones(len(validation)) if validation_weights is None else validation_weights[: len(validation)]
        best, state, stale = torch.inf, dict[str, Tensor](), 0
        for step in range(1, steps + 1):
            if weights is None:
                rows = torch.randint(len(train), (BATCH,), generator=generator)
            else:
                rows = torch.multinomial(weights.double(), BATCH, replacement=True, generator=generator)
            loss = -self.log_prob(train[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % VALIDATE_EVERY and step < steps:
                continue
            with torch.no_grad():
                nll = -self.log_prob(validation)
            value = float((nll * shares.to(nll)).sum() / shares.sum())
            self.history.append({"step": step, "loss": float(loss.detach()), "validation_nll": value})
            stale += 1
            if value < best:
                best, stale = value, 0
                state = {name: tensor.clone() for name, tensor in self.flow.state_dict().items()}
            if stale == PATIENCE:
                break
        self.flow.load_state_dict(state)
        self.flow.requires_grad_(False)

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"


def _nearly_the_identity(flow: nn.Module) -> None:
    """Bring a flow's maps near the identity: from where zuko starts them, a thousand steps may only lead there."""
    last = [part[-1] for part in flow.modules() if isinstance(part, nn.Sequential)]
    # Of a map that depends on no other coordinate zuko keeps the parameters themselves.
    free = [part for part in flow.modules() if isinstance(part, nn.ParameterList)]
    with torch.no_grad():
        for part in (*last, *free):
            for parameter in part.parameters():
                parameter.mul_(_INITIAL)
