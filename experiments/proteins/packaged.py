"""The packaged flow of backbones: a run in half precision, with a card whose figures are those of its report."""

import re
from pathlib import Path

import rfm
from rfm import models
from rfm.records import read_json

NAME = "backbones"
_LIMITS = (
    "It draws single chains of 40 to 256 residues; of complexes, ligands and sequences it knows nothing.",
    "Bonds and overlaps are right because the sampler closes and clears them, not because of the network alone.",
    "Whether a sequence folds into what is drawn is not measured here: see rfm refold.",
    "No cis bond survives, and side chains are not drawn.",
)


def pack_run(run: Path, report: Path, out: Path) -> models.Card:
    """Write a run as a packaged model, and return its card.

    Args:
        run: the folder of a finished run.
        report: the Markdown that ``report --final`` wrote of it.
        out: folder of the model.

    Raises:
        ValueError: the report is of another run, or has no row of samples.
    """
    flow, record = rfm.Flow.load(run), read_json(run / "proteins.json")
    text = report.read_text(encoding="utf-8")
    last = flow.history[-1]
    if f"- run: {run};" not in text or f"{last['step']} steps in" not in text:
        raise ValueError(
            f"{report} is no report on {run} as it is now; write it again: report {run} --final --out FILE"
        )
    card = models.Card(
        summary="protein backbones of 40 to 256 residues: N, CA, C and O of single chains",
        data=f"{record['chains']} chains of the Protein Data Bank (CC0), {record['data']}, 80 % of them to train",
        training=(
            f"python -m experiments.proteins train: {last['step']} steps, {last['seconds'] / 60:.0f} minutes, "
            f"{last['cpu_seconds'] / 60:.0f} of one CPU core; seed {record['settings']['seed']}"
        ),
        figures=_figures(text),
        limits=_LIMITS,
        usage=f"rfm sample --model {NAME} --length 100 -n 8 --out folder",
    )
    models.pack(flow, out, card)
    return card


def _figures(text: str) -> dict[str, str]:
    """Return the cells of the last row of samples of each table, by column, beside those of real chains."""
    figures: dict[str, str] = {}
    for header, rows in _tables(text):
        samples = [row for row in rows if " samples, " in row[0]]
        real = [row for row in rows if "real" in row[0]]
        if samples and real:
            figures["samples"] = samples[-1][0]
            cells = zip(header[1:], samples[-1][1:], real[-1][1:], strict=True)
            figures |= {name: f"{own} (real chains: {theirs})" if theirs else own for name, own, theirs in cells}
    if not figures:
        raise ValueError("the report has no row of samples beside real chains; write it again")
    return figures


def _tables(text: str) -> list[tuple[list[str], list[list[str]]]]:
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", text.replace("\\\n", ""), flags=re.M):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.strip().splitlines()]
        tables.append((lines[0], lines[2:]))
    return tables
