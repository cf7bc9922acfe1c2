"""Data: tables of numbers, the coordinates in which they hold points, published data sets, and splits.

Protein backbones are in `rfm.proteins`.
"""

import lazy_loader

# Readers of files are loaded when they are first used: whoever fits tensors needs none. The stub is the list of names.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
