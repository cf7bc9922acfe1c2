"""What commands that draw a run have in common: the file that they write, and its title."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow


def picture_file(arguments: argparse.Namespace, usual: str, endings: Sequence[str]) -> Path:
    """Return the file to write, by default ``usual`` in the run's folder, or here of a packaged model.

    Raises:
        ValueError: its ending is none of these, or it is there already and is not to be replaced.
    """
    from rfm.command_line.table_output import checked_output

    arguments.out = arguments.out or (usual if arguments.model else str(Path(arguments.run) / usual))
    out = checked_output(arguments)
    assert out is not None
    if out.suffix.lower() not in endings:
        raise ValueError(f"--out {out.name} has no known ending; end it in {', '.join(endings)}")
    return out


def title_of(arguments: argparse.Namespace, flow: "Flow", data: "RunData", condition: "Tensor | None") -> str:
    """Return the title that was given, or the data's name with the condition."""
    if arguments.title is not None:
        return str(arguments.title)
    if condition is None:
        return data.source
    assert flow.conditions is not None
    return f"{data.source}: {flow.conditions.title(condition) or 'nothing known'}"
