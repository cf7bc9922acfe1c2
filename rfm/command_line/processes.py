"""Several processes of one command, as ``torchrun`` starts them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta


def rank() -> int:
    """Return the number of this process."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return how many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def meeting_point() -> Iterator[Callable[[], None]]:
    """Yield a function that returns when all processes have called it."""
    if world() == 1:
        yield lambda: None
        return
    import torch.distributed as dist

    from rfm.training.process_group import end_at_exit

    if not dist.is_initialized():
        # By gloo, with a GPU too: they exchange nothing else. However long one of them takes, the others wait.
        dist.init_process_group("gloo", timeout=timedelta(days=30))
        end_at_exit()
    yield dist.barrier
