import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from manifolds import rotations as r

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

DTYPES = (torch.float32, torch.float64)
ANGLES = [0.0, 1e-8, 1e-6, 1e-4, 1e-2, 0.3, 1.0, 2.0, *(math.pi - 10.0**-k for k in range(1, 9, 2)), math.pi]
AXES = [a + b + c for a, b, c in itertools.product("xyz", repeat=3) if a != b and b != c]
FRAMES = ("intrinsic", "extrinsic")


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_matrices(n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return r.matrix_from_wxyz(randn(n, 4, dtype=dtype, seed=seed))


def rotvecs(angle: float, dtype: torch.dtype, n: int = 100) -> Tensor:
    v = torch.cat([randn(n, 3), torch.eye(3).double(), -torch.eye(3).double(), torch.tensor([[1.0, -1, 0], [0, 1, 1]])])
    return (angle * v / v.norm(dim=-1, keepdim=True)).to(dtype)


def close(a: Tensor, b: Tensor, units: float = 32) -> None:
    tol = units * torch.finfo(a.dtype).eps / 2
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


# Every form, at every angle.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("angle", ANGLES)
def test_forms_agree_at_every_angle(angle: float, dtype: torch.dtype) -> None:
    omega = rotvecs(angle, dtype)
    x = r.matrix_from_rotvec(omega)
    close(x.mT @ x, torch.eye(3, dtype=dtype).expand_as(x))
    close(torch.linalg.det(x), torch.ones(len(x), dtype=dtype))
    wxyz, xyzw = r.wxyz_from_matrix(x), r.xyzw_from_matrix(x)
    close(r.xyzw_from_wxyz(wxyz), xyzw)
    close(r.wxyz_from_xyzw(xyzw), wxyz)
    assert bool((wxyz[:, 0] >= 0).all())
    back = r.rotvec_from_matrix(x)
    axis, turn = r.axis_angle_from_matrix(x)
    close(axis.norm(dim=-1), torch.ones(len(x), dtype=dtype))
    assert bool((turn <= math.pi * (1 + 1e-6)).all())
    close(turn, back.norm(dim=-1))
    for y in (
        r.matrix_from_wxyz(wxyz),
        r.matrix_from_xyzw(-3 * xyzw),
        r.matrix_from_rotvec(back),
        r.matrix_from_wxyz(r.wxyz_from_rotvec(omega)),
        r.matrix_from_rotvec(r.rotvec_from_wxyz(-2 * wxyz)),
        r.matrix_from_axis_angle(2 * axis, turn),
        r.matrix_from_6d(r.sixd_from_matrix(x, "columns"), "columns"),
        r.matrix_from_6d(r.sixd_from_matrix(x, "rows"), "rows"),
    ):
        assert y.dtype == dtype
        close(y, x)
    if math.pi - angle > 1e-5:
        assert float((back - omega).norm(dim=-1).max()) <= 16 * torch.finfo(dtype).eps * max(1, angle)
    if angle < 1e-3:
        # Relative accuracy at tiny angles.
        torch.testing.assert_close(r.rotvec_from_wxyz(r.wxyz_from_rotvec(omega)), omega, atol=0, rtol=1e-6)
        torch.testing.assert_close(back, omega, atol=0, rtol=1e-6)


def test_values_are_scipys() -> None:
    x = random_matrices(500)
    s = Rotation.from_matrix(x.numpy())
    quaternion = torch.from_numpy(np.ascontiguousarray(s.as_quat()))
    quaternion = quaternion * torch.where(quaternion[:, 3:] < 0, -1.0, 1.0)
    close(r.xyzw_from_matrix(x), quaternion)
    close(r.rotvec_from_matrix(x), torch.from_numpy(s.as_rotvec()), 64)
    close(r.matrix_from_rotvec(randn(50, 3)), torch.from_numpy(Rotation.from_rotvec(randn(50, 3).numpy()).as_matrix()))
    v = randn(500, 3)
    close((x @ v[..., None])[..., 0], torch.from_numpy(s.apply(v.numpy())))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotvec_has_a_fifty_digit_reference(dtype: torch.dtype) -> None:
    for angle in ANGLES[1:-1]:
        for x in r.matrix_from_rotvec(rotvecs(angle, dtype, 4)[:4]):
            with mpmath.workdps(50):
                e = mpmath.matrix(x.double().tolist())
                for _ in range(4):
                    e = e * (3 * mpmath.eye(3) - e.T * e) / 2
                w = mpmath.matrix([e[2, 1] - e[1, 2], e[0, 2] - e[2, 0], e[1, 0] - e[0, 1]]) / 2
                sine = mpmath.norm(w)
                true = mpmath.atan2(sine, (e[0, 0] + e[1, 1] + e[2, 2] - 1) / 2)
                w = w * (true / sine) if sine else w
                got = mpmath.matrix(r.rotvec_from_matrix(x).double().tolist())
                error = mpmath.norm(got - w)
                if math.pi - true < 16 * torch.finfo(dtype).eps:
                    error = min(error, mpmath.norm(got + w))
                assert error <= 8 * torch.finfo(dtype).eps * math.pi / 2 * max(1, angle)


def test_conventions_by_hand() -> None:
    quarter = math.pi / 2
    about_z = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    close(r.matrix_from_rotvec(torch.tensor([0, 0, quarter])), about_z)
    close(r.matrix_from_wxyz(torch.tensor([1.0, 0, 0, 1])), about_z)
    close(r.matrix_from_xyzw(torch.tensor([0.0, 0, 1, 1])), about_z)
    close(r.matrix_from_axis_angle(torch.tensor([0, 0, 2.0]), torch.tensor(quarter)), about_z)
    close(r.matrix_from_euler(torch.tensor([0, 0, quarter]), "xyz", "intrinsic"), about_z)
    close(r.sixd_from_matrix(about_z, "columns"), torch.tensor([0.0, 1, 0, -1, 0, 0]))
    close(r.sixd_from_matrix(about_z, "rows"), torch.tensor([0.0, -1, 0, 1, 0, 0]))
    close(r.rotvec_from_matrix(torch.diag(torch.tensor([-1.0, 1, -1]))), torch.tensor([0, math.pi, 0]))
    axis, angle = r.axis_angle_from_matrix(torch.eye(3))
    close(axis, torch.tensor([1.0, 0, 0]))
    assert float(angle) == 0
    v, w = randn(5, 3), randn(5, 3, seed=1)
    close((r.hat(v) @ w[..., None])[..., 0], torch.linalg.cross(v, w))
    close(r.vee(r.hat(v)), v)


def test_6d_is_gram_schmidt() -> None:
    d = randn(20, 6)
    x = r.matrix_from_6d(d, "columns")
    close(x[:, :, 0], d[:, :3] / d[:, :3].norm(dim=-1, keepdim=True))
    close((x[:, :, 2] * d[:, 3:]).sum(-1), torch.zeros(20, dtype=torch.float64))
    assert bool(((x[:, :, 1] * d[:, 3:]).sum(-1) > 0).all())
    close(torch.linalg.det(x), torch.ones(20, dtype=torch.float64))
    close(r.matrix_from_6d(d, "rows"), x.mT)


# Euler angles.


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("axes", AXES)
def test_euler_angles_are_scipys_and_invert(axes: str, frame: str) -> None:
    a = 6 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 3
    name = axes.upper() if frame == "intrinsic" else axes
    s = Rotation.from_euler(name, a.numpy())
    x = r.matrix_from_euler(a, axes, frame)
    close(x, torch.from_numpy(s.as_matrix()))
    e = r.euler_from_matrix(x, axes, frame)
    torch.testing.assert_close(e, torch.from_numpy(s.as_euler(name)), rtol=0, atol=1e-12)
    close(r.matrix_from_euler(e, axes, frame), x)
    assert bool((e >= -math.pi).all())
    assert bool((e[:, [0, 2]] < math.pi).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("axes", AXES)
def test_gimbal_lock(axes: str, frame: str, dtype: torch.dtype) -> None:
    ends = (0.0, math.pi) if axes[0] == axes[2] else (-math.pi / 2, math.pi / 2)
    for end, off in itertools.product(ends, (0.0, 1e-7, 1e-3)):
        a = 3 * randn(30, 3, dtype=dtype)
        a[:, 1] = end + off
        x = r.matrix_from_euler(a, axes, frame)
        e = r.euler_from_matrix(x, axes, frame)
        close(r.matrix_from_euler(e, axes, frame), x)
        gradient = torch.func.jacrev(lambda x: r.euler_from_matrix(x, axes, frame).sum(0))(x)
        assert bool(gradient.isfinite().all())
    # Exactly locked: the third angle is zero.
    still = r.euler_from_matrix(torch.eye(3, dtype=dtype), axes, frame)
    if axes[0] == axes[2]:
        turned = r.matrix_from_euler(torch.tensor([0.7, 0.0, 0.4], dtype=dtype), axes, frame)
        close(r.euler_from_matrix(turned, axes, frame), torch.tensor([1.1, 0, 0], dtype=dtype))
    close(still, torch.zeros(3, dtype=dtype))


def test_bunge_angles() -> None:
    phi1, big_phi, phi2 = 0.3, 1.1, -0.7
    c, s = math.cos, math.sin
    # Bunge, Texture Analysis in Materials Science, 1982, equation 2.50: from sample to crystal coordinates.
    g = torch.tensor(
        [
            [
                c(phi1) * c(phi2) - s(phi1) * s(phi2) * c(big_phi),
                s(phi1) * c(phi2) + c(phi1) * s(phi2) * c(big_phi),
                s(phi2) * s(big_phi),
            ],
            [
                -c(phi1) * s(phi2) - s(phi1) * c(phi2) * c(big_phi),
                -s(phi1) * s(phi2) + c(phi1) * c(phi2) * c(big_phi),
                c(phi2) * s(big_phi),
            ],
            [s(phi1) * s(big_phi), -c(phi1) * s(big_phi), c(big_phi)],
        ],
        dtype=torch.float64,
    )
    angles = torch.tensor([phi1, big_phi, phi2], dtype=torch.float64)
    close(r.matrix_from_euler(angles, "zxz", "intrinsic"), g.mT)
    close(r.euler_from_matrix(g.mT, "zxz", "intrinsic"), angles)


# Derivatives, transforms, errors.


@pytest.mark.parametrize("angle", ANGLES)
def test_derivatives_are_finite_and_right(angle: float) -> None:
    omega = rotvecs(angle, torch.float64, 3)
    x = r.matrix_from_rotvec(omega)
    for function in (
        r.rotvec_from_matrix,
        r.wxyz_from_matrix,
        r.xyzw_from_matrix,
        lambda x: r.axis_angle_from_matrix(x)[0],
        lambda x: r.axis_angle_from_matrix(x)[1],
        lambda x: r.sixd_from_matrix(x, "rows"),
        lambda x: r.euler_from_matrix(x, "zxz", "intrinsic"),
    ):
        for derivative in (torch.func.jacrev, torch.func.jacfwd):
            assert bool(torch.func.vmap(derivative(function))(x).isfinite().all())
    if angle < math.pi:
        there_and_back = torch.func.vmap(torch.func.jacrev(lambda w: r.rotvec_from_matrix(r.matrix_from_rotvec(w))))
        identity = torch.eye(3, dtype=torch.float64).expand(len(x), 3, 3)
        same_side = (r.rotvec_from_matrix(x) * omega).sum(-1) >= 0
        torch.testing.assert_close(there_and_back(omega)[same_side], identity[same_side], rtol=1e-6, atol=1e-6)
    for function in (r.matrix_from_rotvec, r.wxyz_from_rotvec):
        leaf = omega[:1].clone().requires_grad_()
        assert torch.autograd.gradcheck(function, (leaf,))
        assert torch.autograd.gradgradcheck(function, (leaf,), fast_mode=True)


def test_batches_vmap_and_compile() -> None:
    x = random_matrices(6).reshape(2, 3, 3, 3)
    assert r.euler_from_matrix(x, "xyz", "extrinsic").shape == (2, 3, 3)
    assert r.matrix_from_axis_angle(torch.ones(3), torch.zeros(5)).shape == (5, 3, 3)

    def round_trip(x: Tensor) -> Tensor:
        x = r.matrix_from_rotvec(r.rotvec_from_matrix(x))
        return r.matrix_from_euler(r.euler_from_matrix(x, "zyx", "intrinsic"), "zyx", "intrinsic")

    close(torch.func.vmap(round_trip)(x), x)
    close(torch.compile(round_trip, fullgraph=True, backend="eager")(x), x)


def test_errors_name_the_remedy() -> None:
    a = torch.zeros(3)
    with pytest.raises(ValueError, match="no letter twice in a row"):
        r.matrix_from_euler(a, "xxz", "intrinsic")
    with pytest.raises(ValueError, match="frame: one of 'intrinsic', 'extrinsic'"):
        r.matrix_from_euler(a, "zxz", "body")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vectors: one of"):
        r.matrix_from_6d(torch.zeros(6), "cols")  # type: ignore[arg-type]
