"""Compress many fine-tuned checkpoints of one model into a small task vector basis, and do task arithmetic from it.

>>> import tvb
>>> b = tvb.compress("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.safetensors"}, "basis", bits=2)
>>> delta = b.task("cars")
>>> b.apply(model, {"cars": 1.0, "mnist": -0.5}, scale=0.4)
>>> b.save_edit("cars - 0.5*mnist", "base.safetensors", "edited.safetensors", scale=0.4)

What the library remarks goes to the log ``tvb`` of :mod:`logging`. Every error is a :class:`tvb.Error` with a ``hint``.
"""

from __future__ import annotations

from ._basis import Basis, open
from ._errors import Error, FailedError, InputError, UsageError
from ._gram import Gram, GramTensor
from ._growing import drop, extend
from ._jobs import compress, gram, join, merge, plan, verify
from ._tvb import VERSION as __version__

__all__ = [
    "Basis",
    "Error",
    "FailedError",
    "Gram",
    "GramTensor",
    "InputError",
    "UsageError",
    "__version__",
    "compress",
    "drop",
    "extend",
    "gram",
    "join",
    "merge",
    "open",
    "plan",
    "verify",
]
