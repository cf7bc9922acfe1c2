"""Every method of the contract as a function of the same six inputs, for the laws that hold for all of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds.testing.probe import Probe

POINT, VECTOR, SCALAR, FRAME, CODE = "point", "vector", "scalar", "frame", "code"


@dataclass(frozen=True)
class Method:
    """A method of the contract.

    Attributes:
        name: its name.
        arguments: which of the inputs x, y, u, v, t it takes, in order.
        kinds: what it returns: a point, a vector, a scalar, a frame ``(*batch, dim, *event_shape)`` or a code
            ``(*batch, embed_dim)``.
        differentiable: whether its derivative is part of the contract. A basis need not be continuous.
    """

    name: str
    arguments: str
    kinds: tuple[str, ...]
    differentiable: bool = True

    def __call__(self, m: Any, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the method's results as a tuple."""
        result = getattr(m, self.name)(*(inputs[name] for name in self.arguments))
        return result if isinstance(result, tuple) else (result,)

    @property
    def call(self) -> str:
        """The call, for messages."""
        return f"{self.name}({', '.join(self.arguments)})"

    def shapes(self, m: Any, batch: torch.Size) -> tuple[tuple[int, ...], ...]:
        """Return the shapes that the contract demands for a batch shape."""
        tails: dict[str, tuple[int, ...]] = {
            POINT: tuple(m.event_shape),
            VECTOR: tuple(m.event_shape),
            SCALAR: (),
            FRAME: (m.dim, *m.event_shape),
            CODE: (m.embed_dim,),
        }
        return tuple((*batch, *tails[kind]) for kind in self.kinds)


METHODS = (
    Method("projx", "x", (POINT,)),
    Method("proju", "xu", (VECTOR,)),
    Method("expmap", "xu", (POINT,)),
    Method("logmap", "xy", (VECTOR,)),
    Method("inner", "xuv", (SCALAR,)),
    Method("norm", "xu", (SCALAR,)),
    Method("dist", "xy", (SCALAR,)),
    Method("shoot", "xut", (POINT, VECTOR)),
    Method("geodesic", "xyt", (POINT, VECTOR)),
    Method("transp", "xyu", (VECTOR,)),
    Method("embed", "x", (CODE,)),
    Method("tangent_basis", "x", (FRAME,), differentiable=False),
    Method("divergence_frame", "x", (FRAME, FRAME), differentiable=False),
    Method("log_volume_derivative", "xu", (SCALAR,), differentiable=False),
    Method("log_det_expmap", "xu", (SCALAR,)),
)


def batch_of(probe: Probe, name: str, shape: tuple[int, ...], offset: int = 0) -> Tensor:
    """Return input ``name`` with a batch shape, filled from the probe's points from ``offset`` on."""
    source: Tensor = getattr(probe, name)
    size = torch.Size(shape).numel()
    index = (offset + torch.arange(size, device=source.device)) % len(source)
    return source[index].reshape((*shape, *source.shape[1:]))
