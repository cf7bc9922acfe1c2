"""Geometry of flows of backbones beside FrameFlow's and FoldFlow's: ``python -m experiments.benchmarks.frames``.

Noising a batch (draw noise, interpolate), and one Euler step of the sampler. The peers are no packages: give the path
of a checkout of each with ``--peer-path``; a row without one says "not measured". Of FrameFlow (microsoft/
protein-frame-flow, MIT) the files ``data/interpolant.py`` and ``data/so3_utils.py`` are run as they are. What else they
import is not used here, and is not loaded. FoldFlow (DreamFold/FoldFlow, CC BY-NC) needs einops and geomstats; it
noises one chain at a time, by way of NumPy, as its data loader calls it.

Then the share that geometry has in a training step of the study of proteins.
"""

import argparse
import copy
import functools
import importlib
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.benchmarks.compiling import compiled_within
from experiments.benchmarks.harness import HEADER, LIMIT_HEADER, Limit, Row, in_turns, write_page
from manifolds import CentredPoses
from rfm.paths.conversions import velocity_from_endpoint
from rfm.proteins import Settings, backbone_loss, beta_times, new_flow
from rfm.sources import CentredPoseSource, IsotropicGaussianSO3
from rfm.training import ChainBatches

LENGTH_ANGSTROM = 10.0
STEP = 0.01
GOAL = 1 / 3
COMPILE_SECONDS = 60
"""Of the processor; what takes longer is timed as it is."""
CLEAR_RADIANS = 3.1
_INTRO = """\
Medians over interleaved turns of both sides in one process, float32 on our side. Euler steps go from the same frames to
the same predicted end points, noised frames lie between the same ends; the difference is the largest of any entry of a
rotation matrix, over the pairs that are less than 3.1 radians apart: nearer to half a turn both peers lose the axis.
Compiled: by `torch.compile`, on both sides where theirs compiles; random draws on our side are not.
Noise itself is drawn by each side from its own generator: ours from IGSO3(1.5) where the peer does so,
else uniform."""


