"""A base and tasks as users name them, as the extension takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ._errors import UsageError
from ._words import Path

#: A checkpoint: a path (``PATH::KEY`` for one state dict of a PyTorch file), a state dict, or a module.
Input = Any
#: Tasks by name, or a list of paths and ``"NAME=PATH"``.
Tasks = Mapping[str, Input] | Iterable[Path]


def column(value: Input, label: str) -> Any:
    """What the extension takes for one checkpoint."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise UsageError(f"{label}: a path, a state dict or a module expected, {type(value).__name__} found")


def named(tasks: Tasks) -> list[tuple[str | None, Any]]:
    """Names and checkpoints; a text of a list is taken apart by the parser of the command."""
    if isinstance(tasks, Mapping):
        return [(name, column(value, f"task {name}")) for name, value in tasks.items()]
    if isinstance(tasks, (str, os.PathLike)):
        raise UsageError(
            f"tasks: a dict of names and checkpoints or a list of paths expected, {type(tasks).__name__} found",
            'write {"NAME": PATH}, or ["NAME=PATH"]',
        )
    return [(None, os.fspath(value)) for value in tasks]
