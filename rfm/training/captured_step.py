"""A training step on a GPU, captured once as a CUDA graph and then replayed.

At the sizes of velocity networks a step is a few hundred kernels of microseconds each: starting them one by one takes
longer than running them. A graph starts all of them at once.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_PLAIN_STEPS = 3
"""Steps before the capture: kernels are chosen, the optimiser makes its state, and the last is watched."""
_WAITED, _PROTOTYPE = "synchronizing CUDA operation", "Synchronization debug mode is a prototype"


class CapturedStep:
    """A step that runs plainly at first, and as one graph after that.

    A step that waits for the GPU, such as one whose coupling is solved on the CPU, cannot be captured and stays plain.
    The graph repeats what was done on the GPU and no Python code. So the loss is compared with that of the plain step,
    at the second replay and then each time that their number has doubled: where they differ, the code does something
    else than it did, and steps are run plainly from then on. What was replayed in between stands.

    Args:
        loss: of a step, a scalar; what changes from step to step is drawn from ``generator`` alone.
        update: takes the loss and changes the weights; it leaves no gradients behind.
        optimizer: what ``update`` steps; its learning rates are tensors.
        generator: on the GPU; seeded by the caller before each step.
        buffers: what the loss changes besides, such as running statistics.
    """

    def __init__(
        self,
        loss: Callable[[], Tensor],
        update: Callable[[Tensor], None],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        buffers: Sequence[Tensor] = (),
    ) -> None:
        self._loss, self._update, self._optimizer, self._generator = loss, update, optimizer, generator
        self._buffers = buffers
        self._stream = torch.cuda.Stream(generator.device)
        self._taken = self._replayed = 0
        self._waits_for_nothing = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result = torch.zeros(())

    @property
    def captured(self) -> bool:
        """Whether steps are replayed."""
        return self._graph is not None

    def __call__(self) -> Tensor:
        """Take a step, and return its loss; the next step may overwrite it.

        Raises:
            ValueError: if the step cannot be captured, though it seemed so.
        """
        self._taken += 1
        if self._taken == _PLAIN_STEPS:
            return self._watched()
        if self._taken == _PLAIN_STEPS + 1 and self._waits_for_nothing:
            self._capture()
        if self._graph is None:
            return self._plain()
        self._replayed += 1
        # At 2, 4, 8, ...
        if self._replayed > 1 and self._replayed & (self._replayed - 1) == 0:
            return self._compared()
        self._graph.replay()
        return self._result

    def _plain(self) -> Tensor:
        # On the stream of the capture, where gradients are to be accumulated.
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self._loss()
            self._update(loss)
            result = loss.detach()
        current.wait_stream(self._stream)
        return result

    def _watched(self) -> Tensor:
        """Take a step, and note whether the CPU waits for the GPU anywhere in it."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self._plain()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        self._waits_for_nothing = not any(_WAITED in str(warning.message) for warning in heard)
        for warning in heard:
            if not any(text in str(warning.message) for text in (_WAITED, _PROTOTYPE)):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return result

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        self._set_capturable(True)
        current = torch.cuda.current_stream(self._stream.device)
        # Nothing runs now: the weights stay what they are.
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                loss = self._loss()
                self._update(loss)
                self._result = loss.detach()
        except RuntimeError as error:
            # Leaving the capture fails too, for the first reason's sake, and then leaves its stream behind.
            torch.cuda.set_stream(current)
            self._set_capturable(False)
            reason = str(error.__context__ or error).splitlines()[0]
            raise ValueError(
                f"the training step cannot be captured in a CUDA graph ({reason}); start again with capture=False"
            ) from error
        self._graph = graph

    def _compared(self) -> Tensor:
        """Take a step, and give the graph up if its loss is not the plain one."""
        assert self._graph is not None
        seed = self._generator.initial_seed()
        before = [buffer.clone() for buffer in self._buffers]
        # Dropout draws from the global generator: the replay is to draw the same.
        with torch.random.fork_rng(devices=[self._generator.device]):
            expected = self._loss().detach()
        for buffer, value in zip(self._buffers, before, strict=True):
            buffer.copy_(value)
        self._generator.manual_seed(seed)
        self._graph.replay()
        if torch.allclose(expected, self._result, rtol=1e-3, atol=1e-6, equal_nan=True):
            return self._result
        warnings.warn(
            f"the training step has another loss when it is replayed on the GPU than when it is run, at step "
            f"{self._taken} of this run: its Python code does not do the same at every step; it is run plainly from "
            "here on, which is slower; pass capture=False to run all steps so",
            stacklevel=2,
        )
        self._graph = None
        self._set_capturable(False)
        return expected

    def _set_capturable(self, value: bool) -> None:
        for group in self._optimizer.param_groups:
            group["capturable"] = value
