"""What holds numbers is taken, and gives what a tensor gives; what does not is refused with one sentence."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import rfm
from manifolds import (
    SE3,
    SO3,
    SPD,
    CentredPoses,
    Ellipsoid,
    Euclidean,
    FlatTorus,
    Grassmann,
    Hyperboloid,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Sphere,
    Stiefel,
)
from rfm import metrics
from rfm.arrays import shape_of, tensor_of
from rfm.couplings import OptimalTransport, Sinkhorn
from rfm.datasets import group_split
from rfm.networks import VelocityField
from rfm.plotting import plot_flow
from rfm.records.descriptions import build, describe
from rfm.sources import (
    CentredPoseSource,
    IsotropicGaussianSO3,
    KernelMixture,
    PowerSource,
    ProductSource,
    RigidMotionSource,
    Source,
    Uniform,
    VonMisesFisher,
    WrappedNormal,
    default_source,
    kernel_concentrations,
)

# Points on Sphere(2) and Euclidean(3) whose coordinates are whole numbers, hence the same in every precision.
AXES = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])


class Labelled:
    """As labelled arrays of other libraries are: known to NumPy by one method alone."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values if dtype is None else self.values.astype(dtype)


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def backwards(x: np.ndarray) -> np.ndarray:
    return x[::-1].copy()[::-1]


def field_of_records(x: np.ndarray) -> np.ndarray:
    records = np.zeros(x.shape, dtype=[("flag", "i1"), ("x", "f8")])
    records["x"] = x
    return records["x"]


TAKEN: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda x: x,
    "float32": lambda x: x.astype("f4"),
    "float16": lambda x: x.astype("f2"),
    "longdouble": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f8"),
    "big-endian integers": lambda x: x.astype(">i4"),
    "integers": lambda x: x.astype(np.int64),
    "short integers": lambda x: x.astype(np.int8),
    "reversed": backwards,
    "read-only": read_only,
    "columns first": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "a field of records": field_of_records,
    "nothing masked": np.ma.masked_array,
    "lists": lambda x: x.tolist(),
    "lists of integers": lambda x: x.astype(int).tolist(),
    "tuples": lambda x: tuple(map(tuple, x)),
    "list of arrays": list,
    "list of tensors": lambda x: list(torch.tensor(x)),
    "lists of numbers of torch": lambda x: [list(row) for row in torch.tensor(x, requires_grad=True)],
    "data frame": lambda x: pd.DataFrame(x),
    "data frame of integers": lambda x: pd.DataFrame(x.astype(int)),
    "labelled array": Labelled,
    "tensor": torch.tensor,
    "integer tensor": lambda x: torch.tensor(x.astype(int)),
    "int8 tensor": lambda x: torch.tensor(x.astype(np.int8)),
    "half tensor": lambda x: torch.tensor(x).half(),
    "tensor with a gradient": lambda x: torch.tensor(x, requires_grad=True),
    "parameter": lambda x: torch.nn.Parameter(torch.tensor(x)),
}

REFUSED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "complex": (lambda x: x + 0j, "complex numbers; pass real"),
    "complex tensor": (lambda x: torch.tensor(x + 0j), "complex numbers; pass real"),
    "objects": (lambda x: np.where(x > 0, None, x), "objects, such as NoneType; .*astype"),
    "texts": (lambda x: x.astype(str), "texts, such as .*; pass a tensor or an array of numbers"),
    "column of texts": (lambda x: pd.DataFrame(x).assign(name="a"), "texts, such as 'a'"),
    "times": (lambda x: x.astype("M8[s]"), r"times \(datetime64\[s\]\); pass numbers, such as days"),
    "durations": (lambda x: x.astype("m8[h]"), r"times \(timedelta64\[h\]\); pass numbers"),
    "dates": (lambda x: [[datetime.date(2020, 1, 1)] * 3] * len(x), "times; pass numbers"),
    "records": (lambda x: np.zeros(len(x), dtype=[("x", "f8"), ("y", "f8")]), "fields x, y; .*structured_to_unstruct"),
    "masked": (lambda x: np.ma.masked_array(x, mask=x > 0), "3 masked values; leave"),
    "ragged": (lambda x: [[1.0, 0, 0], [1.0]], "list .*; pass an array"),
    "ragged tensors": (lambda x: [torch.zeros(3), torch.zeros(2)], "tensors that do not stack"),
    "mapping": (lambda x: {"x": x}, "objects, such as dict"),
    "generator": (lambda x: (row for row in x), "objects, such as generator"),
    "None": (lambda x: None, "NoneType"),
    "sparse": (lambda x: torch.tensor(x).to_sparse(), r"layout .*; pass to_dense\(\)"),
}

