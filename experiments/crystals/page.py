"""The page that a run writes."""

import argparse
import platform
from collections.abc import Sequence

from experiments.crystals.data import Split
from experiments.crystals.measures import Row
from rfm.discrete import JointFlow

_HEADER = """\
| crystals | 0.5 Å apart | contacts ≥ 0.75 | charges balance | symmetric | volume, Å³ | density, g/cm³ | contacts \
| nearest, Å | repeats |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""
_PAGE = """\
# Crystals

Types of atoms are labels, their places a torus modulo translations, the cell a positive definite matrix: a crystal of k
atoms is a point of `labels^k x FractionalCoordinates(k) x SPD(3)`, and `rfm.discrete.JointFlow` learns all three as
one distribution, for every k with one network. Labels leave a mask by jumps, places and cell follow a velocity, and the
network sees all of them on the way.

![Real crystals beside drawn ones, and the first of each size that was drawn](../images/crystals.png)

The data are the prototypes of the AFLOW library that the package pymatgen carries (`pip install --no-deps pymatgen`,
MIT licence; Mehl et al., 2017, arXiv:1607.02532): one compound for each structure type that people have named, from
copper to superconductors. In Niggli's primitive cells of 2 to {most} atoms, each formula and space group once, they are
{count} crystals of {elements} elements: {train} to train on, {validation} to choose the weights by, {test} held out.
That is few, and hardly two are of one structure type, so that what is held out is new by construction.

- command: `{command}`
- date: {date}; {machine} CPU, one thread; Python {python}, torch {torch}; float32; seed {seed}
- {steps:,} optimiser steps of batches of {batch}, {seconds:.0f} seconds of the processor ({stopped}); {draws} draws of
  {solver_steps} steps

{table}

What the columns say:

- *0.5 Å apart*: the share in which no two atoms are nearer. The usual measure of validity, and a weak one
- *contacts ≥ 0.75*: the share in which no distance is below 0.75 of the sum of covalent radii. Of real ones a few are
- *charges balance*: one common oxidation state for each element makes the charges add up to 0; elements alone and
  metals alone count as balanced. A short table of our own, in the way of SMACT but without electronegativities
- *symmetric*: spglib finds another space group than P1 within 0.1 Å
- *volume* per atom, *density*, *contacts*: the Wasserstein distance to the crystals held out; that of the training
  crystals says what two samples of one distribution differ by
- *nearest*: the median distance to the nearest training crystal, by average minimum distances, which depend on no
  choice of a cell (Widdowson et al., 2022), whichever the elements; *repeats*: the share with the formula of a training
  crystal within 0.1 Å of it

*Parts shuffled* takes types, places and cell from three training crystals; *atoms scattered* leaves types and cell and
puts the atoms anywhere; *shaken* moves the atoms of training crystals by 0.1 Å and strains the cell by 2 %.

{reading}

**What is exact.** The marginals of labels, places and cell on the way are those of the joint path, whatever the data;
with an exact network draws have the law of the data in the limit of many steps, which the tests show for data of which
posterior and velocity are known. The origin counts for nothing, exactly; the order of the atoms neither, as the network
sees them as a set. The order and direction of the cell's edges are shown in all 48 ways, so that they count for little.
The choice of the cell does count: it is Niggli's, which is unique but jumps where two choices are as short. Symmetry is
nowhere built in.
"""
_READING = """\
Of the flow's draws {flow.touching:.0%} keep contacts of at least 0.75: {real.touching:.0%} of the real ones do
that are held out, {scattered.touching:.0%} of scattered atoms, {shuffled.touching:.0%} of shuffled parts, whose places
are those of a real crystal. Charges balance in {flow.balanced:.0%} (real {real.balanced:.0%}),
{flow.symmetric:.0%} have a symmetry within 0.1 Å (real {real.symmetric:.0%}), {flow.repeated:.0%} repeat a training
crystal. Volumes and densities are {flow.volume:.1f} Å³ and {flow.density:.2f} g/cm³ from those held out, where the
training crystals are {train.volume:.1f} and {train.density:.2f}."""


def table_of(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = [
        f"| {r.name} | {r.apart:.2f} | {r.touching:.2f} | {r.balanced:.2f} | {r.symmetric:.2f} | {r.volume:.1f} "
        f"| {r.density:.2f} | {r.contact:.3f} | {r.nearest:.2f} | {r.repeated:.2f} |"
        for r in rows
    ]
    return "\n".join([_HEADER, *lines])


def page(
    rows: Sequence[Row],
    parts: Split,
    flow: JointFlow,
    arguments: argparse.Namespace,
    day: str,
    machine: str,
    torch: str,
) -> str:
    """Return the page of a run."""
    elements = flow.path.source.classes
    options = f"--steps {arguments.steps} --draws {arguments.draws} --out {arguments.out} --figure {arguments.figure}"
    return _PAGE.format(
        most=arguments.most,
        count=sum(map(len, parts)),
        elements=elements,
        train=len(parts.train),
        validation=len(parts.validation),
        test=len(parts.test),
        command=f"python -m experiments.crystals {options}",
        date=day,
        machine=machine,
        python=platform.python_version(),
        torch=torch,
        seed=arguments.seed,
        steps=arguments.steps,
        batch=arguments.batch,
        seconds=float(flow.history[-1]["cpu_seconds"]),
        stopped=flow.stopped,
        draws=arguments.draws,
        solver_steps=arguments.solver_steps,
        table=table_of(rows),
        reading=_reading(rows),
    )


def _reading(rows: Sequence[Row]) -> str:
    """Return what the table says of the flow."""
    by_name = {r.name: r for r in rows}
    return _READING.format(
        flow=by_name["joint flow"],
        real=by_name["real, held out"],
        train=by_name["training"],
        scattered=by_name["atoms scattered"],
        shuffled=by_name["parts shuffled"],
    )
