"""A trained flow as one that comes with the package: in half precision, with a card that its own figures fill."""

import datetime
import platform
from pathlib import Path

import torch

import rfm
from experiments.symsol.bodies import BODIES
from experiments.symsol.evaluation import IMPLICIT_PDF, modes, seen_poses, test_likelihoods
from experiments.symsol.training import no_data
from rfm.metrics import negative_log_likelihood
from rfm.models import Card, pack, unpacked

_LIMITS = (
    "Pictures are 32 by 32 grey levels of a tetrahedron, cube, icosahedron, cone or cylinder, as the command "
    "experiments.symsol picture makes them: one size, camera and lamp, no texture, no background.",
    "Of other pictures it draws orientations all the same, which mean nothing.",
    "Figures of Implicit-PDF are on SYMSOL's own pictures, which are harder.",
    "A few of a thousand samples come to rest between modes.",
)


def package(flow: rfm.Flow, folder: Path, count: int, pictures: int, samples: int) -> None:
    """Write a flow and its card; arguments after the folder are those of `experiments.symsol.evaluation.report`."""
    pack(flow, folder, Card("", "", ""))
    # What is stored is assessed, not what was trained.
    rounded = unpacked(rfm.Flow.load(folder))
    last = flow.history[-1]
    training = (
        f"python -m experiments.symsol, {last['step']:,} steps, {last['cpu_seconds'] / 60:.1f} minutes of one core of "
        f"{platform.machine()}, float32, seed 0, torch {torch.__version__}, {datetime.date.today().isoformat()}"
    )
    card = Card(
        "orientations that a picture of a tetrahedron, cube, icosahedron, cone or cylinder allows (SYMSOL I)",
        "pictures rendered as they were needed, each with the one pose that it was made from; no licence applies",
        training,
        _figures(rounded, count, pictures, samples),
        _LIMITS,
        "rfm sample --model symsol --condition picture=cube.png -n 1000 --out poses.csv",
    )
    pack(flow, folder, card)
    no_data().save(folder)


def _figures(flow: rfm.Flow, count: int, pictures: int, samples: int) -> dict[str, str]:
    """Return what was measured by body, in words."""
    figures, scores = {}, test_likelihoods(flow, count)
    for body, own, poses, seen in zip(BODIES, scores, *seen_poses(flow, pictures), strict=True):
        nll, measured = negative_log_likelihood(own), modes(flow, body, poses, seen, samples)
        published = f"; Implicit-PDF {IMPLICIT_PDF[body.name]:.2f}" if body.name in IMPLICIT_PDF else ""
        figures[body.name] = (
            f"log-likelihood {-nll.mean:.2f} ± {nll.error_text(2)} nats in a volume of pi^2{published}; "
            f"{100 * measured.recovered:.1f} % of poses found, {100 * measured.near:.1f} % of samples within 15 "
            f"degrees, median error {measured.spread_degrees:.1f} degrees"
        )
    mean = f"log-likelihood {float(scores.mean()):.2f} nats; Implicit-PDF {IMPLICIT_PDF['mean']:.2f}"
    return {
        **figures,
        "mean": mean,
        "assessed on": f"{count} poses and {pictures} pictures of each body, not trained on",
    }
