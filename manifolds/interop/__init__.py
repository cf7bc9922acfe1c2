"""Adapters to other libraries, each imported when it is asked for.

`manifolds.interop.geoopt` and `manifolds.interop.geomstats` take their manifolds in; the first also lends ours out.
`manifolds.interop.pytorch3d` converts rotations, rigid motions and meshes. Importing this package imports none of them.
"""
