"""The tasks, and the settings of each method on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from experiments.policies.attitude import Attitude
from experiments.policies.passages import FLEET, Passages
from manifolds import Euclidean
from rfm.control import FPO, ClippedSurrogate, Environments, FlowActor, GymnasiumEnvironments, LossRatio, PolicyNetwork
from rfm.sources import Source, Uniform, WrappedNormal

METHODS = ("PPO", "FPO", "FPO++")


@dataclass(frozen=True)
class Task:
    """A task, and how methods are set for it.

    Args:
        name: of the task; for those of gymnasium the name under which it is registered.
        steps: of environments.
        discount: of rewards, for flows.
        ppo: settings of PPO of stable-baselines3.
        environments: side by side, for flows.
        moments: of an iteration of flows.
        make: environments, from their number and a seed; None for those of gymnasium.
        assessed: episodes at the end of training.
        certain: whether policies are assessed without noise.
        fpo: other settings of flows.
        rewards_scaled: whether PPO's rewards are divided by the spread of their discounted sums, as flows' always are.
    """

    name: str
    steps: int
    discount: float
    ppo: dict[str, Any]
    environments: int = 16
    moments: int = 128
    make: Callable[[int, int], Environments] | None = None
    assessed: int = 16
    certain: bool = True
    rewards_scaled: bool = True
    fpo: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name as part of the name of a file."""
        return self.name.lower().replace(" ", "-")

    def environment(self, count: int, seed: int) -> Environments:
        """Return environments side by side."""
        if self.make is not None:
            return self.make(count, seed)
        return GymnasiumEnvironments.of(self.name, count, seed)

    def actor(self, environments: Environments, seed: int) -> FlowActor:
        """Return a new flow policy, with weights that the seed decides."""
        actions, seen = environments.actions, environments.observation_size
        # The initialisers of modules know global randomness only.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PolicyNetwork(actions, seen)
            value = nn.Sequential(*(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 1))
        return FlowActor(network, value, noise(environments), seen)

    def algorithm(self, method: str) -> FPO:
        """Return FPO or FPO++ with the settings of the task."""
        own: dict[str, Any] = {"moments": self.moments, "discount": self.discount, "batch_size": 512}
        if method == "FPO++":
            ratio = LossRatio(per_draw=True)
            own |= {"ratio": ratio, "surrogate": ClippedSurrogate(0.2, asymmetric=True)}
        return FPO(learning_rate=1e-3, **{**own, **self.fpo})


def noise(environments: Environments) -> Source:
    """Return where actions begin: uniformly on compact manifolds, in flat space normally, as wide as the box."""
    actions = environments.actions
    if isinstance(actions, Euclidean):
        return WrappedNormal(actions, torch.zeros(actions.event_shape), 1.0)
    return Uniform(actions)


# Published settings: rl-baselines3-zoo, hyperparams/ppo.yml (2025), for Pendulum-v1, Reacher-v2, Hopper-v4 and
# HalfCheetah-v4. For the tasks of this study there are none; theirs are those of the flows.
_OWN = {
    "n_envs": 64,
    "n_steps": 32,
    "batch_size": 512,
    "n_epochs": 10,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "learning_rate": 1e-3,
}
_WIDE = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": nn.ReLU,
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
TASKS = {
    task.name: task
    for task in (
        Task(
            "Passages",
            150_000,
            0.99,
            _OWN | {"n_envs": 8 * FLEET, "n_steps": 8},
            environments=8 * FLEET,
            moments=8,
            make=Passages,
            assessed=1024,
            certain=False,
        ),
        Task("Attitude", 300_000, 0.99, _OWN, environments=64, moments=32, make=Attitude, assessed=256),
        Task(
            "Pendulum-v1",
            100_000,
            0.9,
            {"n_envs": 4, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "ent_coef": 0.0}
            | {"learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4},
            moments=64,
            assessed=64,
            rewards_scaled=False,
            fpo={"batch_size": 256},
        ),
        Task(
            "Reacher-v5",
            300_000,
            0.9,
            {"n_envs": 1, "batch_size": 32, "n_steps": 512, "gamma": 0.9, "learning_rate": 0.000104019}
            | {"ent_coef": 7.52585e-08, "clip_range": 0.3, "n_epochs": 5, "gae_lambda": 1.0}
            | {"max_grad_norm": 0.9, "vf_coef": 0.950368},
        ),
        Task(
            "Hopper-v5",
            500_000,
            0.99,
            {"n_envs": 1, "batch_size": 32, "n_steps": 512, "gamma": 0.999, "learning_rate": 9.80828e-05}
            | {"ent_coef": 0.00229519, "clip_range": 0.2, "n_epochs": 5, "gae_lambda": 0.99}
            | {"max_grad_norm": 0.7, "vf_coef": 0.835671, "policy_kwargs": _WIDE},
        ),
        Task(
            "HalfCheetah-v5",
            500_000,
            0.98,
            {"n_envs": 1, "batch_size": 64, "n_steps": 512, "gamma": 0.98, "learning_rate": 2.0633e-05}
            | {"ent_coef": 0.000401762, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92}
            | {"max_grad_norm": 0.8, "vf_coef": 0.58096, "policy_kwargs": _WIDE},
        ),
    )
}
