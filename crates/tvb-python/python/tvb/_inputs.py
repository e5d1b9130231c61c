"""A base and tasks as users name them, as words of the command and the state dicts that they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from . import _tvb
from ._arrays import Lent, readable, tensors_of
from ._errors import UsageError
from ._words import Path

#: A checkpoint: a path (``PATH::KEY`` for one state dict of a PyTorch file), a state dict of numpy arrays or torch tensors, or a
#: ``torch.nn.Module``.
Input = Any
#: Tasks by name, or a list of paths and ``"NAME=PATH"``.
Tasks = Mapping[str, Input] | Iterable[Path]


class Inputs:
    """Words for checkpoints, and the memory of those that are state dicts."""

    def __init__(self) -> None:
        self.models: list[tuple[str, list[Lent]]] = []

    def path(self, value: Input, label: str) -> str:
        """The path of a checkpoint, or what stands for one in memory."""
        if isinstance(value, (str, os.PathLike)):
            return os.fsdecode(value)
        word = f"memory:{len(self.models)}"
        self.models.append((word, readable(tensors_of(value, label), label)))
        return word

    def tasks(self, tasks: Tasks) -> list[str]:
        """``NAME=PATH`` of each task; a text of a list is taken apart by the command."""
        if isinstance(tasks, Mapping) and tasks:
            return [f"{_name(name)}={self.path(value, f'task {name}')}" for name, value in tasks.items()]
        if isinstance(tasks, (str, os.PathLike)) or not isinstance(tasks, Iterable):
            raise UsageError(
                f"tasks: a dict of names and checkpoints or a list of paths expected, {type(tasks).__name__} found",
                'write {"NAME": PATH}, or ["NAME=PATH"]',
            )
        listed = list(tasks)
        if not listed:
            raise UsageError("tasks: at least one expected, none found", 'write {"NAME": PATH}, or ["NAME=PATH"]')
        for value in listed:
            if not isinstance(value, (str, os.PathLike)):
                raise UsageError(f"tasks: paths expected in a list, {type(value).__name__} found", 'write {"NAME": STATE_DICT}')
        return [os.fsdecode(value) for value in listed]


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise UsageError(f"tasks: names expected, {name!r} found", 'write {"NAME": PATH}')
    _tvb.check_name(name)
    if "=" in name:
        raise UsageError(f"a task's name has an equals sign: {name}", "name the task otherwise")
    return name
