"""The documentation does what it says: examples run, links lead somewhere, commands parse."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.inline_examples import current
from rfm.command_line import main as cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
SLOW = {
    "compare_samples",
    "conditions",
    "data_to_data",
    "density_to_answer",
    "diffusion_model",
    "discrete",
    "exact_fields",
    "few_steps",
    "from_diffusion",
    "pictures",
    "surface",
    "check_cylinder",
    "cylinder_default",
    "cylinder_source",
    "fit_a_density",
    "fit_cylinder",
    "interop_geomstats",
    "level_set",
    "likelihoods",
}

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="the documentation is not part of this checkout")


def run(file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a file with warnings as errors, but for those that libraries raise on import and first use."""
    # Forward-mode derivatives of torch; the loader of backends of geomstats.
    ignored = ("ignore:`torch.jit.script` is deprecated:DeprecationWarning", "ignore:BackendImporter:ImportWarning")
    return subprocess.run(
        [sys.executable, "-B", "-W", "error", *(a for warning in ignored for a in ("-W", warning)), file],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "example",
    [pytest.param(e, id=e.stem, marks=[pytest.mark.slow] if e.stem in SLOW else []) for e in EXAMPLES],
)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    result = run(example, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("number", range(len(blocks(ROOT / "README.md", "python"))))
def test_readme_block_runs(number: int, tmp_path: Path) -> None:
    file = tmp_path / "block.py"
    file.write_text(blocks(ROOT / "README.md", "python")[number], encoding="utf-8")
    result = run(file, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("attempt", ["cylinder_first_try", "cylinder_second_try"])
def test_quoted_report_is_what_the_checker_says(attempt: str, tmp_path: Path) -> None:
    quoted = (DOCS / "examples" / f"{attempt}.txt").read_text(encoding="utf-8")
    command = "from rfm.command_line.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-B", "-c", command, "check", f"{attempt}:Cylinder"],
        cwd=DOCS / "examples",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    found = re.sub(r" \(seed 0, [\d.]+ s\)", " (seed 0)", result.stdout)
    # The digits of errors differ between machines; laws, counts and advice do not.
    for line in quoted.splitlines():
        if not line.startswith(("   found", "   at")):
            assert line in found


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = [
        t for t in targets if not t.startswith(("https://", "#")) and not (page.parent / t.split("#")[0]).exists()
    ]
    assert not broken


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            found += [(identify(page), line) for line in block.splitlines() if line.startswith("rfm ")]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_command_parses(page: str, line: str) -> None:
    arguments = cli.parser().parse_args(shlex.split(line, comments=True)[1:])
    assert arguments.command


def test_every_command_is_in_the_readme() -> None:
    shown = {line.split()[1] for page, line in commands() if page == "README.md"} | {"demo"}
    actions = [a.choices for a in cli.parser()._actions if a.dest == "command"]
    assert shown == set(actions[0] or ())


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_examples_in_pages_are_current(page: Path) -> None:
    """Pages hold the code itself, to be read in the repository too; `python -m experiments.inline_examples`."""
    text = page.read_text(encoding="utf-8")
    assert current(text) == text
    assert "--8" + "<--" not in text, "a mark, which the repository would show as it is"


def test_a_page_shows_what_the_example_says(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("a = 1\n\nif a:\n    # --8<-- [start:b]\n    b = 2\n    # --8<-- [end:b]\n")
    page = "Text.\n\n<!-- example: some.py:b -->\n```python\nold\n```\n\nMore.\n"
    assert current(page, tmp_path) == page.replace("old", "b = 2")
    assert current(page.replace(":b", ""), tmp_path).count("\n") == page.count("\n") + 3
    for name, finding in (("other.py", "no other.py"), ("some.py:c", "no section c")):
        with pytest.raises(ValueError, match=finding):
            current(page.replace("some.py:b", name), tmp_path)


def test_every_example_is_shown() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [example.name for example in EXAMPLES if example.name not in text] == []


def test_targets_of_make_exist() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"`make ([a-z]+)`", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", rules, re.MULTILINE), f"{page}: make {target}"


def test_the_cost_of_exchange_is_that_of_the_command() -> None:
    from experiments.benchmarks.exchange import lines

    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert page.split("<!-- exchange -->\n")[1].split("<!-- end -->")[0].splitlines() == list(lines())
