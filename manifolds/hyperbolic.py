"""Hyperbolic space: the hyperboloid and the Poincare ball, isometric pictures of one manifold.

Both documents call R = 1 / sqrt(c) the radius of curvature, and a point's distance from the origin its radius r.
Coordinates, or the metric, grow like e^(r / R) / 2; at r = 10 R a point stored in float32 is only defined to 7e-4 R
across the radius. That is the condition number of the representation, and what the maps below add to it is rounding.

References:
    Nickel, Kiela: Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry, 2018, arXiv:1806.03417,
    section 3 (both models, exp and log). Ungar: Analytic Hyperbolic Geometry, 2005, sections 3 and 10 (addition,
    gyrations). Nagano et al.: A Wrapped Normal Distribution on Hyperbolic Space, 2019, arXiv:1902.02992, appendix A
    (the determinant of exp).

Inside the maps vectors are `manifolds.numerics.Components`, and a choice between two formulas is a product with exactly
0 or 1 or a ``lerp`` with such a weight.
"""

from manifolds.hyperboloid import Hyperboloid
from manifolds.poincare_ball import PoincareBall

__all__ = ["Hyperboloid", "PoincareBall"]
