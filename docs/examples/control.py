import math

import torch

import rfm
from manifolds import SE3, Bounded, Euclidean, FlatTorus, JointLimits, Padded, Product
from rfm.control import (
    TEN_STEPS,
    ActionChunks,
    ActionMap,
    FlowPolicy,
    Observations,
    Point,
    RealTimeChunking,
    Words,
    action_network,
    fit_policy,
)

# Twenty demonstrations: a hand circles, left or right round, turning as it goes, and closes its gripper.
generator = torch.Generator().manual_seed(0)
demonstrations, sides = [], []
for k in range(20):
    side = 1.0 if k % 2 else -1.0
    angle = torch.linspace(0, math.pi, 40) * side + 0.05 * torch.randn(1, generator=generator)
    poses = torch.eye(4).repeat(40, 1, 1)
    poses[:, 0, 0], poses[:, 0, 1] = torch.cos(angle), -torch.sin(angle)
    poses[:, 1, 0], poses[:, 1, 1] = torch.sin(angle), torch.cos(angle)
    poses[:, 0, 3], poses[:, 1, 3] = torch.cos(angle), torch.sin(angle)
    demonstrations.append((poses, angle.abs()[:, None] / math.pi))
    sides.append(k % 2)

# --8<-- [start:chunks]
action = Product(SE3(), Euclidean(1))  # a pose of the hand, and how far its gripper is closed
chunks = ActionChunks(action, horizon=8)
windows = torch.cat([chunks.windows(action.join(pose, grip)) for pose, grip in demonstrations])
print(windows.shape)  # (800, 8, 17): the eight actions that follow each moment
# --8<-- [end:chunks]

poses = torch.cat([pose for pose, _ in demonstrations])
task = torch.tensor(sides).repeat_interleave(40)[:, None]
# --8<-- [start:observations]
observations = Observations([Point.of("hand", SE3(), poses), Words("task", vocabulary=2)])
seen = {"hand": poses, "task": task}  # a pose and a word for each of the 800 windows
# --8<-- [end:observations]

groups = torch.arange(20).repeat_interleave(40)
# A small network and few steps, to be done in seconds.
small = action_network(windows, chunks, observations, width=16, depth=1, seen_depth=1, heads=2)
quick = {"network": small, "steps": 30, "batch_size": 32, "progress": False, "training": rfm.Training(validations=2)}
# --8<-- [start:fit]
policy = fit_policy(windows, chunks, observations, seen, groups=groups, execute=4, **quick)
hand = poses[0]
for _ in range(6):
    due = policy.act({"hand": hand, "task": [1]})  # a new chunk is drawn at the first and the fifth
    hand, grip = action.split(due)
# --8<-- [end:fit]
assert hand.shape == (4, 4)

# --8<-- [start:save]
policy.flow.save("runs/hand")
policy = FlowPolicy(rfm.Flow.load("runs/hand"), execute=4)
# --8<-- [end:save]

# --8<-- [start:real_time]
careful = FlowPolicy(policy.flow, execute=4, chunking=RealTimeChunking(delay=2))  # two actions pass while it thinks
warm = FlowPolicy(policy.flow, execute=4, start=0.5)  # begins half-way between noise and the last plan
# --8<-- [end:real_time]
for each in (careful, warm):
    for _ in range(5):
        due = each.act({"hand": poses[:3], "task": task[:3]})
    assert due.shape == (3, 17)

few = {"points": 200, "steps": 10, "batch_size": 16, "progress": False, "training": rfm.Training(validations=1)}
# --8<-- [start:distil]
network = policy.flow.field
vectors = observations.encode(seen)
flow = rfm.distil(policy.flow, field=ActionMap.from_velocity(network), condition=vectors, solver=TEN_STEPS, **few)
fast = FlowPolicy(flow, execute=4, steps=1)  # one evaluation for a chunk
# --8<-- [end:distil]
assert fast.act({"hand": hand, "task": [1]}).shape == (17,)

# --8<-- [start:limits]
low, high = [-2.9, -1.8, -2.9], [2.9, 1.8, 2.9]  # radians
arm = ActionChunks(Bounded(FlatTorus(3), JointLimits(low, high)), horizon=8)
# --8<-- [end:limits]
assert arm.dim == 24

# --8<-- [start:padded]
robots = Padded(SE3(), Euclidean(1), FlatTorus(3))
of_hand = robots.join(poses, torch.zeros(800, 1), None)  # a hand and a gripper
of_arm = robots.join(None, torch.zeros(800, 1), torch.zeros(800, 3))  # a gripper and three joints
mixed = ActionChunks(robots, horizon=8)
both = torch.cat([mixed.windows(of_hand), mixed.windows(of_arm)])
# FlowPolicy(flow, there=(False, True, True)) acts for the arm
# --8<-- [end:padded]
mixed.check_point(both)
