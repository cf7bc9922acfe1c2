"""The package as a whole: layers, what an import costs, the wheel, the README."""

import ast
import functools
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import rfm

ROOT = Path(__file__).parents[1]

# Lowest first: a room imports those before it, itself, and manifolds.
_ROOMS = [
    *("arrays", "records", "conditions", "couplings", "field", "integrators", "steering", "sources", "paths"),
    *("networks", "likelihood", "objectives", "posterior", "flow", "datasets", "metrics", "grids"),
    *("regions", "training", "proteins", "models", "baselines", "statistics", "sklearn", "plotting", "discrete"),
    *("control", "command_line", "__main__"),
]


def _imports(file: Path) -> Iterator[str]:
    """Yield the full names that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide where an arrow points"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def test_manifolds_import_torch_and_nothing_else() -> None:
    allowed = set(sys.stdlib_module_names) | {"torch", "manifolds"}
    for file in _sources("manifolds"):
        # Sparse eigenvalue problems and factorizations, which torch does not have, and the Laplacian of bad faces,
        # which is optional: imported where they are used.
        sparse = {"scipy", "robust_laplacian"} if "meshes" in file.parts else set()
        # Adapters import what they adapt, when they are used.
        if "interop" not in file.parts:
            assert {name.partition(".")[0] for name in _imports(file)} <= allowed | sparse, file


def _modules(package: str) -> dict[str, Path]:
    """Return the files of a package by the names that imports give them; the face of a folder has the folder's name."""
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in _sources(package)
    }


def test_rooms_are_the_folders_that_there_are() -> None:
    parts = {file.relative_to(ROOT / "rfm").with_suffix("").parts[0] for file in _sources("rfm")}
    assert parts - {"__init__"} == set(_ROOMS)


def test_the_plan_of_the_house_says_what_each_room_holds() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    held = page.split("## What each room holds")[1].split("<!-- rooms -->")[0]
    told = {name.removesuffix(".py") for name in re.findall(r"^\| `([\w.]+)` \|", held, flags=re.M)}
    assert told == {"manifolds", *_ROOMS} - {"__main__"}


def test_imports_point_downward() -> None:
    for module, file in _modules("rfm").items():
        if module == "rfm":  # hands on the names of every room
            continue
        own = module.split(".")[1]
        below = {*_ROOMS[: _ROOMS.index(own)], own}
        for name in _imports(file):
            first, *rest = name.split(".")
            assert first not in ("experiments", "tests"), f"{file} imports {name}"
            if first == "rfm" and not rest[0].startswith("__"):
                assert rest[0] in below, f"{file} imports {name}, which is above it"