SPHERE = Sphere(2)
SOLVER = rfm.integrators.FixedStep(steps=2)


def still(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    return torch.zeros_like(x) if condition is None else 0 * x * condition


FLOW = rfm.Flow(SPHERE, still)

ENTRANCES: dict[str, Callable[[Any], Any]] = {
    "Flow.log_prob": lambda x: FLOW.log_prob(x, solver=SOLVER),
    "Flow.trajectory": lambda x: FLOW.trajectory(x, (0.0, 1.0), solver=SOLVER),
    "Uniform": lambda x: Uniform(SPHERE).log_prob(x),
    "VonMisesFisher": lambda x: VonMisesFisher(SPHERE, torch.tensor([0.6, 0, 0.8]), 2.0).log_prob(x),
    "WrappedNormal": lambda x: WrappedNormal(Euclidean(3), torch.zeros(3), 0.7).log_prob(x),
    "WrappedNormal.fit": lambda x: WrappedNormal.fit(Euclidean(3), x).scale,
    "default_source": lambda x: default_source(Euclidean(3), x).scale,
    "KernelMixture": lambda x: KernelMixture.fit(SPHERE, x).log_prob(x),
    "KernelMixture.mixture": lambda x: KernelMixture.mixture(SPHERE, x, x).log_prob(x),
    "KernelMixture.adaptive": lambda x: KernelMixture.adaptive(SPHERE, x, x).log_prob(x),
    "kernel_concentrations": lambda x: kernel_concentrations(SPHERE, x),
    "KernelMixture.one_bandwidth": lambda x: KernelMixture.one_bandwidth(SPHERE, x, x).concentrations,
    "OptimalTransport": lambda x: OptimalTransport(SPHERE)(x, x)[:2],
    "OptimalTransport, condition": lambda x: OptimalTransport(SPHERE, 1.0)(x, x, condition=x),
    "Sinkhorn": lambda x: Sinkhorn(SPHERE).plan(x, x),
    "wasserstein_distance": lambda x: metrics.wasserstein_distance(SPHERE, x, AXES[::-1], blocks=2).mean,
    "median_distance": lambda x: metrics.median_distance(SPHERE, x, x),
    "coverage": lambda x: metrics.coverage(SPHERE, x, x, 2).mean,
    "negative_log_likelihood": lambda x: metrics.negative_log_likelihood(x),
    "negative_log_likelihood, groups": lambda x: metrics.negative_log_likelihood(AXES[:, 0], groups=x),
    "paired_difference": lambda x: metrics.paired_difference(AXES[:, 0], AXES[:, 1], x),
    "flow_matching_loss": lambda x: rfm.flow_matching_loss(
        still, rfm.GeodesicPath(SPHERE), torch.tensor([0.6, 0, 0.8]), x, torch.full((6,), 0.5)
    ),
    "group_split": lambda x: group_split(x, 0),
    "divergence": lambda x: rfm.divergence(still, SPHERE, x, torch.zeros(()))[1],
}


LABELS = ("group_split", "negative_log_likelihood, groups", "paired_difference")


def close(found: Any, right: Any) -> None:
    if isinstance(right, Tensor):
        torch.testing.assert_close(found.double(), right.double(), atol=2e-3, rtol=2e-3)
    elif isinstance(right, tuple):
        for a, b in zip(found, right, strict=True):
            close(a, b)
    elif hasattr(right, "mean"):
        assert found.mean == pytest.approx(right.mean, rel=2e-3, abs=2e-3)
    else:
        assert found == pytest.approx(right, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("kind", TAKEN)
def test_all_that_holds_numbers_is_taken(kind: str, entrance: str) -> None:
    call = ENTRANCES[entrance]
    close(call(TAKEN[kind](AXES)), call(torch.tensor(AXES)))


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in ("texts", "column of texts")])
def test_the_rest_is_refused_in_a_sentence(kind: str, entrance: str) -> None:
    if entrance in LABELS and kind in ("complex", "complex tensor", "times", "durations", "records", "None"):
        pytest.skip("rows are labels there, equal or not; without groups each is its own")
    make, _ = REFUSED[kind]
    with pytest.raises(ValueError, match="holds") as caught:
        ENTRANCES[entrance](make(AXES))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_the_sentence_names_what_was_found_and_the_remedy(kind: str) -> None:
    make, words = REFUSED[kind]
    for name in ("points", "condition", "weights"):
        given = {"points": AXES} | {name: make(AXES)}
        if name == "condition" and kind == "mapping":
            continue
        if given[name] is None and name != "points":
            continue
        with pytest.raises(ValueError, match=f"fit: {name} cannot be read as numbers, it holds .*{words}") as caught:
            rfm.fit(manifold=SPHERE, **given)
        assert "\n" not in str(caught.value)


