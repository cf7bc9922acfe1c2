"""One of each built-in manifold, and some that are harder: what laws are tested over.

``ZOO`` lists pairs of a name and a function that makes the manifold.
"""

from collections.abc import Callable

from manifolds import Euclidean, FlatTorus, Manifold, Sphere

ZOO: list[tuple[str, Callable[[], Manifold]]] = [
    ("Euclidean(1)", lambda: Euclidean(1)),
    ("Euclidean(3)", lambda: Euclidean(3)),
    ("FlatTorus(1)", lambda: FlatTorus(1)),
    ("FlatTorus(3)", lambda: FlatTorus(3)),
    ("Sphere(1)", lambda: Sphere(1)),
    ("Sphere(2)", lambda: Sphere(2)),
    ("Sphere(4)", lambda: Sphere(4)),
]
