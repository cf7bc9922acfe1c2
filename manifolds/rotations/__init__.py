"""Rotations: the forms they are stored in, the group SO(n), and rigid motions.

The conversions between matrices, quaternions, rotation vectors and Euler angles are exported here; their conventions
are said in `manifolds.rotations.conversions`.
"""

from manifolds.rotations.conversions import (
    axis_angle_from_matrix,
    cross,
    euler_from_matrix,
    hat,
    matrix_from_6d,
    matrix_from_axis_angle,
    matrix_from_euler,
    matrix_from_rotvec,
    matrix_from_wxyz,
    matrix_from_xyzw,
    rotvec_from_matrix,
    rotvec_from_wxyz,
    sixd_from_matrix,
    turn_rows,
    vee,
    wxyz_from_matrix,
    wxyz_from_rotvec,
    wxyz_from_xyzw,
    xyzw_from_matrix,
    xyzw_from_wxyz,
)

__all__ = [
    "axis_angle_from_matrix",
    "cross",
    "euler_from_matrix",
    "hat",
    "matrix_from_6d",
    "matrix_from_axis_angle",
    "matrix_from_euler",
    "matrix_from_rotvec",
    "matrix_from_wxyz",
    "matrix_from_xyzw",
    "rotvec_from_matrix",
    "rotvec_from_wxyz",
    "sixd_from_matrix",
    "turn_rows",
    "vee",
    "wxyz_from_matrix",
    "wxyz_from_rotvec",
    "wxyz_from_xyzw",
    "xyzw_from_matrix",
    "xyzw_from_wxyz",
]
