"""Compress many fine-tuned checkpoints of one model into a small task vector basis, and do task arithmetic from it.

>>> import tvb
>>> b = tvb.compress("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.safetensors"}, "basis", bits=2)
"""

from __future__ import annotations

from ._basis import Basis, open
from ._errors import Error, FailedError, InputError, UsageError
from ._jobs import compress
from ._tvb import VERSION as __version__

__all__ = [
    "Basis",
    "Error",
    "FailedError",
    "InputError",
    "UsageError",
    "__version__",
    "compress",
    "open",
]
