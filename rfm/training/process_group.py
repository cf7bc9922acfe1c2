"""The group of the processes that torchrun starts: begun once in a process, and ended with it."""

import atexit
import gc

import torch.distributed as dist


def end_at_exit() -> None:
    """Have the group that was just begun end before the interpreter does, and not earlier.

    A second group of the same process would meet the addresses of the first in torchrun's store, and fail now and then.
    Left to the interpreter, gloo's threads may outlive what they use, and the process is aborted.
    """
    atexit.register(_end)


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    # Wrapped networks are cycles, which hold the group.
    gc.collect()