def main() -> None:
    """Run what can be run, print the tables, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.frames", description=__doc__)
    parser.add_argument("--peer-path", type=Path, action="append", default=[], help="checkout of FrameFlow or FoldFlow")
    parser.add_argument("--batch", type=int, default=16, help="chains (default: 16)")
    parser.add_argument("--residues", type=int, default=128, help="of each chain (default: 128)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: 1)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    for line in (HEADER, *_peers(options), "", LIMIT_HEADER, geometry_share().line()):
        lines.append(line)
        print(line, flush=True)
    if options.out:
        command = "python -m experiments.benchmarks.frames " + " ".join(
            f"--peer-path {_name(path)}" for path in options.peer_path
        )
        write_page(options.out, "Frames of backbones", _INTRO, command, "\n".join(lines), ("geomstats",))


def _peers(options: argparse.Namespace) -> Iterator[str]:
    paths = {_name(path): path for path in options.peer_path}
    size = f"{options.batch} chains of {options.residues}"
    for peer, rows in (("FrameFlow", frameflow), ("FoldFlow", foldflow)):
        if peer not in paths:
            yield from (f"| {what}, {size}, {peer} | | not measured | | | | |" for what in ("noising", "Euler step"))
            continue
        try:
            yield from (row.line() for row in rows(paths[peer], options.batch, options.residues, size))
        except ImportError as error:
            yield f"| noising and Euler step, {size}, {peer} | | not measured: {error} | | | | |"


def _name(path: Path) -> str:
    """Return which peer a checkout holds.

    Raises:
        SystemExit: if it holds neither.
    """
    if (path / "data" / "interpolant.py").is_file():
        return "FrameFlow"
    if (path / "foldflow" / "models" / "se3_fm.py").is_file():
        return "FoldFlow"
    raise SystemExit(f"--peer-path {path}: is no checkout of protein-frame-flow or FoldFlow")


class Ours:
    """Frames at both ends, and what our side does with them."""

    def __init__(self, batch: int, residues: int, igso3: float | None) -> None:
        self.manifold = CentredPoses(residues, LENGTH_ANGSTROM)
        self.path = rfm.GeodesicPath(self.manifold)
        rotation = None if igso3 is None else IsotropicGaussianSO3(torch.eye(3), igso3)
        self.source = CentredPoseSource(self.manifold, rotation)
        generator = torch.Generator().manual_seed(0)
        self.x_0, self.x_1 = (self.source.sample((batch,), generator) for _ in range(2))
        self.t = torch.rand(batch, generator=generator).clamp(0.05, 0.9)
        self.generator = generator

    @property
    def clear(self) -> Tensor:
        """Which pairs of rotations are less than 3.1 radians apart."""
        return self.manifold.m.rotations.dist(self.x_0[..., :3, :3], self.x_1[..., :3, :3]) < CLEAR_RADIANS

    def noised(self) -> Tensor:
        """Draw noise, and go some way from it to the data."""
        return self._between(self.source.sample((len(self.t),), self.generator))

    def step(self) -> Tensor:
        """Take one Euler step from the start towards the end, at time 0.3."""
        t = torch.full((len(self.t),), 0.3)
        return self.manifold.expmap(self.x_0, STEP * velocity_from_endpoint(self.path, self.x_0, t, self.x_1))

    def compiled(self) -> "Ours":
        """Return the same with compiled geometry; random draws stay as they are."""
        other = copy.copy(self)
        other._between = torch.compile(self._between, dynamic=False)  # type: ignore[method-assign]
        other.step = torch.compile(self.step, dynamic=False)  # type: ignore[method-assign]
        return other

    def _between(self, x_0: Tensor) -> Tensor:
        return self.path.sample(x_0, self.x_1, self.t).x_t


def frameflow(path: Path, batch: int, residues: int, size: str) -> Iterator[Row]:
    """Yield the comparisons with FrameFlow."""
    interpolant_module = _frameflow_modules(path)
    ours = Ours(batch, residues, 1.5)
    settings = SimpleNamespace(
        min_t=0.01,
        rots=SimpleNamespace(corrupt=True, sample_schedule="linear", exp_rate=10),
        trans=SimpleNamespace(corrupt=True),
        sampling=SimpleNamespace(num_timesteps=100),
    )
    theirs = interpolant_module.Interpolant(settings)
    theirs.set_device("cpu")
    # Its table of IGSO3, at the one scale that it draws from: the full table takes minutes to compute.
    theirs._igso3 = interpolant_module.so3_utils.SampleIGSO3(1000, torch.tensor([1.4, 1.5]), cache_dir=None)
    ones = torch.ones(batch, residues)
    turns, ways = ours.x_1[..., :3, :3], ours.x_1[..., :3, 3]
    clean = {"trans_1": ways, "rotmats_1": turns, "res_mask": ones, "diffuse_mask": ones}
    t = ours.t[:, None, None]
    between = interpolant_module.so3_utils.geodesic_t(t, turns, ours.x_0[..., :3, :3])
    exact = ours.path.sample(ours.x_0, ours.x_1, ours.t).x_t[..., :3, :3]
    fast = ours.compiled()

    def noised() -> object:
        return theirs.corrupt_batch(clean)

    seen = _largest(exact, between, ours.clear)
    yield _row(f"noising, {size}, FrameFlow", ours.noised, noised, seen)
    yield _row(f"the same, compiled{_note(noised)}", fast.noised, _compiled(noised), seen)

    def step() -> tuple[Tensor, Tensor]:
        time_now = torch.tensor(0.3)
        ways_now = theirs._trans_euler_step(STEP, time_now, ways, ours.x_0[..., :3, 3])
        return theirs._rots_euler_step(STEP, time_now, turns, ours.x_0[..., :3, :3]), ways_now

    seen = _largest(ours.step()[..., :3, :3], step()[0], ours.clear)
    yield _row(f"Euler step, {size}, FrameFlow", ours.step, step, seen)
    yield _row(f"the same, compiled{_note(step)}", fast.step, _compiled(step), seen)


def foldflow(path: Path, batch: int, residues: int, size: str) -> Iterator[Row]:
    """Yield the comparisons with FoldFlow, whose time runs from 0, the data, to 1, the noise."""
    # With geomstats' default, NumPy, it fails.
    os.environ["GEOMSTATS_BACKEND"] = "pytorch"
    sys.path.insert(0, str(path))
    fold = importlib.import_module("foldflow.models.se3_fm")
    rigid = importlib.import_module("openfold.utils.rigid_utils")
    settings = SimpleNamespace(
        flow_trans=True,
        flow_rot=True,
        ot_plan=False,
        stochastic_paths=False,
        r3=SimpleNamespace(min_b=0.01, min_sigma=0.01, max_b=20.0, coordinate_scaling=0.1, g=0.1),
        so3=SimpleNamespace(min_sigma=0.01, max_sigma=1.5, axis_angle=True, inference_scaling=-0.01, g=0.1),
    )
    theirs = fold.SE3FlowMatcher(settings)
    ours = Ours(batch, residues, None)

    def rigids(x: Tensor) -> Any:
        return rigid.Rigid(rigid.Rotation(rot_mats=x[..., :3, :3]), x[..., :3, 3])

    data = [rigids(x) for x in ours.x_1]
    times = [float(1 - t) for t in ours.t]

    def noised(noise: list[Any] | None = None) -> list[Any]:
        triples = zip(data, times, noise or [None] * batch, strict=True)
        return [theirs.forward_marginal(x, t, as_tensor_7=False, rigids_1=z) for x, t, z in triples]

    between = torch.stack([out["rot_t"] for out in noised([rigids(x) for x in ours.x_0])])
    exact = ours.path.sample(ours.x_0, ours.x_1, ours.t).x_t[..., :3, :3]
    # It keeps noised rotations as rotation vectors for a while, so these must not be near half a turn either.
    eye = torch.eye(3).expand_as(exact)
    clear = ours.clear & (ours.manifold.m.rotations.dist(eye, exact) < CLEAR_RADIANS)
    fast, seen = ours.compiled(), _largest(exact, between, clear)
    yield _row(f"noising, {size}, FoldFlow", ours.noised, noised, seen)
    yield _row(f"the same, compiled{_note(noised)}", fast.noised, _compiled(noised), seen)
    now, t = rigids(ours.x_0), torch.full((batch,), 0.7)

    def step() -> Any:
        turning = theirs.calc_rot_vectorfield(ours.x_1[..., :3, :3], ours.x_0[..., :3, :3], t)[1]
        moving = theirs.calc_trans_vectorfield(ours.x_1[..., :3, 3], ours.x_0[..., :3, 3], t[:, None, None])
        return theirs.reverse(now, turning.numpy(), moving.numpy(), 0.7, STEP)

    seen = _largest(ours.step()[..., :3, :3], torch.as_tensor(step()[0]), ours.clear)
    yield _row(f"Euler step, {size}, FoldFlow", ours.step, step, seen)
    yield _row(f"the same, compiled{_note(step)}", fast.step, _compiled(step), seen)


def _row(what: str, ours: Callable[[], object], other: Callable[[], object], difference: float) -> Row:
    return Row(what, *in_turns(ours, other), GOAL, difference, "entries of rotations")


def _largest(exact: Tensor, actual: Tensor, clear: Tensor) -> float:
    return float((exact.double() - actual.double())[clear].abs().max())


@functools.cache
def _compiled(function: Callable[[], object]) -> Callable[[], object]:
    """Return the function compiled, or as it is where that fails."""
    return compiled_within(COMPILE_SECONDS, function) or function


def _note(function: Callable[[], object]) -> str:
    return "" if _compiled(function) is not function else " on our side; theirs does not compile"


def _frameflow_modules(path: Path) -> ModuleType:
    """Return FrameFlow's interpolant, with empty modules for what it imports and does not use here."""
    for name in ("data", "motif_scaffolding"):
        package = types.ModuleType(name)
        package.__path__ = [str(path / name)]
        sys.modules[name] = package
    for name in ("data.utils", "data.all_atom", "motif_scaffolding.twisting"):
        unused = types.ModuleType(name)
        sys.modules[name] = unused
        setattr(sys.modules[name.partition(".")[0]], name.partition(".")[2], unused)
    # The one constant that it takes from there: ten Angstrom to a nanometre.
    sys.modules["data.utils"].NM_TO_ANG_SCALE = 10.0  # type: ignore[attr-defined]
    return importlib.import_module("data.interpolant")


