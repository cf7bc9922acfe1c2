"""Saving objects as data: constructor arguments in JSON, tensors in safetensors, and nothing that runs.

An object is recorded as the name of its class and the arguments of its constructor, which its class keeps as attributes
of the same names. Loading resolves names among the public classes of `manifolds` and `rfm` and nowhere else, so a file
cannot make code run.
"""

import hashlib
import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from rfm.arrays import tensor_of

_ARGUMENT = "argument-"
"""Begins the names of tensors that are constructor arguments: no parameter of a module has a hyphen in its name."""

_LISTED = 256
"""Tensors of at most so many numbers are recorded as lists."""

_PUBLIC = (
    *("manifolds", "rfm.sources", "rfm.networks", "rfm.paths", "rfm.paths.schedules", "rfm.discrete"),
    "rfm.baselines",
    "rfm.conditions",
    "rfm.control",
)


class SavedFlowError(ValueError):
    """A saved flow that is missing, damaged, or needs an object passed in."""


def describe(value: Any, shared: Mapping[str, Any] | None = None, tensors: dict[str, Tensor] | None = None) -> Any:
    """Return ``value`` as JSON data: numbers, lists, and classes with their constructor arguments.

    An object of a class that is not public in this library becomes ``{"external": name}``, to be passed in on loading.

    Args:
        value: what to describe.
        shared: objects recorded elsewhere, by name; where ``value`` holds one of them it is recorded as
            ``{"shared": name}``.
        tensors: is given the tensors of more than 256 numbers, by a name that is recorded as ``{"tensor": name}``;
            without it they become lists, as short ones do.
    """
    for key, part in (shared or {}).items():
        if value is part:
            return {"shared": key}
    value = _plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        if tensors is None or value.numel() <= _LISTED:
            return value.tolist()
        name = f"{_ARGUMENT}{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Sequence | nn.ModuleList):
        return [describe(item, shared, tensors) for item in value]
    public = _public_name(type(value))
    if public is None:
        kind = value if inspect.isfunction(value) else type(value)
        return {"external": f"{kind.__module__}.{kind.__qualname__}"}
    arguments = arguments_of(value, type(value))
    return {"class": public, "arguments": {name: describe(own, shared, tensors) for name, own in arguments.items()}}


def arguments_of(value: Any, kind: type) -> dict[str, Any]:
    """Return the arguments of a class that an object of it was made with: it keeps them under their names."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: getattr(value, p.name) for p in parameters if p.kind is not p.VAR_KEYWORD}


def _plain(value: Any) -> Any:
    """Return numbers and arrays of NumPy, enumerations and paths as what JSON and torch know."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return tensor_of("save", "an argument", value)
    if isinstance(value, Enum):
        return value.value
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def build(
    record: Any, where: str, shared: Mapping[str, Any] | None = None, tensors: Mapping[str, Tensor] | None = None
) -> Any:
    """Return the object that ``describe`` recorded.

    Args:
        record: JSON data.
        where: what it is part of, for messages.
        shared: the objects that are recorded elsewhere, as in ``describe``.
        tensors: those that ``describe`` gave names to.

    Raises:
        SavedFlowError: if it names a class that is not a public one of this library, or its arguments do not fit.
    """
    try:
        return _build(record, where, {"shared": shared or {}, "tensor": tensors or {}})
    except RecursionError:
        raise SavedFlowError(f"{where} is damaged: it is nested too deeply; copy it again, or fit again") from None


def _build(record: Any, where: str, known: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(record, list):
        return [_build(item, where, known) for item in record]
    if not isinstance(record, dict):
        return record
    if record.keys() in ({"shared"}, {"tensor"}):
        [(reference, name)] = record.items()
        if not isinstance(name, str) or name not in known[reference]:
            raise SavedFlowError(f"{where} is damaged: it refers to {name!r}, which is not recorded")
        return known[reference][name]
    if "external" in record:
        raise SavedFlowError(f"{where} uses {record['external']}, which is not part of this library; pass it to load()")
    kind = _public_class(record.get("class"))
    arguments = record.get("arguments")
    if kind is None or not isinstance(arguments, dict):
        raise SavedFlowError(f"{where} names {record.get('class')!r}, which is no class of this library; pass it in")
    built = {key: _build(value, where, known) for key, value in arguments.items()}
    parameters = inspect.signature(kind).parameters.values()
    positional = [item for p in parameters if p.kind is p.VAR_POSITIONAL for item in built.pop(p.name, None) or []]
    try:
        return kind(*positional, **built)
    except RecursionError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise SavedFlowError(f"{where}: {kind.__name__} cannot be made as recorded ({_first_line(error)})") from error


def names_tensors(record: Any) -> bool:
    """Return whether what ``describe`` recorded refers to tensors kept elsewhere."""
    if isinstance(record, dict):
        return record.keys() == {"tensor"} or any(map(names_tensors, record.values()))
    return isinstance(record, list) and any(map(names_tensors, record))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files that only their owner can read.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def split_arguments(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors that ``describe`` gave names to, and the others."""
    arguments = {key: value for key, value in tensors.items() if key.startswith(_ARGUMENT)}
    return arguments, {key: value for key, value in tensors.items() if key not in arguments}


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON, atomically."""
    write_atomically(path, lambda file: _write_text(file, json.dumps(data, indent=1, allow_nan=False) + "\n"))


def write_tensors(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to ``folder`` under a name made of ``stem`` and their content; return the file's name."""
    from safetensors.torch import save

    data = save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
    name = f"{stem}-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"

    def write(file: Path) -> None:
        file.write_bytes(data)

    write_atomically(folder / name, write)
    return name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote.

    Raises:
        SavedFlowError: if the file is missing, or its content is not what its name says.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise SavedFlowError(f"{path} is missing; copy it from where the flow was saved, or fit again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest()[:16] != path.stem.rpartition("-")[2]:
        raise SavedFlowError(f"{path} is damaged: its content does not match its name; copy it again, or fit again")
    try:
        return load(data)
    except SafetensorError as error:
        raise SavedFlowError(f"{path} holds no tensors ({_first_line(error)}); copy it again, or fit again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SavedFlowError: if the file is missing or is not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SavedFlowError(f"{path} does not exist; {path.parent} is not a saved flow") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SavedFlowError(f"{path} cannot be read ({_first_line(error)}); copy it again, or fit again") from error
    if not isinstance(data, dict):
        raise SavedFlowError(f"{path} is damaged: it does not hold a JSON object; copy it again, or fit again")
    return data


def remove_other(folder: Path, stem: str, keep: str) -> None:
    """Delete the files that `write_tensors` wrote under ``stem`` before, all but ``keep``."""
    for path in folder.glob(f"{stem}-*.safetensors"):
        if path.name != keep:
            path.unlink(missing_ok=True)


def _public_name(kind: type) -> str | None:
    for module in _PUBLIC:
        if _public_class(f"{module}.{kind.__name__}") is kind:
            return f"{module}.{kind.__name__}"
    return None


def _public_class(name: Any) -> type | None:
    module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if module not in _PUBLIC or attribute not in importlib.import_module(module).__all__:
        return None
    kind = getattr(importlib.import_module(module), attribute)
    return kind if inspect.isclass(kind) else None


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
