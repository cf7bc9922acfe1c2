"""Runs that are killed: after a step of training, or when a file is about to be put in place or deleted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class KilledError(BaseException):
    """Nothing catches it."""


def killed_after(step: int) -> Callable[[float, dict[str, Any]], None]:
    """Return a report of progress that kills a run after a step, and after the checkpoint of that step."""

    def report(spent: float, record: dict[str, Any]) -> None:
        if record["step"] == step:
            raise KilledError

    return report


@contextmanager
def killed_before(name: str, error: type[BaseException] = KilledError, *, deleting: bool = False) -> Iterator[None]:
    """Kill what is about to put a file of that name in place, or to delete it."""
    replace, unlink = Path.replace, Path.unlink

    def replacing(self: Path, target: Any) -> Path:
        if Path(target).name == name:
            raise error
        return replace(self, target)

    def unlinking(self: Path, missing_ok: bool = False) -> None:
        if self.name == name:
            raise error
        unlink(self, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        if deleting:
            patch.setattr(Path, "unlink", unlinking)
        else:
            patch.setattr(Path, "replace", replacing)
        yield
