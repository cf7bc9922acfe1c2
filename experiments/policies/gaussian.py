"""Gaussian policies by PPO of stable-baselines3, in its own terms."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize
from torch import Tensor

from experiments.policies.tasks import Task
from rfm.control import Environments, GymnasiumEnvironments

_BOX = 10.0
"""Of ambient numbers on a curved manifold: beyond what a Gaussian draws, so that cutting off adds no modes to it."""


class Vectors(VecEnv):
    """`rfm.control.Environments` as stable-baselines3 takes them.

    Actions on a curved manifold are the points nearest to ambient numbers.

    Args:
        environments: to be adapted.
    """

    def __init__(self, environments: Environments) -> None:
        self.environments, m = environments, environments.actions
        bound = 1.0 if m.volume is None else _BOX
        seen = gymnasium.spaces.Box(-np.inf, np.inf, (environments.observation_size,), np.float32)
        box = gymnasium.spaces.Box(-bound, bound, tuple(m.event_shape), np.float32)
        super().__init__(environments.count, seen, box)
        self.actions = torch.zeros(environments.count, *m.event_shape)

    def reset(self) -> Any:
        return self.environments.reset().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = self.environments.actions.projx(torch.as_tensor(actions, dtype=torch.float32))

    def step_wait(self) -> Any:
        step = self.environments.step(self.actions)
        done = step.terminated | step.truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in done.nonzero().flatten().tolist():
            cut = bool(step.truncated[i] & ~step.terminated[i])
            infos[i] = {"terminal_observation": step.final_observation[i].numpy(), "TimeLimit.truncated": cut}
        return step.observation.numpy(), step.reward.numpy(), done.numpy(), infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        # Such as render_mode: there is none.
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("Vectors: environments in tensors have no attributes of their own")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("Vectors: environments in tensors have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class _Episodes(BaseCallback):
    """Hands on how many steps were taken, and the returns of episodes that ended, after every rollout."""

    def __init__(self, report: Callable[[int, Sequence[float]], None]) -> None:
        super().__init__()
        self.report, self.found = report, []  # type: ignore[var-annotated]

    def _on_step(self) -> bool:
        self.found += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        self.report(self.num_timesteps, self.found)
        self.found = []


def trained(task: Task, steps: int, seed: int, report: Callable[[int, Sequence[float]], None]) -> Callable[..., Tensor]:
    """Return a policy, from observations ``(n, o)`` to actions, after so many steps of PPO.

    Args:
        task: what to do.
        steps: of environments.
        seed: of every random draw; global random state is changed, as the library does.
        report: called after every rollout.
    """
    settings = dict(task.ppo)
    count = settings.pop("n_envs")
    if task.make is None:
        environments: VecEnv = make_vec_env(task.name, count, seed=seed)
        into_actions: Callable[[Tensor], Tensor] = GymnasiumEnvironments.of(task.name, 1).from_box
    else:
        own = task.make(count, seed)
        environments, into_actions = VecMonitor(Vectors(own)), own.actions.projx
    scaled = VecNormalize(environments, norm_obs=True, norm_reward=task.rewards_scaled, gamma=settings["gamma"])
    model = PPO("MlpPolicy", scaled, seed=seed, device="cpu", **settings)
    model.learn(steps, callback=_Episodes(report))
    scaled.training = False

    def act(observation: Tensor, certain: bool) -> Tensor:
        if model.use_sde and not certain:
            # Its noise is a function of what is seen, which is drawn anew every few steps and not by each call.
            model.policy.reset_noise(len(observation))
        found, _ = model.predict(scaled.normalize_obs(observation.numpy()), deterministic=certain)
        return into_actions(torch.as_tensor(found, dtype=torch.float32))

    return act
