"""Derivatives of a velocity field along tangent vectors, in whichever mode of differentiation the field allows."""

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from manifolds import Manifold
from manifolds.numerics.precision import at_least_float32
from rfm.field import Field, as_field
from rfm.likelihood.differentiable_operations import with_right_derivatives


class Differentiable:
    """A field with its derivatives: its own, or those of forward mode, or of reverse mode where that is missing.

    Operators without a forward formula or a rule for `torch.func.vmap` are common: fused attention, the fast path of
    ``nn.TransformerEncoderLayer``, LSTMs, nested tensors, functions of a user's own. Which mode serves is found at the
    first evaluation and remembered, so one of these belongs to one solve.

    Where nothing records derivatives, one vector-Jacobian product after the other takes half to two thirds of the time
    of forward mode. It is blind to what a field computes without recording it, under `torch.no_grad` or detached, so it
    serves a field from when it has given the same as forward mode.

    Args:
        field: ``field(x, t, **condition)``.
    """

    def __init__(self, field: Callable[..., Tensor]) -> None:
        self.field = as_field(field)
        self._terms: Callable[..., tuple[Tensor, Tensor]] = _forward
        self._settled = False

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.field(x, t, **condition)

    def along(
        self,
        manifold: Manifold,
        x: Tensor,
        t: Tensor,
        vectors: Tensor,
        covectors: Tensor,
        condition: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Return ``u``, and ``<w_i, Du e_i>`` for vectors ``e_i`` and covectors ``w_i``, ``(*batch, k)``.

        Args:
            manifold: where the points live.
            x: points ``(*batch, *event_shape)``.
            t: times ``(*batch)``.
            vectors: ``(*batch, k, *event_shape)``.
            covectors: the same shape.
            condition: passed on to the field.

        Raises:
            ValueError: if the field is random, or cannot be differentiated in either mode.
        """
        own = self.field.pushforward(x, t, vectors, **condition)
        if own is not None:
            u, du = own
            return _raised((u, (du * covectors).flatten(vectors.ndim - len(manifold.event_shape)).sum(-1)))
        return self._differentiated(manifold, x, t, vectors, covectors, condition)

    def pushforward(
        self, manifold: Manifold, x: Tensor, t: Tensor, vectors: Tensor, condition: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return ``u``, and its derivatives ``Du e_i`` along vectors ``e_i``, ``(*batch, k, *event_shape)``.

        The arguments and errors are those of `along`.
        """
        own = self.field.pushforward(x, t, vectors, **condition)
        return self._differentiated(manifold, x, t, vectors, None, condition) if own is None else _raised(own)

    def _differentiated(
        self,
        manifold: Manifold,
        x: Tensor,
        t: Tensor,
        vectors: Tensor,
        covectors: Tensor | None,
        condition: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        axis = x.ndim - len(manifold.event_shape)
        if self._settled or torch.compiler.is_compiling():
            return _raised(self._terms(self.field, x, t, vectors, covectors, condition, axis))
        check_function("divergence", self.field)
        faster = covectors is not None and _unrecorded() and _suits_reverse(vectors, axis)
        if faster and _AGREED.get(id(self.field.identity), (None, ()))[1] == _circumstances(x):
            self._terms, self._settled = _Reverse(False), True
            return _raised(self._terms(self.field, x, t, vectors, covectors, condition, axis))
        try:
            velocity_and_terms = self._terms(self.field, x, t, vectors, covectors, condition, axis)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            velocity_and_terms = self._in_reverse(error, x, t, vectors, covectors, condition, axis)
        else:
            reverse = faster and _agreed(velocity_and_terms, self.field, x, t, vectors, covectors, condition, axis)
            if reverse:
                # Taken from the first evaluation on, so that the first solve gives the same digits as the others.
                velocity_and_terms, self._terms = reverse, _Reverse(False)
                _remember(self.field.identity, _circumstances(x))
        self._settled = True
        return _raised(velocity_and_terms)

    def _in_reverse(self, reason: RuntimeError, x: Tensor, t: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        """Return what `along` does, after forward mode has failed for a reason, and stay in reverse mode."""
        condition = rest[2]
        before = _random_state(x.device)
        # An error of the field's own, which is no matter of differentiation, is raised here as it is.
        with sdpa_kernel(SDPBackend.MATH):
            u = self.field(x, t, **condition)
        if not torch.equal(before, _random_state(x.device)):
            raise ValueError(
                "divergence: the field draws random numbers, as dropout in training mode does, and so has no density; "
                "call field.eval(), or leave dropout out"
            ) from reason
        # Inside another transformation torch.func alone may differentiate; outside, it knows fewer operators.
        for terms in (_Reverse(u.requires_grad), _reverse_in_transform):
            try:
                velocity_and_terms = terms(self.field, x, t, *rest)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = error
            else:
                self._terms = terms
                return velocity_and_terms
        first = str(reason).partition("\n")[0]
        raise ValueError(
            f"divergence: the field can be differentiated neither in forward nor in reverse mode ({first}); use "
            "differentiable operators, or give the field a method pushforward"
        ) from reason


def differentiable(field: Callable[..., Tensor]) -> Differentiable:
    """Return the field with its derivatives; itself, if it has them already."""
    return field if isinstance(field, Differentiable) else Differentiable(field)


def check_function(where: str, field: Callable[..., Tensor]) -> None:
    """Raise ValueError for a network whose velocity at a point is random, or depends on the rest of the batch."""
    for name, part in as_field(field).named_modules():
        noisy = isinstance(part, _DropoutNd) and part.training and part.p > 0
        if noisy or (isinstance(part, _BatchNorm) and (part.training or part.running_mean is None)):
            mode = "training" if part.training else "evaluation"
            raise ValueError(
                f"{where}: {name or 'the field'} is {part} in {mode} mode: the "
                "velocity at a point is random or depends on the rest of the batch, and there is no density; call "
                "field.eval(), or take p=0, or layer normalisation"
            )


def _forward(
    field: Field, x: Tensor, t: Tensor, vectors: Tensor, covectors: Tensor | None, condition: dict[str, Any], axis: int
) -> tuple[Tensor, Tensor]:
    velocity = with_right_derivatives(lambda y: field(y, t, **condition))

    def along(e: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = torch.func.jvp(velocity, (x,), (e,))[:2]
        return value, derivative

    # The new axis goes first: vmap cannot put it elsewhere where a derivative is zero for all directions alike.
    u, du = torch.func.vmap(along, in_dims=axis, out_dims=(None, 0))(vectors)  # type: ignore[arg-type]
    # Forward mode may take plain numbers for double precision where a point has no batch.
    du = du.movedim(0, axis).to(u.dtype)
    return u, du if covectors is None else (du * covectors).flatten(axis + 1).sum(-1)


_AGREED: dict[int, tuple[Any, tuple[Any, ...]]] = {}
"""Under which circumstances reverse mode has given what forward mode gave: by the identity of fields that are alive."""


def _remember(field: Any, circumstances: tuple[Any, ...]) -> None:
    key = id(field)
    # What cannot be referred to weakly is assessed again in each solve.
    with contextlib.suppress(TypeError):
        _AGREED[key] = weakref.ref(field, lambda _: _AGREED.pop(key, None)), circumstances


_FEW_PRODUCTS, _MANY_POINTS = 16, 128
_AGREEMENT = 1e-3
"""Of the largest term: rounding of float32 is far below, that of half precision and what is not recorded above."""


def _circumstances(x: Tensor) -> tuple[Any, ...]:
    return x.dtype, x.device, tuple(x.shape[1:]), torch.is_autocast_enabled(x.device.type)


def _suits_reverse(vectors: Tensor, axis: int) -> bool:
    """Return whether one product after the other is the faster way: many of them for few points are not, nor on GPUs.

    Measured for perceptrons and convolutions in 2 to 60 dimensions, for 1 to 1024 points.
    """
    few, points = vectors.shape[axis] <= _FEW_PRODUCTS, vectors.shape[:axis].numel()
    return vectors.device.type == "cpu" and (few or points >= _MANY_POINTS)


def _unrecorded() -> bool:
    """Return whether nothing differentiates what is computed here, and autograd may."""
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return not (torch.is_grad_enabled() or torch.is_inference_mode_enabled() or transformed)


def _agreed(forward: tuple[Tensor, Tensor], field: Field, *arguments: Any) -> tuple[Tensor, Tensor] | None:
    """Return what reverse mode gives, if it is at all points what forward mode gave, ``<w_i, Du e_i>``."""
    if forward[1].dtype != at_least_float32(forward[1].dtype):
        # Products in half precision lose more backwards.
        return None
    try:
        found = _Reverse(False)(field, *arguments)
    except RuntimeError:
        return None
    largest = forward[1].abs().max() if forward[1].numel() else forward[1].new_zeros(())
    return found if bool((found[1] - forward[1]).abs().le(_AGREEMENT * largest).all()) else None


class _Reverse:
    """``<w_i, Du e_i>`` as ``<Du' w_i, e_i>``, one covector after the other: no operator needs a rule for batches.

    Without covectors they are the units of the ambient space, and the result is all of ``Du e_i``.

    Args:
        recorded: whether results are differentiated again, as in training by maximum likelihood.
    """

    def __init__(self, recorded: bool) -> None:
        self.recorded = recorded

    def __call__(
        self,
        field: Field,
        x: Tensor,
        t: Tensor,
        vectors: Tensor,
        covectors: Tensor | None,
        condition: dict[str, Any],
        axis: int,
    ) -> tuple[Tensor, Tensor]:
        # Fused attention has no second derivatives.
        kernel = sdpa_kernel(SDPBackend.MATH) if self.recorded else contextlib.nullcontext()
        with torch.enable_grad(), kernel:
            y = x if self.recorded and x.requires_grad else x.detach().requires_grad_()
            u = field(y, t, **condition)

            def pull(w: Tensor) -> Tensor:
                if not u.requires_grad:
                    return torch.zeros_like(y)
                return torch.autograd.grad(
                    u, [y], w.to(u.dtype), retain_graph=True, create_graph=self.recorded, materialize_grads=True
                )[0]

            stacked = _pulled_terms(pull, u, vectors, covectors, axis)
        return (u, stacked) if self.recorded else (u.detach(), stacked.detach())


def _reverse_in_transform(
    field: Field, x: Tensor, t: Tensor, vectors: Tensor, covectors: Tensor | None, condition: dict[str, Any], axis: int
) -> tuple[Tensor, Tensor]:
    with sdpa_kernel(SDPBackend.MATH):
        u, pull = torch.func.vjp(lambda y: field(y, t, **condition), x)[:2]
    return u, _pulled_terms(lambda w: pull(w.to(u.dtype))[0], u, vectors, covectors, axis)


def _pulled_terms(
    pull: Callable[[Tensor], Tensor], u: Tensor, vectors: Tensor, covectors: Tensor | None, axis: int
) -> Tensor:
    """Return ``<Du' w_i, e_i>``, or all of ``Du e_i`` without covectors, from what maps ``w`` to ``Du' w``."""
    if covectors is not None:
        pairs = zip(vectors.unbind(axis), covectors.unbind(axis), strict=True)
        return torch.stack([(pull(w) * e).flatten(axis).sum(-1) for e, w in pairs], -1)
    units = torch.eye(u[(0,) * axis].numel(), dtype=u.dtype, device=u.device).reshape(-1, *u.shape[axis:])
    rows = [pull(unit.expand(u.shape)).unsqueeze(axis) for unit in units]
    return torch.stack([(row * vectors).flatten(axis + 1).sum(-1) for row in rows], -1).reshape(vectors.shape)


def _raised(results: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return results in float32 or more, whatever a network computes in."""
    u, terms = results
    return u.to(at_least_float32(u.dtype)), terms.to(at_least_float32(terms.dtype))


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that layers draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.random.get_rng_state()
