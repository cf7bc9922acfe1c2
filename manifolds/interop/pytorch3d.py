"""pytorch3d: rotations, rigid motions and meshes, in and out.

Each function imports what it needs when it is called. pytorch3d falls in two parts: ``transforms`` and ``structures``
are Python and always work; the operations on meshes and point clouds need a compiled part, of which no wheel loads with
current versions of torch. `require_transforms` and `require_compiled` tell them apart.

**Conventions.** pytorch3d's rotation *matrices* act on column vectors, like ours, and its quaternions have the real
part first, unit length and a real part >= 0, like ours: `manifolds.rotations` and ``pytorch3d.transforms`` read
each other's matrices, quaternions and rotation vectors as they are. Different are

* six numbers: the first two *rows* of a matrix, ``"rows"`` of `manifolds.rotations.matrix_from_6d`;
* Euler angles: a convention in capitals, ``"XYZ"``, always about the turned body's axes, and angles in its order:
  ``matrix_from_euler(angles, "xyz", "intrinsic")``;
* ``Transform3d``: it multiplies points as *row* vectors, so its matrix is the transpose of ours, and
  ``a.compose(b)`` applies ``a`` first;
* ``Rotate(R)`` and ``RotateAxisAngle``: transforms of row vectors, that turn points by the transpose of what the same
  matrix does to columns.
"""

import importlib
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

_INSTALL = "pip install --no-deps easypytorch3d==0.7.9.post1"


def require_transforms() -> ModuleType:
    """Return ``pytorch3d.transforms``.

    Raises:
        ImportError: naming what to install.
    """
    return _part("pytorch3d.transforms", f"install its Python part with {_INSTALL}")


def require_compiled() -> ModuleType:
    """Return ``pytorch3d._C``, which operations on meshes (nearest faces, rendering) call.

    Raises:
        ImportError: naming what is missing, and how to build it.
    """
    return _part(
        "pytorch3d._C",
        "no wheel's compiled part loads with current versions of torch: build pytorch3d from source against yours, "
        "which takes a quarter of an hour, with pip install --no-build-isolation "
        "git+https://github.com/facebookresearch/pytorch3d.git",
    )


# Rigid motions.


def transform3d_from_poses(x: Tensor) -> Any:
    """Return a ``Transform3d`` that moves points as poses do.

    ``transform3d_from_poses(x).transform_points(p)`` is ``R p + t`` for every row of ``p``.

    Args:
        x: points of `SE3`, ``(n, 4, 4)`` or ``(4, 4)``; it has one batch axis.
    """
    if x.shape[-2:] != (4, 4) or x.ndim > 3:
        raise ValueError(
            f"transform3d_from_poses: poses must have shape (n, 4, 4) or (4, 4), got {tuple(x.shape)}; a Transform3d "
            "has one batch axis: flatten the others"
        )
    return require_transforms().Transform3d(matrix=x.mT.contiguous(), dtype=x.dtype, device=x.device)


def poses_from_transform3d(transform: Any, tol: float = 1e-4) -> Tensor:
    """Return the poses ``(n, 4, 4)`` of a ``Transform3d``, projected to `SE3`.

    Args:
        transform: a rigid ``Transform3d``.
        tol: how far its matrix may be off a rigid motion's, relative to its size.

    Raises:
        ValueError: if it scales, shears, reflects or projects.
    """
    from manifolds.rotations.special_euclidean import SE3

    x = transform.get_matrix().mT
    try:
        SE3().check_point(x, tol)
    except ValueError as error:
        raise ValueError(
            f"poses_from_transform3d: the transform must be rigid, a rotation and a translation; {error}"
        ) from None
    return SE3().projx(x)


# Meshes.


class MeshArrays(NamedTuple):
    """Meshes one after another, in one list of vertices and one of faces."""

    vertices: Tensor
    """``(v, 3)``, in the order of the meshes."""
    faces: Tensor
    """Vertex numbers ``(f, 3)``, counted within each face's own mesh, int64."""
    vertex_counts: Tensor
    """Number of vertices of each mesh, ``(n,)``."""
    face_counts: Tensor
    """Number of faces of each mesh, ``(n,)``."""


def arrays_from_meshes(meshes: Any) -> MeshArrays:
    """Return the vertices and faces of a ``pytorch3d.structures.Meshes``.

    Textures are left behind.

    Args:
        meshes: any number of meshes.
    """
    vertices, faces = meshes.verts_list(), meshes.faces_list()
    device = meshes.device
    return MeshArrays(
        torch.cat(vertices) if vertices else torch.zeros(0, 3, device=device),
        torch.cat(faces).long() if faces else torch.zeros(0, 3, dtype=torch.int64, device=device),
        torch.tensor([len(v) for v in vertices], device=device),
        torch.tensor([len(f) for f in faces], device=device),
    )


def meshes_from_arrays(
    vertices: Tensor, faces: Tensor, vertex_counts: Tensor | None = None, face_counts: Tensor | None = None
) -> Any:
    """Return a ``pytorch3d.structures.Meshes``.

    Args:
        vertices: ``(v, 3)``.
        faces: vertex numbers ``(f, 3)``, counted within each face's own mesh.
        vertex_counts: number of vertices of each mesh ``(n,)``; one mesh by default.
        face_counts: number of faces of each mesh ``(n,)``.

    Raises:
        ValueError: if shapes, counts or vertex numbers do not fit each other.
    """
    structures = _part("pytorch3d.structures", f"install its Python part with {_INSTALL}")
    if vertices.ndim != 2 or faces.ndim != 2 or vertices.shape[1] != 3 or faces.shape[1] != 3:
        raise ValueError(
            f"meshes_from_arrays: vertices and faces have shapes (v, 3) and (f, 3), got {tuple(vertices.shape)} and "
            f"{tuple(faces.shape)}; triangulate other faces"
        )
    of_vertices = [len(vertices)] if vertex_counts is None else vertex_counts.tolist()
    of_faces = [len(faces)] if face_counts is None else face_counts.tolist()
    if len(of_vertices) != len(of_faces) or sum(of_vertices) != len(vertices) or sum(of_faces) != len(faces):
        raise ValueError(
            f"meshes_from_arrays: counts must add up to {len(vertices)} vertices and {len(faces)} faces of the same "
            f"number of meshes, got {of_vertices} and {of_faces}"
        )
    parts = list(zip(vertices.split(of_vertices), faces.long().split(of_faces), strict=True))
    for i, (v, f) in enumerate(parts):
        if f.numel() and not (int(f.min()) >= 0 and int(f.max()) < len(v)):
            raise ValueError(
                f"meshes_from_arrays: faces of mesh {i} must name vertices 0 to {len(v) - 1}, got {int(f.min())} to "
                f"{int(f.max())}; count them within each mesh"
            )
    return structures.Meshes(verts=[v for v, _ in parts], faces=[f for _, f in parts])


def _part(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"manifolds.interop.pytorch3d: {name} cannot be imported ({error}); {remedy}") from error
