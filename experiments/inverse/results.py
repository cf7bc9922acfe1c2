"""What was computed already: lines of a file, so that a study that was stopped goes on where it was."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


class Results:
    """Values by settings, each pair a line of JSON that is written as soon as it is known.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self._known = path, dict[str, dict[str, Any]]()
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    # The line was cut when the study was stopped.
                    continue
                self._known[_key(record["settings"])] = record["values"]

    @property
    def known(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """All settings with their values, in the order in which they were computed."""
        return ((json.loads(key), values) for key, values in self._known.items())

    def get(self, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the values at these settings, computed only if they are not known."""
        key = _key(settings)
        if key not in self._known:
            self._known[key] = dict(compute())
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    # A new line first, as the last one may have been cut.
                    file.write("\n" + json.dumps({"settings": dict(settings), "values": self._known[key]}))
        return self._known[key]


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
