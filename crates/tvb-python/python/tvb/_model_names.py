"""A basis's tensor names found among those of a PyTorch model: tied parameters, wrappers' prefixes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._progress import log

if TYPE_CHECKING:
    from torch import nn

#: What DDP, FSDP and torch.compile put into names, at any depth.
_WRAPPERS = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"})


class Targets:
    """The names of a model's tensors, asked for by those of a basis."""

    def __init__(self, first: dict[str, str], basis: str | os.PathLike[str]) -> None:
        self.basis = os.fspath(basis)
        self._is_said = False
        #: From every name without wrappers to the first name of its tensor.
        self._first: dict[str, str] = {}
        for name, target in first.items():
            bare = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
            # A name as it is goes before one that looks like it without its wrappers.
            self._first[name] = target
            self._first.setdefault(bare, target)

    def find(self, names: Sequence[str]) -> dict[str, str]:
        """Each name's tensor, by its first name in the model. A name that the model lacks is missing from the answer.

        A prefix that all names need (`bert.` of a model with a head, where the basis is of the body, or the reverse) is put
        on or taken off, if exactly one fits all.
        """
        found = {name: self._first[name] for name in names if name in self._first}
        if len(found) == len(names) or not names:
            return found
        ways = [way for way in self._ways(names[0]) if all(way(name) in self._first for name in names)]
        if len(ways) != 1:
            return found
        way = ways[0]
        if not self._is_said:
            self._is_said = True
            log.info("model: %r is %s the names of %s", way.lead, "put before" if way.is_put_on else "taken off", self.basis)
        return {name: self._first[way(name)] for name in names}

    def _ways(self, name: str) -> list[_Way]:
        put_on = [known[: -len(name)] for known in self._first if known.endswith("." + name)]
        parts = name.split(".")
        taken_off = [".".join(parts[:n]) + "." for n in range(1, len(parts))]
        return [_Way(lead, True) for lead in put_on] + [_Way(lead, False) for lead in taken_off]


class _Way:
    """A prefix to put on a name, or to take off it."""

    def __init__(self, lead: str, is_put_on: bool) -> None:
        self.lead, self.is_put_on = lead, is_put_on

    def __call__(self, name: str) -> str:
        if self.is_put_on:
            return self.lead + name
        return name[len(self.lead) :] if name.startswith(self.lead) else ""


def targets_of(model: nn.Module, basis: str | os.PathLike[str]) -> Targets:
    """The names of a model's parameters and buffers; those of one tensor lead to its first."""
    first: dict[int, str] = {}
    names = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return Targets({name: first.setdefault(id(tensor), name) for name, tensor in names}, basis)
