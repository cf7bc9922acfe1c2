"""What the names on the command line mean: manifolds, sources and couplings, the library's or a user's own."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from manifolds import (
    SE3,
    SO3,
    Ellipsoid,
    Euclidean,
    FlatTorus,
    Manifold,
    Quotient,
    RightMultiplication,
    Simplex,
    Sphere,
)
from rfm.couplings import Coupling, Independent, OptimalTransport, Sinkhorn, UnbalancedSinkhorn
from rfm.datasets.column_names import angle_columns, coordinate_columns
from rfm.datasets.crystal_symmetry import (
    LAUE_NAMES,
    crystal_rotations,
    group_named,
    has_symmetry,
    laue_group,
    settings_vary,
)
from rfm.datasets.geographic import EARTH_AXES
from rfm.datasets.orientation_maps import OrientationMap
from rfm.datasets.tables import Table
from rfm.sources import KernelMixture, Source, Uniform, WrappedNormal

__all__ = ["check_symmetry", "coupling_by_name", "imported_manifold", "length_of", "manifold_by_name", "source_by_name"]


def manifold_by_name(
    name: str, table: Table, columns: Sequence[str] | None, radians: bool | None = None, reserved: Sequence[str] = ()
) -> Manifold:
    """Return the manifold that ``--manifold`` means for a table.

    Args:
        name: of the manifold.
        table: whose columns decide the dimension.
        columns: those that hold the points; None for those that `rfm.datasets.choose_coordinates` chooses.
        radians: whether angles are in radians or in degrees; None where it is unspecified.
        reserved: columns that hold something else.

    Raises:
        ValueError: for an unknown name.
    """
    if ":" in name:
        return imported_manifold(name)
    makers: dict[str, Callable[[], Manifold]] = {
        "sphere": lambda: Sphere(max(2, len(columns or ()) - 1)),
        "torus": lambda: FlatTorus(len(columns or angle_columns(table, radians, reserved))),
        "euclidean": lambda: Euclidean(max(1, len(columns or coordinate_columns(table, reserved)))),
        "simplex": lambda: Simplex(max(1, len(columns or coordinate_columns(table, reserved)) - 1)),
        "circle": lambda: FlatTorus(1),
        "ellipsoid": lambda: Ellipsoid(EARTH_AXES),
        "so3": SO3,
        "se3": SE3,
    }
    if name.startswith("so3/"):
        rotations = group_named(name.removeprefix("so3/"))
        return Quotient(SO3(), RightMultiplication(rotations)) if rotations.order > 1 else SO3()
    if name not in makers:
        raise ValueError(
            f"unknown manifold {name!r}; choose {', '.join(makers)}, so3/ with a Laue group "
            f"({', '.join(LAUE_NAMES)}), or a manifold of your own as my_module:thing"
        )
    return makers[name]()


def check_symmetry(name: str, manifold: Manifold, measured: OrientationMap) -> list[str]:
    """Refuse a manifold whose symmetry of the crystal is another than that of the phases in a map.

    Args:
        name: what the manifold is called, for messages.
        manifold: any; `SO3` alone has no symmetry, and fits every map.
        measured: the map.

    Returns:
        What could not be verified, in sentences.

    Raises:
        ValueError: the file names another Laue group for a phase.
    """
    rotations = crystal_rotations(manifold)
    if rotations is None:
        return [f"the symmetry of {name} is not known to be that of the file: {_listed(measured.symmetries)}"]
    if len(rotations) == 1:
        return []
    notes = []
    for phase in dict.fromkeys(measured.phases):
        code = measured.symmetries.get(phase)
        if code is None:
            notes.append(f"the file says no symmetry of phase {phase}, that of {name} was not verified")
            continue
        laue = laue_group(code)
        if laue is None or not has_symmetry(rotations, laue):
            own = {"so3/cubic": " is 43", "so3/hexagonal": " is 62"}.get(name, f" has {len(rotations)} other rotations")
            right = f"so3/{laue} for {code}" if laue is not None else "so3/ and the Laue group of that"
            raise ValueError(
                f"{measured.table.file}: phase {phase} has the symmetry {code}, and {name}{own}; choose {right}, so3 "
                "for no symmetry, or a quotient of your own that has it"
            )
        if settings_vary(laue):
            notes.append(f"along which axes the crystal's frame lies in phase {phase} ({laue}) was not verified")
    return notes


def _listed(symmetries: dict[str, str]) -> str:
    return ", ".join(f"{code} of phase {phase}" for phase, code in symmetries.items()) or "it says none"


def length_of(positions: Tensor) -> float:
    """Return a unit of length for poses at these positions ``(n, 3)``: their spread in each direction, to two digits.

    So positions spread over about one unit, as rotations do over radians.

    Raises:
        ValueError: all positions are one.
    """
    spread = float((positions - positions.mean(0)).square().mean().sqrt())
    if not spread > 0:
        raise ValueError("all positions are the same; fit the rotations alone, with --manifold so3")
    return float(f"{spread:.2g}")


def imported_manifold(name: str) -> Manifold:
    """Return a manifold given as ``module:name``; the current folder counts as importable.

    Raises:
        ValueError: if it cannot be imported, or is no manifold.
    """
    thing = _imported(name, "manifold")
    try:
        manifold = thing() if isinstance(thing, type) else thing
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name}: cannot be imported ({type(error).__name__}: {reason}); check it in Python") from None
    if not isinstance(manifold, Manifold):
        raise ValueError(f"{name}: is not a manifolds.Manifold but {type(manifold).__name__}; subclass Manifold")
    return manifold


def source_by_name(name: str) -> Source | Callable[[Manifold, Tensor], Source]:
    """Return the source that ``--source`` means, or what makes it from the manifold and the training points.

    Raises:
        ValueError: for an unknown name, or one that cannot be imported.
    """
    if ":" in name:
        thing = _imported(name, "source")
        if not isinstance(thing, Source) and not callable(thing):
            raise ValueError(
                f"{name}: is neither a rfm.sources.Source nor a function but {type(thing).__name__}; "
                "write a Source, or a function of manifold and points that returns one"
            )
        return thing if isinstance(thing, Source) else _checked_maker(name, thing)
    makers: dict[str, Callable[[Manifold, Tensor], Source]] = {
        "uniform": lambda m, points: Uniform(m),
        "wrapped-normal": WrappedNormal.fit,
        "kernel": KernelMixture.fit,
    }
    if name not in makers:
        raise ValueError(f"unknown source {name!r}; choose {', '.join(makers)}, or one of your own as my_module:thing")
    return makers[name]


def _checked_maker(name: str, make: Callable[..., Any]) -> Callable[[Manifold, Tensor], Source]:
    """Return ``make`` with its faults reported in one sentence."""

    def checked(manifold: Manifold, points: Tensor) -> Source:
        try:
            source = make(manifold, points)
        except Exception as error:
            raise ValueError(
                f"{name}: cannot be called with a manifold and points ({type(error).__name__}: {error}); "
                "check it in Python"
            ) from None
        if not isinstance(source, Source):
            raise ValueError(f"{name}: makes no rfm.sources.Source but {type(source).__name__}; subclass Source")
        return source

    return checked


def coupling_by_name(name: str, manifold: Manifold) -> Coupling:
    """Return the coupling that ``--coupling`` means."""
    if name == "independent":
        return Independent()
    kinds = {"optimal-transport": OptimalTransport, "sinkhorn": Sinkhorn, "unbalanced": UnbalancedSinkhorn}
    return kinds[name](manifold)


def _imported(name: str, what: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{name!r} does not name a {what}; write my_module:thing, an object or a class")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name}: cannot be imported ({type(error).__name__}: {reason}); check it in Python") from None
