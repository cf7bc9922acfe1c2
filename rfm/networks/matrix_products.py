"""Products with a layer's weights outside of autograd, by the faster of the libraries that PyTorch comes with."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

_FEWEST = 2**21
"""Products of numbers from which the faster library makes up for its longer start, of some 60 microseconds."""


def add_product(base: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return ``base + x @ weight.mT`` in the memory of ``base`` ``(n, m)``, for ``x`` ``(n, k)``."""
    linear = _ONEDNN
    if linear is None or not _applies(x, weight):
        return base.addmm_(x, weight.mT)
    return base.add_(linear(x, weight, None, "none", [], ""))


def _applies(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN may multiply, and is worth it: the operator has no derivatives."""
    if torch.compiler.is_compiling() or not torch.backends.mkldnn.enabled:
        return False
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    derived = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return plain and not derived and x.numel() * len(weight) >= _FEWEST


def _onednn() -> Callable[..., Tensor] | None:
    """Return oneDNN's product of dense tensors, where that is the faster one.

    PyTorch multiplies by MKL, which has no code for the AVX-512 units of AMD's processors, and takes twice as long
    there; on Intel's the two are about as fast.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    try:
        product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:  # an operator of the compiler's, which a version of PyTorch may lack
        return None
    return product


_ONEDNN = _onednn()
