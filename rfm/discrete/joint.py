"""Labels and a point of a manifold, drawn together, for any number of labels: atoms with their places and cell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from manifolds.arguments import check_function, check_instance, integer
from rfm.couplings import Coupling, Independent
from rfm.couplings.coupling import checked_pairs
from rfm.discrete.cross_entropy import jumped, label_loss, probabilities, spread_times
from rfm.discrete.mixture_path import MixturePath
from rfm.discrete.saved_flow import LabelFlow, read_parts, write_parts
from rfm.integrators import GEODESIC_EULER, FixedStep, Method, integrate
from rfm.objectives import flow_matching_loss
from rfm.paths import GeodesicPath
from rfm.sources import Source

_FORMAT = "rfm joint flow"
_EULER = FixedStep(GEODESIC_EULER, 1)


class Labelled(NamedTuple):
    """Labels and the points that belong to them, a batch of one length."""

    labels: Tensor
    """``(n, length)``."""
    x: Tensor
    """``(n, *event_shape)``, on the manifold of that length."""


class JointNetwork(Protocol):
    """What a joint flow follows: one network for every length."""

    def __call__(self, labels: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the data's labels ``(n, length, classes)``, and the points' velocity, tangent at ``x``.

        Args:
            labels: on the way ``(n, length)``.
            x: points on the way ``(n, *event_shape)``.
            t: times ``(n,)``.
        """
        ...


class JointLosses(NamedTuple):
    """The two losses of a joint flow."""

    velocity: Tensor
    """Of flow matching, per dimension of the manifold."""
    labels: Tensor
    """The cross-entropy of the posterior, in nats per label."""


