"""What a GPU makes of it: training steps beside a plain loop, a million points, and maps beside a copy of their bytes.

A step of `rfm.fit` is captured once and replayed (`rfm.training.captured_step`). It is compared with the loop of the
reference implementations on the same device, with its loader and without, and with the same step not captured.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from experiments.benchmarks.harness import HEADER, Row
from experiments.benchmarks.maps import Job, jobs, names
from experiments.benchmarks.training_step import loader_loop, steps_in_turns, timed_training
from manifolds import SO3, Manifold, Sphere
from rfm.flow import Flow
from rfm.integrators import RK4, FixedStep
from rfm.networks import VelocityField

INTRO = """\
Training steps on the sphere, the first ten left out. The loop is that of the reference implementations: a `DataLoader`
with pinned memory, velocities by `vmap(jvp)`, a perceptron of six layers; without its loader, it draws batches from
points that are on the GPU already. A million points follow a network of the default size with random weights for four
steps of Runge and Kutta's fourth-order method. The last table has the share of a copy's bandwidth that compiled maps of
four million points reach: the bytes that they read and write, by their time; 70 % is aimed at."""

_BATCH, _COUNT, _GOAL = 512, 1_000_000, 1 / 3
_MANY, _BANDWIDTH_GOAL = 4_000_000, 0.7


def lines(threads: int) -> Iterator[str]:
    """Yield the lines of the tables."""
    yield HEADER
    for width in (128, 512):
        for row in _training(width):
            yield row.line()
    yield "\n| what | points | batch_size | seconds | peak memory of the GPU, MB |\n|---|---:|---:|---:|---:|"
    for manifold in (Sphere(2), SO3()):
        for size in (4096, 65_536):
            yield from _million(manifold, size)
    yield "\n| map, compiled | GB/s | share of a copy's | reached |\n|---|---:|---:|---|"
    selected = [name for name in names() if name.startswith(("Sphere", "SO3", "SE3"))]
    with torch.no_grad():
        for job in jobs(_MANY, "cuda", selected):
            yield _bandwidth(job)


def _training(width: int, turns: int = 3, steps: int = 110) -> Iterator[Row]:
    def ours(capture: bool = True) -> float:
        return timed_training(width, _BATCH, steps, "cuda", capture)[0]

    others = {
        "a DataLoader loop with a perceptron": functools.partial(loader_loop, width, _BATCH, steps, "cuda"),
        "that loop without its loader": functools.partial(loader_loop, width, _BATCH, steps, "cuda", False),
        "the same step, not captured": functools.partial(ours, False),
    }
    for name, other in others.items():
        what = f"training step on S^2, batch {_BATCH}, width {width}, beside {name}"
        yield steps_in_turns(what, ours, other, width, _GOAL, turns)


def _million(manifold: Manifold, size: int) -> Iterator[str]:
    generator = torch.Generator("cuda").manual_seed(0)
    field = VelocityField(manifold)
    torch.nn.init.normal_(field.last.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    flow, solver = Flow(manifold, field).to("cuda"), FixedStep(RK4, 4)
    # The first solve loads kernels.
    x = flow.sample(8, generator=generator, solver=solver)
    flow.log_prob(x, solver=solver)
    x = manifold.random_uniform(_COUNT, generator=generator, device="cuda")
    for name in ("sample", "log_prob"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        if name == "sample":
            flow.sample(_COUNT, generator=generator, solver=solver, batch_size=size)
        else:
            flow.log_prob(x, solver=solver, batch_size=size)
        torch.cuda.synchronize()
        seconds, megabytes = time.perf_counter() - started, torch.cuda.max_memory_allocated() / 1e6
        yield f"| {name} on {manifold} | {_COUNT:,} | {size:,} | {seconds:.2f} | {megabytes:.0f} |"


def _bandwidth(job: Job) -> str:
    compiled = torch.compile(job.ours, dynamic=False)
    result = compiled(*job.arguments)
    moved = sum(a.numel() * a.element_size() for a in (*job.arguments, result))
    source = torch.empty(moved // 8, device=result.device)
    target = torch.empty_like(source)
    calls = {"map": functools.partial(compiled, *job.arguments), "copy": functools.partial(target.copy_, source)}
    seconds = {name: statistics.median(_seconds(call) for _ in range(15)) for name, call in calls.items()}
    share = seconds["copy"] / seconds["map"]
    verdict = "yes" if share >= _BANDWIDTH_GOAL else "no"
    return f"| {job.name} | {moved / seconds['map'] / 1e9:.0f} | {share:.0%} | {verdict} |"


def _seconds(call: Callable[[], object], calls: int = 20) -> float:
    """Return the GPU's seconds for a call: of several in a row, or starting the first would count."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls
