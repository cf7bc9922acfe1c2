"""Laws about shapes, dtypes, devices, randomness and transformations: what the maths does not see."""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.testing.autodiff import jvp
from manifolds.testing.law import law
from manifolds.testing.measurement import Measurement
from manifolds.testing.methods import FRAME, METHODS, POINT, Method, batch_of
from manifolds.testing.probe import Probe


def verdict(wrong: bool, found: str, **inputs: Tensor) -> Measurement:
    """Return a measurement of a yes-or-no question: broken where ``wrong``."""
    expanded = {name: value[None] for name, value in inputs.items()}
    return Measurement(torch.tensor([float(wrong)]), torch.zeros(1), expanded, found=found)


@law(
    "methods run",
    means="a method is missing, sums or normalises over the wrong axes, or divides by zero at an ordinary point",
    remedy="reduce over the event axes only (the last len(event_shape) ones) and keep the batch axes as they come",
    every_dtype=True,
)
def methods_run(p: Probe) -> Iterator[Measurement]:
    """Every method accepts a batch (n, *event_shape) of points and returns finite tensors of the contract's shape."""
    inputs = {name: getattr(p, name) for name in "xyuvt"}
    n = len(p.x)
    for method in METHODS:
        results = method(p.m, **inputs)
        for result, shape in zip(results, method.shapes(p.m, torch.Size([n])), strict=True):
            got = tuple(result.shape)
            yield verdict(got != shape, f"{method.call} for a batch of {n} has shape {got}, should be {shape}")
            if got == shape:
                broken = ~result.detach().isfinite().reshape(n, -1).all(-1)
                at = {name: inputs[name] for name in method.arguments}
                what = f"{method.call} is not finite"
                yield Measurement(broken.to(p.dtype), torch.zeros(n), at, found=what)


@law(
    "dtype is kept",
    means="a constant tensor or a buffer of another dtype takes part, or torch.tensor(...) without dtype",
    remedy="make constants from the input (x.new_tensor, torch.zeros_like(x), dtype=x.dtype) or use Python floats",
    needs=(methods_run,),
    every_dtype=True,
)
def dtype_kept(p: Probe) -> Iterator[Measurement]:
    """Results have the dtype of the inputs."""
    inputs = {name: getattr(p, name) for name in "xyuvt"}
    for method in METHODS:
        for result in method(p.m, **inputs):
            yield verdict(result.dtype != p.dtype, f"{method.call} of {p.dtype} inputs has dtype {result.dtype}")


@law(
    "device is kept",
    means="a constant tensor is made without device=, so that the first call on an accelerator fails",
    remedy="make constants from the input (x.new_tensor, device=x.device) or register them as buffers",
    needs=(methods_run,),
)
def device_kept(p: Probe) -> Iterator[Measurement]:
    """No tensor is made on a device other than the inputs' (tried on PyTorch's meta device)."""
    m = p.elsewhere("meta")
    inputs = {name: getattr(p, name).to("meta") for name in "xyuvt"}
    for method in METHODS:
        wrong, found = False, ""
        try:
            results = method(m, **inputs)
        except (RuntimeError, TypeError) as error:
            # Other failures are the meta device's own: some operations are not written for it.
            text = str(error)
            wrong, found = "meta" in text and "cpu" in text, f"{m.last_call} raised: {first_line(text)}"
        else:
            places = {str(result.device) for result in results}
            wrong, found = places != {"meta"}, f"{method.call} of inputs on meta is on {', '.join(sorted(places))}"
        yield verdict(wrong, found)


def first_line(text: str) -> str:
    """Return the first line, cut at 300 characters."""
    return text.strip().splitlines()[0][:300] if text.strip() else "(no message)"


_BATCHES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((3,), (3,)),
    ((2, 1), (1, 3)),
    ((), (3,)),
    ((2, 3), (3,)),
    ((1,), (1,)),
    ((0,), (0,)),
)


