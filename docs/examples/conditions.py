import numpy as np
import torch

import rfm
from manifolds import Sphere
from rfm.conditions import Conditions
from rfm.networks import VelocityField

# --8<-- [start:data]
sphere = Sphere(2)
numbers = np.random.default_rng(0)
place = numbers.integers(0, 2, 150)
centres = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
points = sphere.projx(torch.from_numpy(centres[place] + 0.1 * numbers.standard_normal((150, 3))))
region = np.array(["chile", "japan"], dtype=object)[place]  # texts are labels
region[::10] = None  # not known
named = {"magnitude": numbers.uniform(4, 8, 150), "region": region}
# --8<-- [end:data]
conditions = Conditions.of(named, units={"magnitude": "Mw"})
# A small network and few steps, to be done in seconds.
size = {"width": 64, "depth": 2, "features": 32, "max_frequency": 8.0}
field = VelocityField(sphere, **size, condition_dim=2, condition_labels=conditions.labels)
options = {"conditions": conditions, "field": field, "steps": 40, "progress": False}

# --8<-- [start:condition]
flow = rfm.fit(points, sphere, condition=named, **options)
strong = flow.sample(20, condition={"magnitude": 7.5, "region": "chile"})
chile = flow.base.sample(20, condition={"region": "chile"}, guidance=1.5)
scores = flow.log_prob(points, condition=named)  # each point given its own
without = flow.log_prob(points)
# --8<-- [end:condition]
assert scores.shape == without.shape == (150,)

# --8<-- [start:vectors]
assert flow.conditions is not None
print(flow.conditions.describe())
vector = flow.conditions.encode({"region": "japan"})  # (2,): not known, and the position of the label
print(flow.conditions.decode(vector))  # {'magnitude': [None], 'region': ['japan']}
# --8<-- [end:vectors]
