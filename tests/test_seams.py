"""Tests reach what they vary through arguments: none changes a name of the library's modules or classes."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("rfm", "manifolds", "experiments")

# What is left, and why it has no argument.
ALLOWED = {
    # Thresholds between two ways to the same numbers, deep inside maps: a caller has nothing to choose.
    "manifolds.numerics.blocks.BLOCK": "above it, maps take a batch in parts",
    "manifolds.rotations.rotation_rows.FEW": "above it, rotations are taken entry by entry",
    "manifolds.matrices.stiefel_log._DESCENTS": "steps of a solver, cut short to see that it says so",
    "manifolds.matrices.stiefel_log._NEWTONS": "the same",
    "rfm.posterior.tangent_solve._FEW": "up to it, a linear solve is direct",
    "rfm.sources.kernel_components._TRUNCATED_PAIRS": "from it on, sums over kernels leave out those far away",
    "rfm.sources.truncated_sums._BLOCK": "points whose sums are taken together",
    "rfm.sources.truncated_sums._REGION": "and how many regions they fall into",
    "rfm.command_line.evaluation._WEIGHING": "how many points the baseline's weights are fitted to",
    "rfm.command_line.evaluation._CENTRES": "and how many kernels it has at most",
    "experiments.inverse.motif.REFERENCE": "the chain that a study's motif is of, where a test makes up the chains",
    # What a command does in earnest, where its words alone are tested.
    "rfm.command_line.fitted_runs.fit": "rubbish that happens to be a table is not trained on",
    "rfm.datasets.load": "data that are downloaded",
    "rfm.proteins.chain_sets.cgdms": "data that another package brings",
    "rfm.plotting.plot_flow": "a picture of fewer points, in seconds",
    "rfm.plotting.layouts._DRAWS": "draws that the part of a map is chosen by",
    "rfm.plotting.layouts.Subject.log_density": "a density that no flow has",
    "rfm.command_line.report._EVALUATIONS": "points at which the density of a page is computed, which take minutes",
    "rfm.command_line.report_content.report_on": "a page is written from content that a test knows",
    "rfm.command_line.plot._PAGE_EVALUATIONS": "the same, of a page that turns",
    "rfm.datasets.formats.arrow.package": "a package that is missing",
    "rfm.proteins.structures.find_spec": "the same",
    "rfm.models.packaged._HERE": "the folder of packaged models, where a test puts one of its own",
    "rfm.command_line.input_parts._LONG_TEXT": "from it on, a text is read part by part",
    "rfm.command_line.output_parts.OutputParts.write": "a kill between two parts",
    "rfm.Flow.sample": "draws that a test knows, or that do not fit into memory",
    "rfm.networks.VelocityField.__init__.__defaults__": "the command line chooses its network by itself",
}


def names_of(tree: ast.Module) -> dict[str, str]:
    """Return what the names of a test file mean in the packages."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found[alias.asname] = alias.name
                else:
                    found[alias.name.partition(".")[0]] = alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {name: meant for name, meant in found.items() if meant.partition(".")[0] in PACKAGES}


def meant_by(node: ast.expr, names: dict[str, str]) -> str:
    """Return the dotted name that an expression stands for; empty for another kind of expression."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = meant_by(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def changed(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the packages that a test file changes, by assignment or through pytest."""
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            for target in targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                yield from (meant_by(part, names) for part in parts if isinstance(part, ast.Attribute))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            first, *rest = node.args
            if isinstance(first, ast.Constant):
                yield str(first.value)
            elif isinstance(rest[0], ast.Constant):
                owner = meant_by(first, names)
                yield f"{owner}.{rest[0].value}" if owner else ""


def found_in_tests() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        for name in changed(ast.parse(file.read_text(encoding="utf-8"))):
            if name.partition(".")[0] in PACKAGES:
                found.setdefault(name, set()).add(file.name)
    return found


def test_no_test_changes_a_name_of_the_library() -> None:
    found = found_in_tests()
    assert found.keys() - ALLOWED.keys() == set(), {name: found[name] for name in found.keys() - ALLOWED.keys()}
    # And nothing is allowed that nobody does.
    assert ALLOWED.keys() - found.keys() == set()


def test_every_way_to_change_a_name_is_seen() -> None:
    text = """
import rfm
from rfm import training as room
from rfm.training import loop
import rfm.paths.times as times
def test(monkeypatch, patch):
    monkeypatch.setattr("rfm.a.B", 1)
    patch.setattr(loop, "C", 1)
    patch.setattr(rfm.Flow, "d", 1)
    before, loop.E = loop.E, 2
    times.F = 3
    room.G += 1
    del loop.H
    monkeypatch.setattr(sys, "stdin", None)
    own.value = 3
"""
    seen = {name for name in changed(ast.parse(text)) if name}
    own = {name for name in seen if name.partition(".")[0] in PACKAGES}
    assert own == {
        "rfm.a.B",
        "rfm.training.loop.C",
        "rfm.Flow.d",
        "rfm.training.loop.E",
        "rfm.paths.times.F",
        "rfm.training.G",
        "rfm.training.loop.H",
    }
