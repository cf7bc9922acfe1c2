"""Fingerprints: equal for what is made again, in another process too, and different for what differs."""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from manifolds import Euclidean, Sphere
from rfm.couplings import OptimalTransport
from rfm.objectives.maximum_likelihood import MaximumLikelihood
from rfm.paths import ConditionalFlowPath
from rfm.paths.schedules import FunctionSchedule
from rfm.paths.times import DensityTimes, UniformAndLateTimes
from rfm.records.fingerprint import architecture, fingerprint
from rfm.sources import KernelMixture, Uniform, WrappedNormal


class _Kind(Enum):
    ONE, TWO = 1.0, 2.0


class _Mine:
    """An object of the user's own."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.me = self

    def method(self, x: Tensor) -> Tensor:
        return x


class _Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Buffered(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value))


def _scaled(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda t: scale * t


def _kernels(shift: float) -> KernelMixture:
    x = Sphere(2).projx(torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(10, 3) + shift)
    return KernelMixture(Sphere(2), x, torch.tensor([10.0]), torch.tensor([0.5, 0.5]), Uniform(Sphere(2)))


# Each makes a value from a number.
_MAKERS: dict[str, Callable[[float], Any]] = {
    "a number": lambda a: a,
    "an array": lambda a: np.array([a, 1.0]),
    "an array of objects": lambda a: np.array([_Mine(a), "b"], dtype=object),
    "a tensor": lambda a: torch.tensor([a, 1.0], dtype=torch.bfloat16),
    "a number in a tensor": lambda a: torch.tensor(a),
    "a dtype": lambda a: torch.float32 if a == 1 else torch.float64,
    "a path": lambda a: Path(str(a)),
    "a member": lambda a: _Kind(a),
    "a set": lambda a: {str(a), "b", "c"},
    "an object": _Mine,
    "an object inside another": lambda a: _Mine(_Mine(a)),
    "an object with slots": _Slotted,
    "a method": lambda a: _Mine(a).method,
    "a module": _Buffered,
    "an enclosed number": _scaled,
    "a function in a function": lambda a: functools.partial(lambda f, t: f(t), _scaled(a)),
    "a constant in a lambda": lambda a: (lambda t: t * 1.0) if a == 1 else (lambda t: t * 2.0),
    "a name in a lambda": lambda a: (lambda t: torch.sin(t)) if a == 1 else (lambda t: torch.cos(t)),
    "a default": lambda a: lambda t, scale=a: scale * t,
    "a function of another module": lambda a: torch.sin if a == 1 else torch.cos,
    "a coupling": lambda a: OptimalTransport(Sphere(2), condition_weight=a),
    "an objective": lambda a: MaximumLikelihood(adjoint=a == 1),
    "a path of functions": lambda a: ConditionalFlowPath(Sphere(2), lambda x, y, t: a * x),
    "a schedule of functions": lambda a: FunctionSchedule(_scaled(a), lambda t: 1 - t),
    "times": lambda a: UniformAndLateTimes(a / 100),
    "times of a function": lambda a: DensityTimes(lambda t: a + t),
    "a source": lambda a: WrappedNormal(Euclidean(2), torch.zeros(2), a),
    "kernels": _kernels,
}


@pytest.mark.parametrize("kind", _MAKERS)
def test_what_is_made_again_is_the_same_and_another_is_not(kind: str) -> None:
    make = _MAKERS[kind]
    first = make(1.0)
    assert fingerprint(first) == fingerprint(make(1.0))
    assert fingerprint(first) != fingerprint(make(2.0))


def test_values_beside_a_function_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_a_function.py").write_text("SCALE = 1.0\ndef function(t):\n    return SCALE * t\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("beside_a_function")
    before = fingerprint(module.function)
    module.SCALE = 2.0
    assert fingerprint(module.function) != before


def test_what_was_asked_of_a_path_does_not_count() -> None:
    path = Path("a", "b")
    before = fingerprint(path)
    assert (str(path)[0], path.name, path.parts) == ("a", "b", ("a", "b"))
    assert fingerprint(path) == before != fingerprint(Path("a", "c"))


def test_the_weights_of_a_field_do_not_count_but_its_shape_does() -> None:
    one, two, wider = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 3)
    assert architecture(one) == architecture(two)
    assert architecture(one) != architecture(wider)
    assert architecture(nn.Sequential(one, nn.ReLU())) != architecture(nn.Sequential(one, nn.Tanh()))
    assert fingerprint(one) != fingerprint(two)
    assert architecture(one.eval()) == architecture(two)


_SCRIPT = "import test_fingerprint as t; print([t.fingerprint(make(1.0)) for make in t._MAKERS.values()])"


def test_another_process_finds_the_same() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([fingerprint(make(1.0)) for make in _MAKERS.values()]), done.stderr