@pytest.mark.parametrize("package", ["manifolds", "rfm", "experiments"])
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    modules = _modules(package)

    def home(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    # The face of a folder hands on what its files hold, and is no station of its own.
    files = {module: file for module, file in modules.items() if file.name != "__init__.py"}
    arrows = {module: {home(name) for name in _imports(file)} - {"", module} for module, file in files.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_no_module_for_everything() -> None:
    for package in ("rfm", "manifolds", "experiments"):
        for file in _sources(package):
            assert not {"utils", "common", "helpers"} & {part.removesuffix(".py") for part in file.parts}


def _raised_texts(file: Path) -> Iterator[ast.Constant]:
    """Yield the literals that make up exceptions, raised where they are made or returned to be raised."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        makes = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")
        if makes or isinstance(node, ast.Raise):
            yield from (
                part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


@pytest.mark.parametrize("package", ["manifolds", "rfm"])
def test_errors_are_one_sentence_without_line_breaks(package: str) -> None:
    texts = [(file, text) for file in (ROOT / package).rglob("*.py") for text in _raised_texts(file)]
    assert len(texts) > 100
    assert not [f"{file.relative_to(ROOT)}:{text.lineno}" for file, text in texts if "\n" in text.value]


def test_both_packages_are_typed() -> None:
    for package in ("rfm", "manifolds"):
        assert (ROOT / package / "py.typed").is_file()


def _loaded(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_import_loads_torch_and_numpy_at_most() -> None:
    names = ["Flow", "GeodesicPath", "flow_matching_loss", "integrate", "divergence", "sources", "fit", "datasets"]
    loaded = _loaded("import rfm, manifolds\n" + "\n".join(f"rfm.{name}" for name in names))
    assert "torch" in loaded
    # torch itself loads tqdm where it is installed.
    heavy = {"scipy", "matplotlib", "lightning_fabric", "tqdm", "safetensors", "airportsdata", "experiments"}
    assert heavy & loaded <= _loaded("import torch")


def test_public_names_exist() -> None:
    for name in rfm.__all__:
        assert getattr(rfm, name) is not None
    assert dir(rfm) == sorted(rfm.__all__)
    with pytest.raises(AttributeError, match="flows"):
        _ = rfm.flows


def _used(file: Path) -> Iterator[tuple[ModuleType, str]]:
    """Yield what a file takes of the two packages: a module, and the name that it is asked for."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("rfm", "manifolds"):
            yield from ((importlib.import_module(str(node.module)), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for name in (alias.name for alias in node.names):
                above, _, last = name.rpartition(".")
                if above.split(".")[0] in ("rfm", "manifolds"):
                    yield importlib.import_module(above), last
        elif isinstance(node, ast.Attribute):
            names = ast.unparse(node).split(".")
            if names[0] in ("rfm", "manifolds") and all(map(str.isidentifier, names)):
                owner = functools.reduce(getattr, names[1:-1], importlib.import_module(names[0]))
                if isinstance(owner, ModuleType):
                    yield owner, names[-1]


def test_experiments_use_public_names_only() -> None:
    hidden = [
        f"{file.relative_to(ROOT)}: {module.__name__}.{name}"
        for file in _sources("experiments")
        for module, name in _used(file)
        if name not in getattr(module, "__all__", ())
    ]
    assert not hidden, "\n".join(hidden)


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == rfm.__version__ == importlib.metadata.version("riemannian-flow-matching")


def test_constraints_pin_every_dependency() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in ("test", "docs", "bench", "control") for name in _extra(project, extra)),
    ]
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert re.sub(r"[-_.]+", "-", name[0]).lower() in names, requirement


def _extra(project: dict[str, dict[str, list[str]]], name: str) -> list[str]:
    return project["optional-dependencies"][name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that the checkout stays as it is."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("rfm", "manifolds", "experiments", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    # From a folder in which no module called build can stand in the way.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_two_packages_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"riemannian_flow_matching-{rfm.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"rfm", "manifolds", info}
    stubs = {"rfm/__init__.pyi", "rfm/datasets/__init__.pyi"}
    data = {"rfm/py.typed", "rfm/plotting/coastlines.npz", "manifolds/py.typed"}
    assert {*stubs, *data, f"{info}/licenses/LICENSE"} <= set(names)
    models = {str(file.relative_to(ROOT)) for file in (ROOT / "rfm" / "models").glob("*/*.*") if file.suffix != ".pyc"}
    assert {name for name in names if name.startswith("rfm/models/") and name.count("/") == 3} == models
    for package in ("rfm", "manifolds"):
        sources = {str(file.relative_to(ROOT)) for file in _sources(package)}
        assert {name for name in names if name.startswith(f"{package}/") and name.endswith(".py")} == sources


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, timeout=300)
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in call("-c", "import rfm; print(rfm.__file__)")
    assert str(site) in call("-c", "import manifolds; print(manifolds.__file__)")
    command = str(site / "bin" / "rfm")
    assert call(command, "--version") == f"rfm {rfm.__version__}\n"
    assert "rfm demo" in call(command, "--help")
    places = np.random.default_rng(0).normal(0, 20, size=(40, 2))
    (tmp_path / "t.csv").write_text("lat,lon\n" + "".join(f"{a:.3f},{b:.3f}\n" for a, b in places))
    fit = ["fit", "t.csv", "--manifold", "sphere", "--out", "run", "--steps", "3", "--batch-size", "16"]
    assert "run: run" in call(command, *fit, "--device", "cpu")
    assert call(command, "sample", "run", "-n", "3").startswith("lat,lon\n")
    drawn = ["--length", "40", "-n", "1", "--steps", "2", "--out", "drawn"]
    assert "1 backbones" in call(command, "sample", "--model", "backbones", *drawn)
    assert "uniform" in call(command, "evaluate", "run")
    call(command, "plot", "run")
    assert (tmp_path / "run" / "density.png").is_file()