# Whole numbers are never what a result is rounded to.

MATRIX = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
POSE = torch.eye(4).long()
PRODUCT = Product(SPHERE, Euclidean(2))
SOURCES: dict[str, tuple[Source, Tensor]] = {
    "Uniform": (Uniform(SPHERE), torch.tensor([[0, 0, 1]])),
    "UniformTorus": (Uniform(FlatTorus(2)), torch.tensor([[0, 1], [-2, 3]])),
    "VonMisesFisher": (VonMisesFisher(SPHERE, torch.tensor([0.6, 0, 0.8]), 2.0), torch.tensor([[0, 0, 1], [1, 0, 0]])),
    "WrappedNormal": (WrappedNormal(Euclidean(2), torch.zeros(2), 0.7), torch.tensor([[1, 2], [0, 0]])),
    "WrappedNormalTorus": (WrappedNormal(FlatTorus(2), torch.zeros(2), 0.7), torch.tensor([[1, 2], [0, 0]])),
    "WrappedNormalHyperbolic": (
        WrappedNormal(Hyperboloid(2), torch.tensor([1.0, 0, 0]), 0.7),
        torch.tensor([[1, 0, 0]]),
    ),
    "WrappedNormalSPD": (WrappedNormal(SPD(2), torch.eye(2), 0.7), torch.tensor([[[2, 1], [1, 3]]])),
    "IsotropicGaussianSO3": (IsotropicGaussianSO3(torch.eye(3), 0.7), MATRIX),
    "RigidMotionSource": (RigidMotionSource(SE3(), Uniform(SO3()), 0.7), POSE),
    "CentredPoseSource": (CentredPoseSource(CentredPoses(2)), torch.stack([POSE, POSE])),
    "PowerSource": (PowerSource(Power(Euclidean(1), 2), WrappedNormal(Euclidean(1), [0.0], 0.7)), torch.ones(3, 2, 1)),
    "ProductSource": (
        ProductSource(PRODUCT, [Uniform(SPHERE), WrappedNormal(Euclidean(2), [0.0, 0.0], 0.7)]),
        torch.tensor([[0, 0, 1, 2, 3]]),
    ),
    "KernelMixture": (KernelMixture.fit(SPHERE, AXES), torch.tensor([[0, 0, 1]])),
}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8], ids=str)
@pytest.mark.parametrize("name", SOURCES)
def test_densities_at_whole_numbers(name: str, dtype: torch.dtype) -> None:
    source, x = SOURCES[name]
    found = source.log_prob(x.to(dtype))
    assert found.dtype == torch.get_default_dtype()
    torch.testing.assert_close(found, source.log_prob(x.float()))
    torch.testing.assert_close(source.log_prob(x.numpy().astype(">i4")), found)
    assert found.frac().abs().sum() > 0