@law(
    "batch shapes broadcast",
    means="a batch axis is squeezed or summed, a mask is applied to the whole batch, or an argument is not expanded",
    remedy="index from the end (x[..., 0], dim=-1), never squeeze() without an axis, and let torch broadcast",
    needs=(methods_run,),
)
def batches_broadcast(p: Probe) -> Iterator[Measurement]:
    """Points x of batch shape a and y, u, v, t of batch shape b give batch shape broadcast(a, b), entry by entry."""
    for a, b in _BATCHES:
        inputs = {"x": batch_of(p, "x", a)} | {name: batch_of(p, name, b, 3) for name in "yuvt"}
        # A vector at another point than its own would not be tangent.
        inputs["u"], inputs["v"] = (p.m.proju(inputs["x"], inputs[name]) for name in "uv")
        for method in METHODS:
            yield from _check_batch(p, method, inputs)


def _check_batch(p: Probe, method: Method, inputs: dict[str, Tensor]) -> Iterator[Measurement]:
    used = {name: inputs[name] for name in method.arguments}
    k = {name: 0 if name == "t" else p.k for name in used}
    batches = {name: value.shape[: value.ndim - k[name]] for name, value in used.items()}
    batch = torch.broadcast_shapes(*batches.values())
    given = ", ".join(f"{name} {tuple(shape)}" for name, shape in batches.items())
    results = method(p.m, **used)
    for result, shape in zip(results, method.shapes(p.m, batch), strict=True):
        got = tuple(result.shape)
        yield verdict(got != shape, f"{method.name} with batch shapes {given} has shape {got}, should be {shape}")
    if batch.numel() == 0 or len(batch) < 2:
        return
    flat = {
        name: value.expand(*batch, *value.shape[len(batches[name]) :]).flatten(0, len(batch) - 1)
        for name, value in used.items()
    }
    expected = method(p.m, **flat)
    for kind, result, plain in zip(method.kinds, results, expected, strict=True):
        if kind == FRAME or result.numel() != plain.numel():
            continue  # A basis is free to differ.
        result = result.flatten(0, len(batch) - 1)
        # Equal infinities, as the log-determinant of a map without inverse, have no difference.
        apart = torch.where(result == plain, 0.0, result - plain)
        difference = p.point_difference(p.m, result, plain) if kind == POINT else apart
        error = difference.detach().reshape(len(plain), -1).norm(dim=-1)
        size = plain.detach().reshape(len(plain), -1).norm(dim=-1).clamp(min=1)
        what = f"{method.name} with batch shapes {given}, against the same inputs in one flat batch,"
        yield Measurement(error, 1e4 * p.unit * size, flat, what)


# Randomness.


def has_uniform(p: Probe) -> str:
    """Return why there are no uniform draws, or nothing."""
    if p.m.volume is None:
        try:
            p.m.random_uniform(1, generator=torch.Generator())
        except ValueError:
            return "no uniform distribution: volume is None and random_uniform raises ValueError"
    return ""


@law(
    "random draws use the generator only",
    means="a draw inside ignores generator=, so results cannot be repeated and a user's own seeds are disturbed",
    remedy="pass generator=, dtype= and device= to every torch.rand and torch.randn; never call torch.manual_seed",
    every_dtype=True,
    applies=has_uniform,
)
def draws_use_generator(p: Probe) -> Iterator[Measurement]:
    """The generator's seed fixes every draw, global random state is untouched, shape and dtype are as asked for."""
    before = torch.get_rng_state()
    draws = [
        p.m.random_uniform(
            *shape, generator=torch.Generator(p.device).manual_seed(p.seed), dtype=p.dtype, device=p.device
        )
        for shape in ((2, 3), (2, 3), ())
    ]
    touched = not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    yield verdict(touched, "random_uniform(2, 3, generator=g) changed torch's global random state")
    yield verdict(not torch.equal(draws[0], draws[1]), "two draws with generators of the same seed differ")
    for draw, shape in zip(draws[1:], ((2, 3), ()), strict=True):
        expected = (*shape, *p.m.event_shape)
        yield verdict(
            tuple(draw.shape) != expected or draw.dtype != p.dtype,
            f"random_uniform{shape} with dtype={p.dtype} has shape {tuple(draw.shape)} and dtype {draw.dtype}, should "
            f"be {expected}",
        )


