import torch

import rfm
from manifolds import (
    SE3,
    SO3,
    Antipodal,
    Euclidean,
    FlatTorus,
    Octahedral,
    Power,
    Product,
    Quotient,
    RightMultiplication,
    Sphere,
)

# --8<-- [start:product]
# A place on the earth and a time of day: one radian on the sphere counts as much as one radian of the clock.
place_and_time = Product(Sphere(2), FlatTorus(1))
place = torch.tensor([1.0, 0.0, 0.0])
six_in_the_morning = torch.tensor([torch.pi / 2])
x = place_and_time.join(place, six_in_the_morning)  # shape (4,)
place, time = place_and_time.split(x)
# --8<-- [end:product]

# --8<-- [start:power]
backbone = Power(SE3(length=10.0), 128)  # 128 poses; 10 units of length count as much as a radian
# --8<-- [end:power]

# --8<-- [start:quotient]
axes = Quotient(Sphere(2), Antipodal(2))  # directions without a sign
crystals = Quotient(SO3(), RightMultiplication(Octahedral()))  # orientations of cubic crystals
# --8<-- [end:quotient]

# --8<-- [start:source]
pose = SE3(length=10.0)
source = rfm.sources.RigidMotionSource(pose, rfm.sources.Uniform(SO3()), translation_scale=10.0)
# --8<-- [end:source]

assert source.sample((5,)).shape == (5, 4, 4)
assert x.shape == place_and_time.event_shape
assert backbone.event_shape == (128, 4, 4)
assert axes.dist(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, -1.0])) == 0
assert crystals.volume == SO3().volume
assert Euclidean(3).volume is None
