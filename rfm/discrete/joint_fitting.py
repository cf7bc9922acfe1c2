"""Training of a joint flow on labels with points."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer, positive, seed_of
from rfm.couplings import Coupling, Independent
from rfm.discrete.joint import JointFlow, JointNetwork, Labelled
from rfm.flow.progress import Report
from rfm.records.fingerprint import architecture
from rfm.training import Run, Training
from rfm.training.checkpoint import Validation

_LEARNING_RATE = 1e-3
_VALIDATION_DRAWS = 8


def fit_joint(
    data: Sequence[Labelled],
    flow: JointFlow,
    *,
    held_out: Sequence[Labelled],
    label_weight: float = 1.0,
    coupling: Coupling = Independent(),
    steps: int = 5000,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Report = True,
    training: Training | None = None,
) -> JointFlow:
    """Train a joint flow, by the velocity's loss per dimension and the posterior's per label; in one process.

    Every step takes a batch of one length, drawn as often as its share of the data.

    Args:
        data: training data, a batch for each length.
        flow: the flow; its network is trained in place.
        held_out: data that decide when to stop and which weights to keep, by the sum of the same losses.
        label_weight: of the cross-entropy in the sum.
        coupling: which source point goes with which datum, see `JointFlow.losses`.
        steps: optimiser steps.
        batch_size: data per step.
        seed: of every draw. The network's first weights are the caller's.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``, as in `rfm.fit`.
        progress: show a progress bar on stderr, or a function, as in `rfm.fit`.
        training: as for `rfm.fit`; the learning rate is 1e-3 by default.

    Returns:
        The flow, on the CPU, with ``history``.

    Raises:
        ValueError: for data of a length that the flow does not have, or labels and points that do not fit.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``Training.force`` is given.
    """
    check_instance("fit_joint", "flow", flow, JointFlow, "JointFlow(network, path, sources, lengths)")
    training = Training() if training is None else training
    groups, held = _checked(data, flow), _checked(held_out, flow)
    label_weight = positive("fit_joint", "label_weight", label_weight)
    steps, batch_size = integer("fit_joint", "steps", steps), integer("fit_joint", "batch_size", batch_size)
    budget = training.budget(steps, batch_size, seed_of("fit_joint", seed), _LEARNING_RATE)
    identity = [
        architecture(flow.network),
        flow.path,
        *flow.sources,
        flow.lengths,
        groups,
        held,
        label_weight,
        coupling,
    ]
    run = Run(budget, identity, training=training, out=out, resume=resume, device=device, progress=progress)
    if run.is_finished:
        assert run.folder is not None
        return JointFlow.load(run.folder, network=flow.network, sources=[flow.source(k) for k in flow.lengths])
    training.converted(flow.network)
    with run.launched() as fabric:
        if fabric.world_size > 1:
            raise ValueError("fit_joint: runs in one process; start it without torchrun")
        _train(flow, groups, held, label_weight, coupling, run)
    return flow


def _train(
    flow: JointFlow,
    groups: Sequence[Labelled],
    held: Sequence[Labelled],
    label_weight: float,
    coupling: Coupling,
    run: Run,
) -> None:
    device = run.fabric.device
    groups, held = ([Labelled(*(part.to(device) for part in g)) for g in data] for data in (groups, held))
    generator = torch.Generator(device)
    shares = torch.tensor([len(g.labels) for g in groups], dtype=torch.float64, device=device)

    def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        group = groups[int(torch.multinomial(shares, 1, generator=generator))]
        index = torch.randint(len(group.labels), (run.budget.batch_size,), generator=generator, device=device)
        batch = Labelled(group.labels[index], group.x[index])
        losses = flow.losses(batch, generator=generator, network=model, coupling=coupling)
        return losses.velocity + label_weight * losses.labels

    @torch.no_grad()
    def validate(model: JointNetwork) -> Validation:
        # On fixed draws of the paths, several for each datum, so that only the network makes the difference.
        fixed = torch.Generator(device).manual_seed(run.budget.seed + 1)
        totals = torch.zeros(2, dtype=torch.float64)
        for group in held:
            many = Labelled(*(part.repeat_interleave(_VALIDATION_DRAWS, dim=0) for part in group))
            order = torch.randperm(len(many.labels), generator=fixed, device=device)
            shuffled = Labelled(many.labels[order], many.x[order])
            found = flow.losses(shuffled, generator=fixed, network=model, coupling=coupling)
            totals += len(group.labels) * torch.tensor([float(part) for part in found], dtype=torch.float64)
        velocity, labels = (totals / sum(len(group.labels) for group in held)).tolist()
        return Validation(velocity + label_weight * labels, {"velocity_loss": velocity, "cross_entropy": labels})

    run.train(flow, loss, validate, generator=generator, measure="validation_loss")


def _checked(data: Sequence[Labelled], flow: JointFlow) -> list[Labelled]:
    """Return the batches that are not empty, as whole numbers and points of the manifold."""
    kept, classes = [], flow.path.source.classes
    for labels, x in data:
        if labels.ndim != 2 or labels.is_floating_point() or len(labels) != len(x):
            raise ValueError(
                f"fit_joint: labels must be whole numbers (n, length), with as many points, got {labels.dtype} of "
                f"shape {tuple(labels.shape)} with {len(x)} points; make a batch for each length"
            )
        if len(labels) == 0:
            continue
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise ValueError(
                f"fit_joint: labels must be 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}; number "
                "them from 0, or raise classes"
            )
        manifold = flow.source(labels.shape[1]).manifold
        manifold.check_point(x, tol=1e-3)
        kept.append(Labelled(labels.long(), manifold.projx(x).to(torch.get_default_dtype())))
    if not kept:
        raise ValueError("fit_joint: there are no data; give at least one batch of labels and points")
    return kept
