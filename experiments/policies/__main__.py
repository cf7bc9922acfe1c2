"""Policies by reward: ``python -m experiments.policies [--quick] [--tasks Attitude Pendulum-v1] [--seeds 0 1 2]``."""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import torch

from experiments.policies.moving import film_attitude
from experiments.policies.report import draw_curves, draw_ways, write_page
from experiments.policies.tasks import METHODS, TASKS
from experiments.policies.training import trained

QUICK_STEPS = 600


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing in the folder, and write page and pictures from all that is there."""
    parser = argparse.ArgumentParser(prog="python -m experiments.policies", description=__doc__)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS), help="what to do")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS), help="how to learn it")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="of every random draw")
    parser.add_argument("--runs", type=Path, default=Path("runs/policies"), help="folder of figures and policies")
    parser.add_argument("--out", type=Path, help="page whose tables are written anew")
    parser.add_argument("--figures", type=Path, help="folder of pictures")
    parser.add_argument("--film", type=Path, help="GIF of bodies that FPO++ turns, of the first seed")
    parser.add_argument("--quick", action="store_true", help="a few seconds for each, to see that all works")
    options = parser.parse_args(arguments)
    if "PPO" in options.methods and find_spec("stable_baselines3") is None:
        parser.error("PPO needs stable-baselines3, pip install 'riemannian-flow-matching[control]'")
    torch.set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.tasks:
            for method in options.methods:
                task = TASKS[name]
                target = options.runs / f"{task.file}-{method}-{seed}.json"
                if not target.exists():
                    found = trained(task, method, QUICK_STEPS if options.quick else task.steps, seed, options.runs)
                    target.write_text(json.dumps(found, indent=1))
    if options.out is not None:
        write_page(options.out, options.runs)
    if options.figures is not None:
        draw_curves(options.runs, options.figures / "policies.png")
        draw_ways(options.runs, options.figures / "passages.png")
    if options.film is not None:
        film_attitude(options.runs / f"attitude-FPO++-{options.seeds[0]}.pt", options.film)


if __name__ == "__main__":
    main()
