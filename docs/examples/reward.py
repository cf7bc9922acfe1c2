# --8<-- [start:environments]
import torch

from manifolds import Sphere
from rfm.control import FPO, ClippedSurrogate, Environments, FlowActor, LossRatio, PolicyNetwork, Step
from rfm.sources import Uniform


class Pointing(Environments):
    """Directions, points of a sphere, to point at when they are seen: an episode is one action."""

    def __init__(self, count):
        self.count, self.observation_size, self.actions = count, 3, Sphere(2)
        self.generator = torch.Generator().manual_seed(1)

    def reset(self):
        self.goal = self.actions.random_uniform(self.count, generator=self.generator)
        return self.goal

    def step(self, actions):
        reward, over = -self.actions.dist(actions, self.goal), torch.ones(self.count, dtype=torch.bool)
        final = self.goal
        return Step(self.reset(), reward, over, ~over, final)  # terminated, not truncated


# --8<-- [end:environments]


quick = {"moments": 1, "epochs": 2}
steps = 256
# --8<-- [start:train]
environments = Pointing(128)
torch.manual_seed(0)
value = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
actor = FlowActor(PolicyNetwork(Sphere(2), 3), value, Uniform(Sphere(2)), observation_size=3)
fpo_plus_plus = FPO(ratio=LossRatio(per_draw=True), surrogate=ClippedSurrogate(0.2, asymmetric=True), **quick)
for iteration in fpo_plus_plus.train(actor, environments, steps, torch.Generator().manual_seed(0)):
    print(iteration.steps, sum(iteration.episodes) / len(iteration.episodes))
actions = actor.act(environments.reset())  # (128, 3)
# --8<-- [end:train]
assert actions.shape == (128, 3)
