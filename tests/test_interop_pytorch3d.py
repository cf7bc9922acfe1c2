"""pytorch3d: rotations, rigid motions and meshes, in and out.

``transforms`` and the compiled part are looked for separately: no current wheel's compiled part loads.
"""

import sys

import pytest
import torch
from torch import Tensor

from manifolds import SE3, SO3
from manifolds.interop.pytorch3d import (
    arrays_from_meshes,
    meshes_from_arrays,
    poses_from_transform3d,
    require_compiled,
    require_transforms,
    transform3d_from_poses,
)
from manifolds.rotations import (
    euler_from_matrix,
    matrix_from_6d,
    matrix_from_euler,
    matrix_from_rotvec,
    matrix_from_wxyz,
    rotvec_from_matrix,
    sixd_from_matrix,
    wxyz_from_matrix,
)

D = torch.float64


def _loads(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


needs_transforms = pytest.mark.skipif(
    not _loads("pytorch3d.transforms"), reason="pytorch3d.transforms is not installed; make install"
)
needs_structures = pytest.mark.skipif(
    not _loads("pytorch3d.structures"), reason="pytorch3d.structures is not installed; make install"
)


def _rotations(n: int = 20) -> Tensor:
    return SO3().random_uniform(n, generator=torch.Generator().manual_seed(0), dtype=D)


def _poses(n: int = 6) -> Tensor:
    x = torch.eye(4, dtype=D).repeat(n, 1, 1)
    x[:, :3, :3] = _rotations(n)
    x[:, :3, 3] = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=D)
    return x


@needs_transforms
def test_rotations_mean_the_same() -> None:
    t, x = require_transforms(), _rotations()
    for theirs, ours in (
        (t.matrix_to_quaternion(x), wxyz_from_matrix(x)),
        (t.quaternion_to_matrix(wxyz_from_matrix(x)), x),
        (t.axis_angle_to_matrix(rotvec_from_matrix(x)), x),
        (matrix_from_rotvec(t.matrix_to_axis_angle(x)), x),
        (matrix_from_wxyz(t.matrix_to_quaternion(x)), x),
        (t.matrix_to_rotation_6d(x), sixd_from_matrix(x, "rows")),
        (matrix_from_6d(t.matrix_to_rotation_6d(x), "rows"), x),
        (t.rotation_6d_to_matrix(sixd_from_matrix(x, "rows")), x),
        (t.euler_angles_to_matrix(euler_from_matrix(x, "xyz", "intrinsic"), "XYZ"), x),
        (matrix_from_euler(t.matrix_to_euler_angles(x, "ZXZ"), "zxz", "intrinsic"), x),
    ):
        torch.testing.assert_close(theirs, ours, atol=1e-9, rtol=0)
    # Columns are not what it means by six numbers.
    assert (t.rotation_6d_to_matrix(sixd_from_matrix(x, "columns")) - x).abs().max() > 0.1


@needs_transforms
def test_transforms_move_points_as_poses_do() -> None:
    x, points = _poses(), torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(2), dtype=D)
    transform = transform3d_from_poses(x)
    expected = points @ x[:, :3, :3].mT + x[:, None, :3, 3]
    torch.testing.assert_close(transform.transform_points(points), expected)
    torch.testing.assert_close(poses_from_transform3d(transform), x)
    # Theirs applies the first transform first; a product of poses, the last.
    y = x.roll(1, 0)
    torch.testing.assert_close(poses_from_transform3d(transform.compose(transform3d_from_poses(y))), y @ x)
    torch.testing.assert_close(poses_from_transform3d(transform.inverse()), torch.linalg.inv(x))
    SE3().check_point(poses_from_transform3d(transform3d_from_poses(x[0].float())))


@needs_transforms
def test_a_transform_that_is_not_rigid_is_refused() -> None:
    t = require_transforms()
    with pytest.raises(ValueError, match="must be rigid"):
        poses_from_transform3d(t.Transform3d().scale(2.0))
    with pytest.raises(ValueError, match="one batch axis"):
        transform3d_from_poses(torch.eye(4).expand(2, 2, 4, 4))


@needs_structures
def test_meshes_in_and_out() -> None:
    vertices = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    faces = torch.tensor([[0, 1, 2], [1, 2, 3], [0, 1, 4]])
    counts = torch.tensor([4, 5]), torch.tensor([2, 1])
    meshes = meshes_from_arrays(vertices, faces, *counts)
    assert len(meshes) == 2
    # Its own numbering of all meshes together starts the second at 4.
    assert meshes.faces_packed().tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 8]]
    back = arrays_from_meshes(meshes)
    for a, b in zip(back, (vertices, faces, *counts), strict=True):
        assert torch.equal(a, b)
    assert arrays_from_meshes(meshes_from_arrays(vertices, faces)).vertex_counts.tolist() == [9]


@needs_structures
def test_meshes_without_faces_or_at_all() -> None:
    from pytorch3d.structures import Meshes

    assert arrays_from_meshes(Meshes(verts=[], faces=[])).vertices.shape == (0, 3)
    lone = meshes_from_arrays(torch.rand(2, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert arrays_from_meshes(lone).face_counts.tolist() == [0]


@needs_structures
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.rand(3, 2), torch.zeros(1, 3).long()), "shapes"),
        ((torch.rand(3, 3), torch.tensor([[0, 1, 3]])), "0 to 2, got 0 to 3"),
        ((torch.rand(3, 3), torch.tensor([[0, 1, 2]]), torch.tensor([2]), torch.tensor([1])), "add up to 3 vertices"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(arguments: tuple[Tensor, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        meshes_from_arrays(*arguments)


@pytest.mark.skipif(not _loads("pytorch3d._C"), reason="no compiled part of pytorch3d loads; build it from source")
def test_the_compiled_part_works() -> None:
    require_compiled()
    from pytorch3d.ops import knn_points

    points = torch.rand(1, 10, 3)
    assert knn_points(points, points, K=1).dists.abs().max() == 0


@pytest.mark.skipif(_loads("pytorch3d._C"), reason="the compiled part is there")
def test_a_missing_compiled_part_is_named() -> None:
    with pytest.raises(ImportError, match=r"pytorch3d\._C cannot be imported .* build pytorch3d from source"):
        require_compiled()


def test_a_missing_pytorch3d_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d.transforms", None)
    with pytest.raises(ImportError, match="easypytorch3d"):
        require_transforms()