class JointFlow(LabelFlow):
    """A distribution of labels together with a point, whose manifold depends on how many labels there are.

    Labels follow a `MixturePath`, the point a geodesic, at one time and independently of each other given the data; one
    network sees both on the way, and gives the posterior of the labels and the velocity of the point. So the marginals
    at all times are those of the joint path, and in the limit of many steps draws have the law of the data, if the
    network is exact.

    Args:
        network: see `JointNetwork`.
        path: of the labels.
        sources: of the points at time 0, one for each length, on the manifold of that length.
        lengths: numbers of labels, as many as sources.
        shares: how frequent each length is; equal by default.

    References:
        Campbell, Yim, Barzilay, Rainforth, Jaakkola, Generative Flows on Discrete State-Spaces: Enabling Multimodal
        Flows with Applications to Protein Co-Design, 2024, arXiv:2402.04997, section 4 (there on SE(3)^n). Miller et
        al., FlowMM: Generating Materials with Riemannian Flow Matching, 2024, arXiv:2406.04713 (crystals; there with
        types as bits).
    """

    def __init__(
        self,
        network: JointNetwork,
        path: MixturePath,
        sources: Sequence[Source],
        lengths: Sequence[int],
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_function("JointFlow", "network", network, "a module of labels, points and times")
        check_instance("JointFlow", "path", path, MixturePath, "MixturePath(MaskedLabels(4))")
        lengths = [integer("JointFlow", "a length", k) for k in lengths]
        shares = [1 / len(lengths)] * len(lengths) if shares is None else [float(p) for p in shares]
        if not len(sources) == len(lengths) == len(set(lengths)) == len(shares) > 0 or not min(shares) >= 0:
            raise ValueError(
                f"JointFlow: needs one source and one share, not negative, for each of different lengths, got "
                f"{len(sources)} sources and {len(shares)} shares for lengths {lengths}; give as many of each"
            )
        self.posterior_and_velocity = network
        self.path = path
        self.sources = nn.ModuleList(sources)
        self.lengths, self.shares = lengths, shares

    @property
    def network(self) -> nn.Module:
        """The network as a module: what training changes."""
        assert isinstance(self.posterior_and_velocity, nn.Module), "a network in training is a module"
        return self.posterior_and_velocity

    def source(self, length: int) -> Source:
        """Return the source of the points that belong to so many labels."""
        if length not in self.lengths:
            raise ValueError(f"JointFlow: there is no source for {length} labels; it has lengths {self.lengths}")
        source = self.sources[self.lengths.index(length)]
        assert isinstance(source, Source)
        return source

    def losses(
        self,
        data: Labelled,
        t: Tensor | None = None,
        generator: torch.Generator | None = None,
        network: JointNetwork | None = None,
        coupling: Coupling = Independent(),
    ) -> JointLosses:
        """Return the losses of a batch of one length; both are least at the exact posterior and velocity.

        Args:
            data: labels and points.
            t: times ``(n,)``; uniform by default, one in each of n equal parts.
            generator: source of randomness.
            network: another one than the flow's own, such as that of averaged weights.
            coupling: which source point goes with which datum, or how it is laid to it, such as in which order its
                parts are; the data stay where they are.
        """
        labels, x_1 = data
        source, n = self.source(labels.shape[1]), len(labels)
        chosen = self.posterior_and_velocity if network is None else network
        t = spread_times(n, generator, labels.device) if t is None else t
        x_0 = source.sample((n,), generator=generator, dtype=x_1.dtype, device=x_1.device)
        x_0 = checked_pairs(coupling, coupling(x_0, x_1, generator=generator), x_1, None).x_0
        on_the_way = self.path.sample(labels, t, generator)
        found: list[Tensor] = []

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            logits, u = chosen(on_the_way, x, t)
            found.append(logits)
            return u

        matching = flow_matching_loss(velocity, GeodesicPath(source.manifold), x_0, x_1, t)
        cross_entropy = label_loss(found[0], on_the_way, labels, self.path.source)
        return JointLosses(matching / source.manifold.dim, cross_entropy)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        *,
        steps: int = 100,
        method: Method = _EULER,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> list[Labelled]:
        """Return draws, one batch for each length that was drawn, in the order of ``lengths``.

        Args:
            count: how many, of all lengths together.
            steps: of equal length in time: in each the labels stay as they were at its start, the point moves, and then
                labels jump.
            method: how the point moves within a step.
            generator: source of randomness, on ``device``.
            device: of the network.
        """
        count = integer("JointFlow.sample", "count", count)
        p = torch.tensor(self.shares, dtype=torch.float64, device=device)
        drawn = torch.multinomial(p, count, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(self.lengths)).tolist()
        own: dict[str, Any] = {"steps": steps, "method": method, "generator": generator, "device": device}
        return [self.sample_length(k, n, **own) for k, n in zip(self.lengths, counts, strict=True) if n]

    @torch.no_grad()
    def sample_length(
        self,
        length: int,
        count: int,
        *,
        steps: int = 100,
        method: Method = _EULER,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Labelled:
        """Return draws of one length; arguments as for `sample`."""
        source, network = self.source(length), self.posterior_and_velocity
        x = source.sample((count,), generator=generator, dtype=torch.get_default_dtype(), device=device)
        labels = self.path.source.sample((count, length), generator, device)
        steps = integer("JointFlow.sample", "steps", steps)
        for i, (t, jump) in enumerate(self.path.jumps(steps)):
            time = torch.full((count,), t, dtype=x.dtype, device=x.device)
            q = probabilities(network(labels, x, time)[0], labels, self.path.source)

            def velocity(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
                return network(labels, x, t)[1]

            x = integrate(velocity, source.manifold, x, (t, (i + 1) / steps), method, labels=labels).final
            labels = jumped(labels, q, jump, generator)
        return Labelled(labels, x)

    def save(self, folder: str | Path) -> None:
        """Save to a folder: ``flow.json`` and the tensors it names, which is replaced last, in one step."""
        parts = {"path": self.path, "sources": self.sources, "lengths": self.lengths, "shares": self.shares}
        write_parts(Path(folder), _FORMAT, {"network": self.posterior_and_velocity, **parts}, self)

    @classmethod
    def load(
        cls, folder: str | Path, *, network: JointNetwork | None = None, sources: Sequence[Source] | None = None
    ) -> "JointFlow":
        """Load a saved flow, in evaluation mode.

        Args:
            folder: where `save` put it.
            network: needed, unless it is one of this library's.
            sources: needed if they or their manifolds are your own.

        Raises:
            SavedFlowError: if the folder is not a saved flow, is damaged, or needs an object passed in.
        """
        parts = {"network": network, "path": None, "sources": sources, "lengths": None, "shares": None}
        return read_parts(Path(folder), _FORMAT, cls, parts)