def test_bytes_and_truth_values_are_numbers() -> None:
    x = torch.tensor([[0, 0, 1]])
    right = SOURCES["VonMisesFisher"][0].log_prob(x.float())
    for dtype in (torch.uint8, torch.bool):
        torch.testing.assert_close(SOURCES["VonMisesFisher"][0].log_prob(x.to(dtype)), right)


@pytest.mark.parametrize("name", SOURCES)
def test_sources_take_numbers_of_draws_and_refuse_dtypes_of_whole_numbers(name: str) -> None:
    source, _ = SOURCES[name]
    expected = source.sample((3,), torch.Generator().manual_seed(0))
    for shape in (3, np.int64(3), [3], (np.int32(3),), torch.Size([3]), np.array([3]), torch.tensor(3)):
        assert torch.equal(source.sample(shape, torch.Generator().manual_seed(0)), expected)
    for wrong in (-1, 2.5, "3", None, (2, "a")):
        with pytest.raises(ValueError, match=f"{type(source).__name__}.sample: shape must"):
            source.sample(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"points are floating point, got the dtype torch.int64"):
        source.sample((3,), dtype=torch.int64)
    with pytest.raises(ValueError, match="have shape"):
        source.log_prob(torch.zeros(5, 7))


def test_large_whole_numbers_keep_their_digits_where_double_precision_is_asked_for() -> None:
    assert tensor_of("", "", [2**24 + 1], torch.float64).tolist() == [2**24 + 1]
    assert tensor_of("", "", np.array([2**40 + 1]), torch.float64).tolist() == [2**40 + 1]
    groups = np.array([2**60, 2**60 + 1, 2**60 + 1])
    assert metrics.negative_log_likelihood(np.array([1.0, 2.0, 3.0]), groups=groups).count == 2
    assert metrics.negative_log_likelihood(np.array([1.0, 2.0, 3.0]), groups=np.array(["a", "b", "b"])).count == 2


def test_memory_of_read_only_arrays_is_not_shared() -> None:
    x = read_only(AXES)
    tensor_of("", "", x).zero_()
    assert np.array_equal(x, AXES)


def test_shapes() -> None:
    assert shape_of("", 3) == (3,)
    assert shape_of("", (np.int64(2), 3)) == (2, 3)
    assert shape_of("", ()) == ()


# Arguments.

MADE: dict[str, Callable[[Any, Any], Manifold]] = {
    "Sphere": lambda i, f: Sphere(i(2)),
    "Euclidean": lambda i, f: Euclidean(i(2)),
    "FlatTorus": lambda i, f: FlatTorus(i(2)),
    "Hyperboloid": lambda i, f: Hyperboloid(i(2), f(0.5)),
    "PoincareBall": lambda i, f: PoincareBall(i(2), f(0.5)),
    "SPD": lambda i, f: SPD(i(2)),
    "Stiefel": lambda i, f: Stiefel(i(4), i(2)),
    "Grassmann": lambda i, f: Grassmann(i(4), i(2)),
    "SE3": lambda i, f: SE3(f(0.5)),
    "Power": lambda i, f: Power(Sphere(i(2)), i(3)),
    "CentredPoses": lambda i, f: CentredPoses(i(3), f(0.5)),
    "Product": lambda i, f: Product(Sphere(i(2)), Euclidean(i(1)), weights=[f(0.5), f(0.25)]),
    "Ellipsoid": lambda i, f: Ellipsoid([f(1.0), f(1.0), f(0.5)], steps=i(4)),
}
WHOLE = [np.int64, np.int32, np.uint8, np.array, torch.tensor, float, np.float32]
REAL = [np.float64, np.float32, np.float16, np.array, torch.tensor]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("kind", WHOLE, ids=lambda kind: kind.__name__)
def test_manifolds_of_other_numbers_are_saved_alike(name: str, kind: Any) -> None:
    real = REAL[WHOLE.index(kind) % len(REAL)]
    right, found = MADE[name](int, float), MADE[name](kind, real)
    assert repr(found) == repr(right)
    record = json.dumps(describe(found), allow_nan=False)
    assert record == json.dumps(describe(right))
    assert repr(build(json.loads(record), "test")) == repr(right)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("wrong", [2.5, "2", None, True, [2], np.array([2]), np.nan, 1j, Sphere, -1, 0])
