"""Riemannian flow matching on PyTorch: fit, sample and score densities on manifolds."""

import lazy_loader

__version__ = "0.1.0"

# Names are imported when first used, so that the command line answers `--help` without loading torch. The stub beside
# this file is their one list, for type checkers too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
