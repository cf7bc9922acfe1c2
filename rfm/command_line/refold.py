"""``rfm refold``: backbones to ProteinMPNN, its sequences to ESMFold, and what folds back into a table."""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rfm.proteins.refolding import Refolded

SUMMARY = "whether designed sequences fold back into backbones: files for ProteinMPNN and ESMFold, and their answers"

_SHOWN_DIGITS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument(
        "backbones", type=Path, help="folder of single-chain structure files, as rfm sample writes them"
    )
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument(
        "--for-mpnn", type=Path, metavar="FILE", help="first: write the backbones for ProteinMPNN, as .jsonl"
    )
    step.add_argument(
        "--designs", type=Path, metavar="FOLDER", help="second: read what ProteinMPNN wrote, write --out for ESMFold"
    )
    step.add_argument(
        "--folded",
        type=Path,
        metavar="FOLDER",
        help="third: read what ESMFold wrote, NAME_1.pdb and so on; print RMSD and TM-scores, or write them to --out",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="with --designs a .fasta, with --folded a .csv")


def run(arguments: argparse.Namespace) -> None:
    """Take one of the three steps."""
    from rfm.proteins import refolding

    backbones = refolding.read_backbone_folder(arguments.backbones)
    if arguments.for_mpnn is not None:
        if arguments.out is not None:
            raise ValueError("--for-mpnn names its own file; leave --out out")
        refolding.write_mpnn_input(arguments.for_mpnn, backbones)
        print(f"{len(backbones)} backbones: {arguments.for_mpnn}")
        print(
            f"next: protein_mpnn_run.py --jsonl_path {arguments.for_mpnn} --out_folder designs --num_seq_per_target 8"
        )
    elif arguments.designs is not None:
        if arguments.out is None:
            raise ValueError("--designs writes sequences for ESMFold; give --out FILE.fasta")
        designs = refolding.read_designs(arguments.designs, list(backbones))
        refolding.write_folding_input(arguments.out, designs)
        print(f"{sum(map(len, designs.values()))} sequences of {len(designs)} backbones: {arguments.out}")
        print(f"next: esm-fold -i {arguments.out} -o folded")
    else:
        results = refolding.self_consistency(backbones, arguments.folded)
        _write_table(arguments.out, results)
        count = round(refolding.designable_share(results) * len(backbones))
        message = (
            f"{count} of {len(backbones)} backbones are within {refolding.DESIGNABLE:g} Angstrom of a folded sequence"
        )
        print(message, file=sys.stderr)


def _write_table(out: Path | None, results: "Sequence[Refolded]") -> None:
    if out is None:
        _write_rows(sys.stdout, results)
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        _write_rows(file, results)


def _write_rows(file: TextIO, results: "Sequence[Refolded]") -> None:
    from rfm.proteins.refolding import Refolded

    writer = csv.DictWriter(file, [entry.name for entry in fields(Refolded)], lineterminator="\n")
    writer.writeheader()
    for one in results:
        row = asdict(one)
        writer.writerow({k: round(v, _SHOWN_DIGITS) if isinstance(v, float) else v for k, v in row.items()})
