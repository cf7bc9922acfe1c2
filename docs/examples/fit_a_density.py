import numpy as np
import torch

import rfm
from manifolds import Sphere
from rfm.networks import VelocityField

# --8<-- [start:table]
numbers = np.random.default_rng(0)
latitude = np.concatenate([36 + 3 * numbers.standard_normal(200), -20 + 5 * numbers.standard_normal(200)])
longitude = np.concatenate([140 + 3 * numbers.standard_normal(200), -70 + 2 * numbers.standard_normal(200)])
rfm.datasets.write_table("quakes.csv", ["latitude", "longitude"], np.column_stack([latitude, longitude]))
# --8<-- [end:table]

# --8<-- [start:read]
sphere = Sphere(2)
table = rfm.datasets.read_table("quakes.csv")
coordinates = rfm.datasets.choose_coordinates(sphere, table)
points = coordinates.points(table)  # (n, 3), unit vectors
# --8<-- [end:read]

# --8<-- [start:split]
split = rfm.datasets.group_split(points, seed=0)
train_and_validation = torch.cat([split.train, split.validation])
held = torch.arange(len(split.train), len(train_and_validation))
# --8<-- [end:split]

# --8<-- [start:fit]
# A small network and few steps, to be done in seconds: leave out field= and steps= for a real fit.
field = VelocityField(sphere, width=64, depth=2, features=64, max_frequency=16.0)
flow = rfm.fit(points[train_and_validation], sphere, validation=held, field=field, steps=200, progress=False)
print(flow.stopped)
print(flow.history[-1])  # step, loss, validation_nll in nats, seconds
# --8<-- [end:fit]

# --8<-- [start:judge]
test = points[split.test]
kernel = rfm.sources.KernelMixture.mixture(sphere, points[split.train], points[split.validation])
scores = {"uniform": flow.source.log_prob(test), "kernel mixture": kernel.log_prob(test), "flow": flow.log_prob(test)}
for name, log_prob in scores.items():
    nll = rfm.metrics.negative_log_likelihood(log_prob, groups=test)
    print(f"{name:15} test NLL {nll.mean:.3f} +- {nll.standard_error:.3f} nats")
gain = rfm.metrics.paired_difference(scores["flow"].double(), scores["kernel mixture"], groups=test)
print(f"flow over kernel, nats per point: {gain.mean:.3f}, 95 % interval {gain.interval_95}")
# --8<-- [end:judge]

# --8<-- [start:use]
generator = torch.Generator().manual_seed(0)
samples, log_prob = flow.sample(200, generator=generator, return_log_prob=True)
columns = coordinates.score_columns(log_prob)  # nats per steradian, and per square kilometre
values = np.column_stack([coordinates.columns_of(samples), *columns.values()])
rfm.datasets.write_table("samples.csv", [*coordinates.names, *columns], values)
# --8<-- [end:use]

# --8<-- [start:plot]
figure = rfm.plotting.plot_flow(flow, points, samples, evaluations=500)
rfm.plotting.save_figure(figure, "map.png")
# --8<-- [end:plot]

# --8<-- [start:save]
flow.save("quakes")
same = rfm.Flow.load("quakes")
# --8<-- [end:save]
assert torch.equal(same.log_prob(test), flow.log_prob(test))
