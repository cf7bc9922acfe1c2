"""Fixtures that several test files share."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from manifold_zoo import NOT_ON_A_POLYHEDRON, POLYHEDRON, SLOW_ON_A_POLYHEDRON

for framework in ("JAX", "CUPY", "TENSORFLOW"):
    # The package for optimal transport imports them where they are installed; they may warn, which is an error here.
    os.environ.setdefault(f"POT_BACKEND_DISABLE_{framework}", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a surface with edges cannot keep, with the reason, and what takes long on it."""
    for item in items:
        name, _, case = item.name.partition("[")
        if POLYHEDRON not in case:
            continue
        if name in NOT_ON_A_POLYHEDRON:
            item.add_marker(pytest.mark.skip(reason=NOT_ON_A_POLYHEDRON[name]))
        if name in SLOW_ON_A_POLYHEDRON:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    """Undo what geomstats does when it is imported: it makes float64 the default of the whole process."""
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def rfm_data() -> Path:
    """The folder of real data sets; tests that need it skip where there is none."""
    folder = os.environ.get("RFM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RFM_DATA does not name the folder of data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def imaging() -> Iterator[ModuleType]:
    """The operators of deepinv, from the folder of their own that they are installed in; tests skip where it is not."""
    folder = str(Path(sys.prefix) / "imaging")
    sys.path.append(folder)
    with warnings.catch_warnings():
        # Torchvision says that it reads no image files.
        warnings.filterwarnings("ignore", "Failed to load image Python extension")
        yield pytest.importorskip("deepinv.physics", exc_type=ImportError)
    sys.path.remove(folder)
