"""What products of which a point has a part must keep: the maps of the product of that part alone."""

from collections.abc import Callable

import pytest
import torch
from random_fields import tangents
from torch import Tensor

from manifolds import Manifold


def check_maps(
    m: Manifold,
    product: Manifold,
    present: Callable[[Tensor], Tensor],
    starts: tuple[Tensor, Tensor],
    ends: tuple[Tensor, Tensor],
) -> Tensor:
    """Compare every map with that of the product of what is present, and return the end of a geodesic.

    Args:
        m: the manifold.
        product: of the factors that the points have.
        present: from points or vectors of ``m`` to what they have of those.
        starts: five points, of ``m`` and of the product.
        ends: five others.
    """
    (x, a), (y, b) = starts, ends
    u = 0.3 * tangents(m, x)
    v = present(u)
    assert float(u.abs().sum()) == pytest.approx(float(v.abs().sum()))
    torch.testing.assert_close(product.proju(a, v), v, atol=1e-12, rtol=0)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    (x_t, dx_t), (p_t, dp_t) = m.geodesic(x, y, t), product.geodesic(a, b, t)
    for found, expected in (
        (m.expmap(x, u), product.expmap(a, v)),
        (m.logmap(x, y), product.logmap(a, b)),
        (m.transp(x, y, u), product.transp(a, b, v)),
        (x_t, p_t),
        (dx_t, dp_t),
    ):
        torch.testing.assert_close(present(found), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(m.dist(x, y), product.dist(a, b), atol=1e-10, rtol=0)
    torch.testing.assert_close(m.norm(x, u), product.norm(a, v), atol=1e-10, rtol=0)
    torch.testing.assert_close(m.log_det_expmap(x, u), product.log_det_expmap(a, v), atol=1e-10, rtol=0)
    end = m.expmap(x, u)
    m.check_point(end)
    m.check_tangent(x, u)
    return end
