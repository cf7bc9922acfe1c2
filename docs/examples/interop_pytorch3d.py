import torch

from manifolds import SE3, SO3
from manifolds.interop.pytorch3d import (
    arrays_from_meshes,
    meshes_from_arrays,
    poses_from_transform3d,
    transform3d_from_poses,
)

# --8<-- [start:poses]
poses = torch.eye(4).repeat(5, 1, 1)
poses[:, :3, :3] = SO3().random_uniform(5, generator=torch.Generator().manual_seed(0))
poses[:, :3, 3] = torch.arange(15.0).reshape(5, 3)

transform = transform3d_from_poses(poses)  # its matrix is the transpose: points are rows there
points = torch.ones(1, 3)
moved = transform.transform_points(points)  # R p + t
SE3().check_point(poses_from_transform3d(transform))
# --8<-- [end:poses]
torch.testing.assert_close(moved[:, 0], (poses[:, :3, :3] @ points[0]) + poses[:, :3, 3])

# --8<-- [start:meshes]
vertices = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
meshes = meshes_from_arrays(vertices, torch.tensor([[0, 1, 2]]))
arrays = arrays_from_meshes(meshes)
# --8<-- [end:meshes]
assert torch.equal(arrays.vertices, vertices)
