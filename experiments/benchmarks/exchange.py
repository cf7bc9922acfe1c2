"""What several processes exchange in a training step, and what that costs on paper: no network is measured.

``python -m experiments.benchmarks.exchange`` prints the tables of ``docs/scale.md``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from manifolds import Sphere
from rfm.networks import VelocityField

_STEP_SECONDS = 6.5e-3
"""Of a step that is no captured graph, which starting kernels decides: measured on an H200 at batch 512, width 128."""
_BATCH = 512
"""Pairs per process."""
_DRAWN_BYTES = 400
"""Memory that drawing a pair reads and writes on the sphere: indices, two points, a time, over half a dozen kernels."""
_MEMORY_BYTES_PER_SECOND = 4e12
_BUCKETS = 2
"""Messages of a step: DistributedDataParallel closes the first at 1 MiB, which leaves while gradients are taken."""


@dataclass(frozen=True)
class Network:
    """What connects processes.

    Args:
        name: in words.
        processes: for which it is assumed.
        bytes_per_second: that a process sends, and receives at once, of what is promised about 80 %.
        latency: of a message, seconds.
    """

    name: str
    processes: tuple[int, ...]
    bytes_per_second: float
    latency: float


_NETWORKS = (
    Network("gloo over 10 Gb/s Ethernet", (2, 16), 1e9, 50e-6),
    Network("NVLink, one node", (2, 8), 360e9, 5e-6),
    Network("InfiniBand, 400 Gb/s a GPU", (16, 64, 256, 1024), 40e9, 12e-6),
)


def seconds(network: Network, processes: int, size: int) -> float:
    """Return the seconds of an all-reduce: what a ring carries, with the latency of a tree, NCCL's for few bytes.

    Each process sends ``2 (N - 1) / N`` times the message (Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms
    for clusters of workstations, 2009), in ``2 log2 N`` rounds.
    """
    carried = 2 * (processes - 1) / processes * size / network.bytes_per_second
    return carried + _BUCKETS * 2 * math.ceil(math.log2(processes)) * network.latency


def lines() -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| network | processes | width | gradients, MB | exchange, ms | draw, ms | exchange / step | efficiency |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for width in (256, 512):
        size = 4 * sum(p.numel() for p in VelocityField(Sphere(2), width=width).parameters())
        for network in _NETWORKS:
            for processes in network.processes:
                exchange = seconds(network, processes, size)
                draw = processes * _BATCH * _DRAWN_BYTES / _MEMORY_BYTES_PER_SECOND
                # Nothing is assumed to be hidden behind the backward pass.
                efficiency = _STEP_SECONDS / (_STEP_SECONDS + exchange + draw)
                yield (
                    f"| {network.name} | {processes:,} | {width} | {size / 1e6:.1f} | {1e3 * exchange:.2f} | "
                    f"{1e3 * draw:.3f} | {exchange / _STEP_SECONDS:.2f} | {efficiency:.2f} |"
                )


if __name__ == "__main__":
    print("\n".join(lines()))
