"""What a function does is told alike by every version of Python, and by nothing but what it does."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rfm.records import syntax as module
from rfm.records.fingerprint import fingerprint
from rfm.records.syntax import syntax

_SAMPLES = '''
import functools

def scaled(x, /, scale=2.0, *rest, power: int = 1, **more) -> "float":
    """A text that says what it does."""
    try:
        total = sum(scale * v**power for v in (x, *rest) if v)
    except* ValueError as error:
        raise TypeError(f"{x!r:>10}: {error}") from None
    return total if total else [v for v in more.values()]

@functools.cache
def decorated(x):
    match x:
        case {"a": [first, *_], **kept}:
            return first, kept
        case int() | float():
            return lambda y: (lambda z: x + y + z)
    return {**x}, x[1:2, ...], (n := len(x)), not -x

class Holder:
    async def method(self, x):
        async with x as y:
            return [await v async for v in y]

    def text(self, x):
        return f"{x=}, {self!s}, {x:{self.width}.2f}" "and more", b"bytes", 1_000, 2j, None, ...

pair = [lambda t: t * 1.0, lambda t: t * 2.0, lambda t: None, lambda: (yield)]
FUNCTIONS = [scaled, decorated.__wrapped__, Holder.method, Holder.text, *pair]
'''

_RECORDED = "7494115eca754d6b109b797e54f6af98"
"""What Python 3.11, 3.12 and 3.13 find."""

_SCRIPT = """
import hashlib, importlib.util, json, sys
def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
syntax, samples = load("syntax", sys.argv[1]), load("samples", sys.argv[2])
found = [syntax.syntax(function.__code__) for function in samples.FUNCTIONS]
assert None not in found, found
print(hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32])
"""


def interpreters() -> list[str]:
    found = [sys.executable, *(shutil.which(f"python3.{minor}") or "" for minor in range(11, 20))]
    return [name for name in found if name]


@pytest.mark.parametrize("interpreter", interpreters())
def test_every_version_of_python_finds_the_same(interpreter: str, tmp_path: Path) -> None:
    assert module.__file__ is not None
    (tmp_path / "samples.py").write_text(_SAMPLES)
    command = [interpreter, "-c", _SCRIPT, module.__file__, str(tmp_path / "samples.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "command not found" in done.stderr:
        pytest.skip(f"{interpreter} stands for a Python that is not installed")
    assert done.stdout.strip() == _RECORDED, done.stderr


def imported(folder: Path, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


_WRITTEN = {
    "plain": "def f(x, y=1):\n    return x + y\n",
    "comments": "# one\n\n\ndef f(x, y=1):  # two\n\n    return (x +\n        y)\n",
    "words": 'def f(x: "float", y: int = 1) -> "float":\n    """Add."""\n    return x + y\n',
}
_OTHERS = {
    "another body": "def f(x, y=1):\n    return x - y\n",
    "another default": "def f(x, y=2):\n    return x + y\n",
    "another argument": "def f(x, z=1):\n    return x + z\n",
    "another text": "def f(x, y=1):\n    return x + y, 'y'\n",
}


def test_what_does_the_same_is_the_same_and_another_is_not(tmp_path: Path) -> None:
    def found(name: str, text: str) -> str:
        return fingerprint(imported(tmp_path, name.replace(" ", "_"), text).f)

    assert len({found(*item) for item in _WRITTEN.items()}) == 1
    assert len({found(*item) for item in (_WRITTEN | _OTHERS).items()}) == 1 + len(_OTHERS)


def test_lambdas_on_one_line_are_told_apart() -> None:
    functions: list[Callable[..., Any]] = [lambda t: t * 1, lambda t: t * 2, lambda t: lambda s: t * 1, lambda t: (t,)]
    texts = [json.dumps(syntax(function.__code__)) for function in [*functions, functions[2](0)]]
    assert len(set(texts)) == 5
    assert "null" not in texts


def test_without_source_the_bytecode_counts(tmp_path: Path) -> None:
    def executed(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(compile(text, "<no file>", "exec"), names)
        return names["f"]

    assert syntax(executed(_WRITTEN["plain"]).__code__) is None
    first, again, other = (executed(_WRITTEN["plain"]), executed(_WRITTEN["words"]), executed(_OTHERS["another body"]))
    assert fingerprint(first) != fingerprint(other)
    assert fingerprint(first) == fingerprint(executed(_WRITTEN["plain"]))
    assert syntax(again.__code__) is None
    # A file that is another one now.
    function = imported(tmp_path, "changed", _WRITTEN["plain"]).f
    (tmp_path / "changed.py").write_text(_OTHERS["another argument"])
    assert syntax(function.__code__) is None