SLACK_OF_CHECK = 100.0
"""Units of rounding that `Manifold.check_point` allows."""


# Transformations.


@law(
    "methods work under torch.func",
    means="the method reads a tensor's value in Python (.item(), float(x), if (x > 0).any()) or writes in place",
    remedy="replace Python branches on values by torch.where, with a harmless argument in the branch not taken",
    needs=(methods_run, batches_broadcast),
)
def works_under_func(p: Probe) -> Iterator[Measurement]:
    """The vmap of a method, of its jvp and of its gradient equal the batched call."""
    inputs = {name: getattr(p, name)[:4] for name in "xyuvt"}
    for method in METHODS:
        used = tuple(inputs[name] for name in method.arguments)

        def call(*arguments: Tensor, method: Method = method) -> tuple[Tensor, ...]:
            return method(p.m, **dict(zip(method.arguments, arguments, strict=True)))

        def slope(*arguments: Tensor, method: Method = method) -> tuple[Tensor, ...]:
            return jvp(functools.partial(call, method=method), arguments, arguments)[1]

        def gradient(*arguments: Tensor, method: Method = method) -> tuple[Tensor, ...]:
            def total(*c: Tensor) -> Tensor:
                return torch.stack([result.sum() for result in call(*c, method=method)]).sum()

            return torch.func.grad(total, argnums=tuple(range(len(arguments))))(*arguments)

        at = dict(zip(method.arguments, used, strict=True))
        maps = {"": call} | ({"the jvp of ": slope, "the gradient of ": gradient} if method.differentiable else {})
        for prefix, function in maps.items():
            together = function(*used)
            mapped = torch.func.vmap(function)(*used)
            for kind, a, b in zip(method.kinds if not prefix else method.arguments, together, mapped, strict=False):
                if kind == FRAME:
                    continue
                a, b = a.detach().reshape(len(p.x[:4]), -1), b.detach().reshape(len(p.x[:4]), -1)
                allowed = 1e5 * p.unit * a.norm(dim=-1).clamp(min=1)
                yield Measurement((a - b).norm(dim=-1), allowed, at, f"vmap of {prefix}{method.call}")


@law(
    "methods compile",
    means="the method branches on values, calls .item(), or uses Python objects that the compiler cannot trace",
    remedy="remove the construct that the message names; TORCH_LOGS=graph_breaks says where it is",
    needs=(methods_run, works_under_func),
    applies=lambda p: "" if p.compile_backend else "compilation: slow, ask for it with compile=True",
)
def compiles(p: Probe) -> Iterator[Measurement]:
    """torch.compile(fullgraph=True) captures every method and gives the same result."""
    inputs = {name: getattr(p, name)[:4] for name in "xyuvt"}
    manifold: Manifold = p.m.manifold
    for method in METHODS:
        used = {name: inputs[name] for name in method.arguments}
        p.m.last_call = f"torch.compile of {method.name}"
        torch.compiler.reset()

        def call(method: Method = method, **arguments: Tensor) -> tuple[Tensor, ...]:
            return method(manifold, **arguments)

        compiled = torch.compile(call, fullgraph=True, backend=p.compile_backend or "eager")(**used)
        for kind, a, b in zip(method.kinds, call(**used), compiled, strict=True):
            if kind == FRAME:
                continue
            a, b = a.detach().reshape(4, -1), b.detach().reshape(4, -1)
            yield Measurement((a - b).norm(dim=-1), 1e4 * p.unit * a.norm(dim=-1).clamp(min=1), used, method.call)


# The outputs' shapes come first: other laws compute with them.
EARLY = (methods_run, dtype_kept, batches_broadcast, draws_use_generator)
LATE = (works_under_func, device_kept, compiles)
