from cylinder import Cylinder
from cylinder_source import UniformTimesNormal
from torch import Tensor

from manifolds import Manifold
from rfm.sources import default_source


@default_source.register(Cylinder)
def _(manifold: Manifold, points: Tensor) -> UniformTimesNormal:
    height = points[..., 2]
    return UniformTimesNormal(manifold, float(height.mean()), 1.5 * float(height.std()))
