"""Compiling other people's functions, which may take for ever or raise anything."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch


def compiled_within(seconds: int, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any] | None:
    """Return the function compiled, called once on the way; None where that fails or takes longer.

    Args:
        seconds: of the processor that the first call may take.
        function: what to compile.
        arguments: those of the first call.
    """
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    try:
        _within(seconds, lambda: compiled(*arguments))
    except Exception:  # whatever a peer's code makes the compiler raise: it is timed as it is, alone
        return None
    return compiled


def _within(seconds: int, call: Callable[[], object]) -> None:
    """Call, and raise TimeoutError if it takes more of the processor; where the system has no alarms, wait."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    if not hasattr(signal, "setitimer"):
        call()
        return
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