def geometry_share(turns: int = 5) -> Limit:
    """Return the share that noise, paths and logarithms have in a training step of the default network."""
    settings = Settings()
    flow = new_flow(settings)
    source = flow.source
    assert isinstance(source, CentredPoseSource)
    lengths = torch.full((40,), 96)
    frames = source.scattered((int(lengths.sum()),), torch.Generator().manual_seed(0))
    batches = ChainBatches(frames, lengths, source, beta_times(), pairs=settings.pairs)
    shares = []
    for step in range(turns + 1):
        start = time.perf_counter()
        batch = batches.batch(step)
        path = rfm.GeodesicPath(CentredPoses(96, settings.length))
        # What `rfm.endpoint_loss` does around the network, with derivatives, for a prediction that is the noise.
        guess = batch.x_0.clone().requires_grad_()
        rfm.endpoint_loss(lambda x, t, guess=guess: guess, path, *batch[:3]).backward()
        between = time.perf_counter()
        # The same again, with the network and the losses on atoms.
        backbone_loss(flow.field, batches.batch(step), settings.length).mean().backward()  # type: ignore[arg-type]
        shares.append((between - start) / (time.perf_counter() - between))
    share = sorted(shares[1:])[turns // 2]
    assert math.isfinite(share)
    return Limit("geometry in a training step, default network, chains of 96", 100 * share, 5.0, "%")


if __name__ == "__main__":
    main()
