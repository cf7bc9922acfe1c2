"""The card of a trained flow: what it was trained on and for how long, what was measured, and what it cannot do."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rfm.records import read_json
from rfm.records.descriptions import SavedFlowError

FILE = "card.json"


@dataclass(frozen=True)
class Card:
    """What a user should know of a trained flow before trusting it.

    Args:
        summary: what it draws, in one line.
        data: what it was trained on, and under which licence.
        training: the command or call, hours, hardware, seed, date.
        figures: what was measured, by name, each with its number in words; from which command.
        limits: what it is not good for, each in a sentence.
        usage: a command that uses it.
    """

    summary: str
    data: str
    training: str
    figures: dict[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    usage: str = ""

    @classmethod
    def read(cls, folder: Path) -> "Card":
        """Return the card in a folder.

        Raises:
            SavedFlowError: if there is none, or an entry is missing or unknown.
        """
        record: dict[str, Any] = read_json(folder / FILE)
        known = {entry.name for entry in fields(cls)}
        required = {"summary", "data", "training"}
        if not required <= record.keys() <= known:
            wrong = ", ".join(sorted((required - record.keys()) | (record.keys() - known)))
            raise SavedFlowError(f"{folder / FILE} is damaged: entries missing or unknown: {wrong}; install rfm again")
        return cls(**(record | {"limits": tuple(record.get("limits", ()))}))

    def lines(self) -> list[str]:
        """Return the card as lines of text."""
        head = [self.summary, f"data: {self.data}", f"training: {self.training}"]
        figures = [f"  {name}: {value}" for name, value in self.figures.items()]
        limits = [f"  {limit}" for limit in self.limits]
        lines = head + (["figures:", *figures] if figures else []) + (["limits:", *limits] if limits else [])
        return lines + ([f"usage: {self.usage}"] if self.usage else [])
