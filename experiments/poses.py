"""Poses of a camera carried round a desk, on SE(3): the density of poses, given the time, and given part of the pose.

Test negative log-likelihoods in nats with respect to dR dp / length^3, with the length printed beside them. The track
is cut into blocks of two seconds, which are held out whole, and intervals are clustered by block. Three flows: of the
pose, with or without the time; of the orientation given the position; of the position given the orientation. A run that
was killed goes on where it was.

    python -m experiments.poses [--out runs/poses] [--figure docs/images/poses.png] [--quick]
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from manifolds import SE3, SO3, Euclidean, Manifold
from rfm.command_line.named_objects import length_of
from rfm.command_line.run_folder import RunData
from rfm.conditions import Conditions
from rfm.datasets import Cartesian, Coordinates, Orientations, TrackDataset, block_labels, desk, group_split
from rfm.metrics import negative_log_likelihood, paired_difference
from rfm.networks import VelocityField
from rfm.plotting import draw_frames, draw_track, new_figure, save_figure, space
from rfm.sources import KernelMixture, RigidMotionSource, Uniform, WrappedNormal

BLOCK_SECONDS = 2.0
TEST_SHARE = 0.2
CONCENTRATIONS = torch.logspace(0, 6, 20, dtype=torch.float64)
ENTRIES = tuple(f"r{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3))
POSITIONS = ("tx", "ty", "tz")


@dataclass(frozen=True)
class Options:
    """How much to do.

    Args:
        out: folder for the three runs.
        every: take each so-manieth pose.
        steps: optimiser steps of each flow.
        width: of the networks.
        seed: of the split and of training.
    """

    out: Path
    every: int = 2
    steps: int = 1500
    width: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """A flow of the study.

    Args:
        name: of its run folder.
        manifold: where its points live.
        points: all of them.
        coordinates: how tables write them.
        condition: by name.
        frequencies: at which the network reads the conditions.
        source: where the flow starts.
    """

    name: str
    manifold: Manifold
    points: Tensor
    coordinates: Coordinates
    condition: Mapping[str, Any]
    frequencies: tuple[float, ...]
    source: Any


def parts(dataset: TrackDataset, options: Options) -> list[Part]:
    """Return the three flows: of poses, of orientations, of positions."""
    poses, seconds = dataset.points[:: options.every], dataset.seconds[:: options.every]
    m = SE3(length_of(dataset.points[:, :3, 3]))
    rotation, position = poses[:, :3, :3], poses[:, :3, 3]
    entries = dict(zip(ENTRIES, rotation.flatten(1).mT, strict=True))
    places = dict(zip(POSITIONS, position.mT, strict=True))
    quaternion = Orientations(("qx", "qy", "qz", "qw"), "xyzw")
    coordinates = replace(dataset.coordinates, length=m.length)
    return [
        Part("pose", m, poses, coordinates, {"seconds": seconds}, (1, 2, 4, 8, 16, 32), RigidMotionSource.fit),
        Part("orientation", SO3(), rotation, quaternion, places, (1, 2, 4, 8), None),
        Part("position", Euclidean(3), position, Cartesian(POSITIONS), entries, (1, 2, 4), WrappedNormal.fit),
    ]


def run_data(part: Part, dataset: TrackDataset, options: Options) -> tuple[RunData, Conditions]:
    """Return the data of a flow; the split is the same for all."""
    blocks = block_labels(dataset.seconds, (BLOCK_SECONDS,))[:: options.every]
    split = group_split(blocks, options.seed, test=TEST_SHARE)
    conditions = Conditions.of(part.condition)
    source = f"{dataset.name}: {dataset.source}"
    condition = conditions.encode(part.condition)
    data = RunData(part.points, split, part.coordinates, source, dataset.sha256, condition, blocks=blocks)
    return data, conditions


def fitted(part: Part, data: RunData, conditions: Conditions, options: Options) -> rfm.Flow:
    """Fit a flow, or go on with it, or load it; its folder is one that ``rfm`` commands take."""
    index = torch.cat([data.split.train, data.split.validation])
    assert data.condition is not None
    known = data.condition[data.split.train]
    embedded = part.manifold.embed(part.points)
    flat = part.manifold.volume is None
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        field = VelocityField(
            part.manifold,
            width=options.width,
            depth=3,
            features=2 * options.width,
            max_frequency=16.0,
            offset=embedded.mean(0).tolist() if flat else None,
            scale=float(embedded.sub(embedded.mean(0)).square().mean().sqrt()) if flat else 1.0,
            condition_dim=known.shape[1],
            condition_offset=known.mean(0).tolist(),
            condition_scale=known.std(0).tolist(),
            condition_frequencies=part.frequencies,
        )
    flow = rfm.fit(
        part.points[index],
        part.manifold,
        condition=data.condition[index],
        conditions=conditions,
        validation=torch.arange(len(data.split.train), len(index)),
        source=part.source,
        field=field,
        # What a flow alone learns of a condition is the question here.
        refine=False,
        steps=options.steps,
        batch_size=256,
        training=rfm.Training(learning_rate=2e-3),
        seed=options.seed,
        device="cpu",
        out=options.out / part.name,
        resume=True,
    )
    data.save(options.out / part.name)
    return flow


def kernels(m: SE3, data: RunData) -> KernelMixture:
    """Return the kernel mixture of poses, with weights that make a thousand validation poses likeliest."""
    validation = data.split.validation[:: max(1, len(data.split.validation) // 1000)]
    train = data.points[data.split.train]
    return KernelMixture.mixture(m, train, data.points[validation], concentrations=CONCENTRATIONS)


def marginals(joint: KernelMixture, m: SE3) -> tuple[KernelMixture, KernelMixture]:
    """Return the orientation's and the position's densities under a kernel mixture of poses: exact, as its parts are.

    A kernel of poses is one of rotations times a normal of variance ``length^2 / k``.
    """
    rotations, space = SO3(), Euclidean(3)
    k, weights, x = joint.concentrations, joint.weights, joint.points
    broad = joint.background
    assert isinstance(broad, RigidMotionSource)
    normal = WrappedNormal(space, broad.translation_mean, broad.translation_scale)
    return (
        KernelMixture(rotations, x[:, :3, :3], k, weights, Uniform(rotations)),
        KernelMixture(space, x[:, :3, 3], k / m.length**2, weights, normal),
    )


def interpolated(m: SE3, data: RunData, seconds: Tensor, scored: Tensor) -> Tensor:
    """Return the log-density of poses, by index, about the geodesic between the training poses before and after them.

    Validation blocks choose the concentration of the kernel, by which the guess is spread.
    """
    train = data.split.train[seconds[data.split.train].argsort()]
    times = seconds[train]

    def squared(index: Tensor) -> Tensor:
        after = torch.searchsorted(times, seconds[index]).clamp(1, len(times) - 1)
        a, b = train[after - 1], train[after]
        # Beyond the ends of the training poses the nearest one is taken.
        share = ((seconds[index] - seconds[a]) / (seconds[b] - seconds[a])).clamp(0, 1)
        guess = m.geodesic(data.points[a], data.points[b], share)[0]
        return (m.embed(guess) - m.embed(data.points[index])).square().sum(-1)

    log_z = m.kernel.log_normaliser(CONCENTRATIONS)
    chosen = (-CONCENTRATIONS * squared(data.split.validation)[:, None] / 2 - log_z).mean(0).argmax()
    return -CONCENTRATIONS[chosen] * squared(scored) / 2 - log_z[chosen]


Row = tuple[str, str, Tensor]


def competitors(m: SE3, datas: Sequence[RunData], seconds: Tensor, index: Tensor) -> list[Row]:
    """Return what is scored, the model, and the log-densities of the poses at ``index``, for all but the flows."""
    pose = datas[0]
    x, r, p = (data.points[index] for data in datas)
    joint = kernels(m, pose)
    of_rotation, of_position = marginals(joint, m)
    broad = joint.background
    assert isinstance(broad, RigidMotionSource)
    unit = _log_unit(m)
    kernel, kernel_r, kernel_p = joint.log_prob(x), of_rotation.log_prob(r), of_position.log_prob(p)
    uniform = torch.full_like(kernel, -math.log(8 * math.pi**2))
    return [
        ("pose", "uniform x normal", broad.log_prob(x)),
        ("pose", "kernel mixture", kernel),
        ("pose given time", "geodesic between neighbours in training, spread", interpolated(m, pose, seconds, index)),
        ("orientation", "uniform", uniform),
        ("orientation", "kernel mixture, marginal", kernel_r),
        ("orientation given position", "kernel mixture, conditional", kernel - unit - kernel_p),
        ("position", "normal", broad.log_prob(x) - uniform - unit),
        ("position", "kernel mixture, marginal", kernel_p),
        ("position given orientation", "kernel mixture, conditional", kernel - unit - kernel_r),
    ]


def scores(flows: Sequence[rfm.Flow], datas: Sequence[RunData]) -> list[Row]:
    """Return what is scored, the model, and the log-densities of the test points, for the flows."""
    m, test = flows[0].manifold, datas[0].split.test
    assert isinstance(m, SE3)
    pairs = list(zip(flows, datas, strict=True))
    free = [flow.log_prob(data.points[test]).double() for flow, data in pairs]
    conditional = [flow.log_prob(data.points[test], **data.conditions_at(test)).double() for flow, data in pairs]
    return [
        ("pose", "flow", free[0]),
        ("pose", "flow of positions, then of orientations given them", free[2] + _log_unit(m) + conditional[1]),
        ("pose given time", "flow", conditional[0]),
        ("orientation given position", "flow", conditional[1]),
        ("position given orientation", "flow", conditional[2]),
    ]


def _log_unit(m: SE3) -> float:
    """Return what a density of positions per cubed unit of the table differs by from the joint one, per length^3."""
    return 3 * math.log(m.length)


def best_competitors(validation: Sequence[Row]) -> dict[str, str]:
    """Return, for each thing that is scored, the model under which the validation poses are likeliest."""
    best: dict[str, tuple[float, str]] = {}
    for what, model, log_prob in validation:
        best[what] = max(best.get(what, (-math.inf, "")), (float(log_prob.mean()), model))
    return {what: model for what, (_, model) in best.items()}


def table(rows: Sequence[Row], blocks: Tensor, best: Mapping[str, str]) -> str:
    """Return the results as Markdown, and each flow against the best of the others, which validation has chosen."""
    lines = ["| density of | model | test NLL, nats | standard error |", "|---|---|---:|---:|"]
    for what in dict.fromkeys(name for name, _, _ in rows):
        for model, log_prob in ((model, score) for name, model, score in rows if name == what):
            nll = negative_log_likelihood(log_prob, groups=blocks)
            lines.append(f"| {what} | {model} | {nll.mean:.2f} | {nll.error_text(2)} |")
    lines.append("")
    scores_by_row = {(what, model): score for what, model, score in rows}
    for what, other in best.items():
        if (what, "flow") in scores_by_row:
            d = paired_difference(-scores_by_row[what, "flow"], -scores_by_row[what, other], groups=blocks)
            lines.append(f"{what}: flow minus {other}: {d.words(2)} nats, {d.count} blocks")
    return "\n".join(lines)


def picture(flows: Sequence[rfm.Flow], data: RunData, seconds: Tensor, path: Path) -> None:
    """Draw the track, and samples: of poses, of poses given a time, and of orientations at a known position."""
    poses, test = data.points, data.split.test[seconds[data.split.test].argsort()]
    figure = new_figure(10.4, 7.2, None)
    grid = figure.add_gridspec(2, 2)
    where = poses[:, :3, 3]
    generator = torch.Generator().manual_seed(0)
    length = 0.25

    axes = space(figure, grid[0, 0], "the track, a frame every second", where)
    draw_track(axes, poses)
    draw_frames(axes, poses[:: len(poses) // 99 or 1], length)

    drawn = flows[0].sample(100, generator=generator)
    axes = space(figure, grid[0, 1], "100 samples", where)
    draw_track(axes, poses, width=0.5)
    draw_frames(axes, drawn, length)

    chosen = test[torch.linspace(0.1, 0.9, 4).mul(len(test)).long()]
    axes = space(figure, grid[1, 0], "12 samples given each of 4 held-out times", where)
    draw_track(axes, poses, width=0.5)
    for i in chosen:
        some = flows[0].sample(12, condition={"seconds": float(seconds[i])}, generator=generator)
        draw_frames(axes, some, length, width=0.7, alpha=0.7)
        draw_frames(axes, poses[i][None], 2 * length, width=2.6)

    axes = space(figure, grid[1, 1], "12 orientations given each of 4 held-out positions", where)
    draw_track(axes, poses, width=0.5)
    for i in chosen:
        place = dict(zip(POSITIONS, where[i].tolist(), strict=True))
        some = poses[i].repeat(12, 1, 1)
        some[:, :3, :3] = flows[1].sample(12, condition=place, generator=generator).double()
        draw_frames(axes, some, length, width=0.7, alpha=0.7)
        draw_frames(axes, poses[i][None], 2 * length, width=2.6)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the three flows, print the table, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m experiments.poses", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/poses"), help="folder for a run per flow")
    parser.add_argument("--steps", type=int, default=Options.steps, help="optimiser steps of each flow (default 1500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="PNG file (default: in --out)")
    parser.add_argument("--quick", action="store_true", help="a few poses and steps, to see that it runs")
    parsed = parser.parse_args(arguments)
    options = Options(parsed.out, steps=parsed.steps, seed=parsed.seed)
    if parsed.quick:
        options = Options(parsed.out, every=80, steps=16, width=32, seed=parsed.seed)
    dataset = desk()
    flows, datas = [], []
    for part in parts(dataset, options):
        data, conditions = run_data(part, dataset, options)
        flows.append(fitted(part, data, conditions, options))
        datas.append(data)
        print(f"{part.name}: {flows[-1].stopped}, {flows[-1].history[-1]['seconds']:.0f} s", file=sys.stderr)
    seconds = dataset.seconds[:: options.every]
    assert datas[0].blocks is not None
    print(f"densities of poses are with respect to dR dp / length^3, {flows[0].manifold}; of positions per cubic metre")
    assert isinstance(flows[0].manifold, SE3)
    split = datas[0].split
    rows, held = (
        competitors(flows[0].manifold, datas, seconds, index)
        for index in (split.test, split.validation[:: max(1, len(split.validation) // 1000)])
    )
    print(table([*rows, *scores(flows, datas)], datas[0].blocks[split.test], best_competitors(held)))
    picture(flows, datas[0], seconds, parsed.figure or parsed.out / "poses.png")


if __name__ == "__main__":
    main()