def test_manifolds_of_no_numbers_are_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must|needs|takes|is") as caught:
        MADE[name](lambda i: wrong, lambda f: wrong if wrong not in (2.5, True) else "1")
    assert "\n" not in str(caught.value)


def test_a_flow_of_numbers_of_numpy_is_saved_and_loaded(tmp_path: Path) -> None:
    manifold = Sphere(np.int64(2))
    field = VelocityField(manifold, width=np.int64(8), depth=np.int32(1), features=np.int16(4), scale=np.float32(1))
    source = VonMisesFisher(manifold, [0.0, 0.0, 1.0], np.float32(2.5))
    flow = rfm.Flow(manifold, field, source)
    flow.save(tmp_path / "flow")
    loaded = rfm.Flow.load(tmp_path / "flow")
    assert torch.equal(loaded.log_prob(AXES, solver=SOLVER), flow.log_prob(AXES, solver=SOLVER))
    assert loaded.source.concentration == 2.5


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_seeds_of_other_kinds(seed: Any) -> None:
    x = Sphere(2).random_uniform(30, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {
        "steps": np.int64(2),
        "batch_size": np.int32(4),
        "training": rfm.Training(learning_rate=np.float32(1e-3)),
    }
    flows = [rfm.fit(x, SPHERE, seed=s, progress=False, device="cpu", **options) for s in (3, seed)]
    assert torch.equal(*(flow.log_prob(AXES, solver=SOLVER) for flow in flows))
    assert all(torch.equal(a, b) for a, b in zip(group_split(x, seed), group_split(x, 3), strict=True))


@pytest.mark.parametrize("seed", [-1, np.int64(-1), 2**63, 2**64, 3.0, "3", None, True, [3]])
def test_seeds_that_are_none(seed: Any) -> None:
    for call in (lambda: rfm.fit(AXES, SPHERE, seed=seed), lambda: group_split(AXES, seed)):
        with pytest.raises(ValueError, match=r"seed must be at least 0 and below 2\^63"):
            call()


# Classes and names in place of objects.

OBJECTS: dict[str, tuple[Callable[[], Any], str]] = {
    "fit, class": (lambda: rfm.fit(AXES, Sphere), "manifold must .* got the class Sphere; pass Sphere\\(2\\)"),
    "fit, name": (lambda: rfm.fit(AXES, "sphere"), "manifold must .* got 'sphere'; pass Sphere\\(2\\)"),
    "fit, torus": (lambda: rfm.fit(AXES, "torus"), "pass FlatTorus\\(2\\)"),
    "fit, module": (lambda: rfm.fit(AXES, rfm), "got the module rfm; pass"),
    "fit, so3": (lambda: rfm.fit(AXES, SO3), "pass SO3\\(\\)"),
    "fit, stiefel": (lambda: rfm.fit(AXES, Stiefel), "pass Stiefel\\(n, p\\)"),
    "fit, source": (lambda: rfm.fit(AXES, SPHERE, source=Uniform), "got the class Uniform; pass Uniform\\(manifold\\)"),
    "fit, field": (lambda: rfm.fit(AXES, SPHERE, field=VelocityField), "field must .* got the class VelocityField"),
    "fit, coupling": (lambda: rfm.fit(AXES, SPHERE, coupling=OptimalTransport), "pass OptimalTransport\\(manifold\\)"),
    "fit, no coupling": (lambda: rfm.fit(AXES, SPHERE, coupling=None), "coupling must .* got None; leave it out"),
    "fit, coupling name": (lambda: rfm.fit(AXES, SPHERE, coupling="exact"), "coupling must .* got 'exact'"),
    "FlowMatching, path": (lambda: rfm.FlowMatching(rfm.GeodesicPath), "pass GeodesicPath\\(manifold\\)"),
    "FlowMatching, times": (
        lambda: rfm.FlowMatching(times="uniform"),
        "times must .* got 'uniform'; pass UniformTimes",
    ),
    "fit, objective": (lambda: rfm.fit(AXES, SPHERE, objective=rfm.MaximumLikelihood), "pass MaximumLikelihood\\(\\)"),
    "Flow": (lambda: rfm.Flow(Sphere, still), "Flow: manifold must .* pass Sphere\\(2\\)"),
    "Flow, field": (lambda: rfm.Flow(SPHERE, VelocityField), "Flow: field must .* the class VelocityField"),
    "Flow, source": (lambda: rfm.Flow(SPHERE, still, "uniform"), "Flow: source must .* pass Uniform\\(manifold\\)"),
    "Uniform": (lambda: Uniform(Sphere), "Uniform: manifold must .* pass Sphere\\(2\\)"),
    "WrappedNormal": (lambda: WrappedNormal("euclidean", [0.0]), "pass Euclidean\\(2\\)"),
    "Power": (lambda: Power(Sphere, 2), "Power: m must .* pass Sphere\\(2\\)"),
    "GeodesicPath": (lambda: rfm.GeodesicPath(Sphere), "pass Sphere\\(2\\)"),
    "OptimalTransport": (lambda: OptimalTransport(Sphere), "pass Sphere\\(2\\)"),
    "Sinkhorn": (lambda: Sinkhorn("sphere"), "pass Sphere\\(2\\)"),
    "integrate": (lambda: rfm.integrate(still, Sphere, torch.eye(3), (0.0, 1.0)), "pass Sphere\\(2\\)"),
    "integrate, method": (
        lambda: rfm.integrate(still, SPHERE, torch.eye(3), (0.0, 1.0), method="dopri5"),
        "method must be an object with solve, got 'dopri5'; pass Adaptive\\(\\)",
    ),
    "sample, solver": (lambda: FLOW.sample(3, solver=rfm.integrators.FixedStep), "got the class FixedStep; pass"),
    "integrate, times": (lambda: rfm.integrate(still, SPHERE, torch.eye(3), "01"), "times cannot be read as numbers"),
    "metrics": (lambda: metrics.wasserstein_distance(Sphere, AXES, AXES), "pass Sphere\\(2\\)"),
    "kernel": (lambda: metrics.HeatKernel(Sphere, 0.3), "pass Sphere\\(2\\)"),
    "plot_flow": (lambda: plot_flow("run"), "flow must .* got 'run'"),
    "guidance": (lambda: FLOW.sample(3, guidance="2"), "guidance must be a number, got '2'"),
    "batch size": (lambda: FLOW.sample(3, batch_size="2"), "batch_size must be a whole number, got '2'"),
    "learning rate": (
        lambda: rfm.fit(AXES, SPHERE, training=rfm.Training(learning_rate="fast")),
        "learning_rate must be a number, got 'fast'",
    ),
    "validation": (lambda: rfm.fit(AXES, SPHERE, validation="tenth"), "validation must be a number, got 'tenth'"),
    "concentration": (lambda: VonMisesFisher(SPHERE, AXES[0], [1.0, 2.0]), "concentration must be a number"),
    "scale": (lambda: WrappedNormal(Euclidean(1), [0.0], np.ones(2)), "scale must be a number"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_classes_and_names_are_told_from_objects(case: str) -> None:
    call, words = OBJECTS[case]
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


FORMS: dict[str, tuple[Manifold, tuple[int, ...], str]] = {
    "degrees": (Sphere(2), (5, 2), r"degrees .*Sphere.from_degrees\(x\[:, 0\], x\[:, 1\]\)"),
    "transposed": (Sphere(2), (3, 5), "x.T"),
    "quaternions": (SO3(), (5, 4), "matrix_from_wxyz, or matrix_from_xyzw"),
    "rotation vectors": (SO3(), (5, 3), "matrix_from_rotvec, Euler angles in radians with matrix_from_euler"),
    "flat matrices": (SO3(), (5, 9), r"x.reshape\(\*x.shape\[:-1\], 3, 3\)"),
    "six numbers": (SO3(), (5, 6), "matrix_from_6d"),
    "position, quaternion": (SE3(), (5, 7), "matrix_from_xyzw of a quaternion"),
    "position, vector": (SE3(), (5, 6), "matrix_from_rotvec"),
    "no last row": (SE3(), (5, 3, 4), "append the row 0, 0, 0, 1"),
    "unit vectors": (FlatTorus(2), (5, 3), r"2 angles in radians; unit vectors are points of Sphere\(2\)"),
    "cosines": (FlatTorus(3), (5, 3, 2), "torch.atan2"),
    "numbers": (FlatTorus(1), (5,), r"x\[:, None\]"),
    "flat SPD": (SPD(3), (5, 9), r"x.reshape\(\*x.shape\[:-1\], 3, 3\)"),
    "triangle": (SPD(3), (5, 6), "torch.tril_indices"),
    "flat power": (Power(Sphere(2), 4), (5, 12), r"x.reshape\(\*x.shape\[:-1\], 4, 3\)"),
}


@pytest.mark.parametrize("case", FORMS)
def test_other_forms_of_points_are_told_how_to_become_points(case: str) -> None:
    manifold, shape, words = FORMS[case]
    x = torch.zeros(shape)
    for call in (lambda: rfm.fit(x, manifold), lambda: manifold.check_point(x)):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_degrees_on_the_sphere_and_on_the_torus() -> None:
    places = np.array([[0, 0], [0, 90], [90, 0], [-90, 7], [45, 180]])
    h = 0.5**0.5
    right = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [-h, 0, h]])
    torch.testing.assert_close(Sphere.from_degrees(places[:, 0], places[:, 1]).float(), right, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"torch.deg2rad.*FlatTorus.projx"):
        rfm.fit(torch.tensor([[120.0, -60.0], [80.0, 170.0]]), FlatTorus(2))


TIMES: dict[str, Any] = {
    "numpy": np.array(["2020-01-01"] * 6, dtype="M8[D]"),
    "numpy, nanoseconds": np.array(["2020-01-01"] * 6, dtype="M8[ns]"),
    "pandas": pd.Series(pd.to_datetime(["2020-01-01"] * 6)),
    "durations": np.arange(6).astype("m8[h]"),
    "python": [datetime.datetime(2020, 1, 1)] * 6,
}


@pytest.mark.parametrize("case", TIMES)
def test_a_condition_in_time_says_what_to_do(case: str) -> None:
    given = TIMES[case]
    # By name, points in time are understood, and spans are not.
    for condition in (given, *([{"time": given}] if case == "durations" else [])):
        with pytest.raises(ValueError, match=r"time.*; pass numbers, such as days since the first") as caught:
            rfm.fit(AXES, SPHERE, condition=condition)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"Flow: condition .* pass numbers, such as days"):
        FLOW.sample(6, condition=given)
