"""What a check found, written for the author of the manifold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


class ConformanceError(AssertionError):
    """A manifold breaks a law of the contract."""


@dataclass(frozen=True)
class Finding:
    """One broken law, at the input where it is broken worst.

    Attributes:
        law: name of the law.
        claim: what should hold.
        dtypes: the dtypes in which it does not.
        found: by how much, against what is allowed, or which call raised what.
        error: the worst discrepancy, in the units of the compared quantity; infinite for an exception or a NaN.
        allowed: what was allowed there.
        inputs: the worst input, one entry of the batch.
        means: what it usually means.
        remedy: what to do.
        follows_from: names of broken laws that this one rests on; empty for a root cause.
    """

    law: str
    claim: str
    dtypes: tuple[torch.dtype, ...]
    found: str
    error: float
    allowed: float
    inputs: dict[str, Tensor]
    means: str
    remedy: str
    follows_from: tuple[str, ...] = ()

    def __str__(self) -> str:
        dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
        lines = [f"{self.law} ({dtypes})", f"   claim   {self.claim}", f"   found   {self.found}"]
        lines += [f"   at      {name} = {compact(value)}" for name, value in self.inputs.items()]
        if self.follows_from:
            lines.append(f"   likely a consequence of: {'; '.join(self.follows_from)}")
        else:
            lines += [f"   means   {self.means}", f"   do      {self.remedy}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """The outcome of `check_manifold`.

    Attributes:
        manifold: the manifold, as it prints itself.
        findings: broken laws, root causes first.
        held: names of the laws that hold.
        notes: what was not tested, and why.
        seed: the seed of every random input.
        seconds: wall-clock time of the check.
    """

    manifold: str
    findings: Sequence[Finding]
    held: Sequence[str]
    notes: Sequence[str]
    seed: int
    seconds: float = field(compare=False)

    @property
    def passed(self) -> bool:
        """Whether every law that was tested holds."""
        return not self.findings

    def raise_if_failed(self) -> None:
        """Raise `ConformanceError` with the whole report unless `passed`."""
        if not self.passed:
            raise ConformanceError(str(self))

    def __str__(self) -> str:
        total = len(self.held) + len(self.findings)
        if self.passed:
            lines = [f"{self.manifold} keeps all {total} laws tested (seed {self.seed}, {self.seconds:.1f} s)."]
        else:
            roots = sum(not finding.follows_from for finding in self.findings)
            lines = [
                f"{self.manifold} breaks {len(self.findings)} of {total} laws (seed {self.seed}, "
                f"{self.seconds:.1f} s). Start with the first {'one' if roots == 1 else roots}: the rest may follow."
                if roots < len(self.findings)
                else f"{self.manifold} breaks {roots} of {total} laws (seed {self.seed}, {self.seconds:.1f} s)."
            ]
        lines += [f"\n{i}. {finding}" for i, finding in enumerate(self.findings, 1)]
        if self.notes:
            lines += ["", "Not tested:", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)


def compact(value: Tensor, limit: int = 24) -> str:
    """Return a tensor's entries with six digits on one line, the middle left out of long ones."""
    flat = value.detach().flatten().tolist()
    numbers = [f"{number:.6g}" for number in flat]
    if len(numbers) > limit:
        numbers = [*numbers[: limit // 2], "...", *numbers[-limit // 2 :]]
    text = ", ".join(numbers)
    if value.ndim == 0:
        return text
    return f"[{text}]" + (f" as {tuple(value.shape)}" if value.ndim > 1 else "")


def magnitude(number: float) -> str:
    """Return a number with three digits, and words for what is not one."""
    return "not a number" if math.isnan(number) else f"{number:.3g}"
