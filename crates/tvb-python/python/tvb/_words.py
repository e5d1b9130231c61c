"""Arguments as the words of the command, which has the one parser for them: what it means and refuses is the same for both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

#: A path, as text or as an object of :mod:`pathlib`.
Path = str | os.PathLike[str]


def number(value: Any) -> str:
    """A number as it would be typed: ``2.0`` is 2."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def bits_or_off(value: Any) -> str | None:
    """``keep_sum``: bits, or off for 0, False and "off"."""
    if value is None:
        return None
    return "off" if value is False or value == 0 else number(value)


def weighted(weights: Mapping[str, float] | None) -> list[str] | None:
    """``{"a": 0.5}`` as ``["a:0.5"]``."""
    return None if weights is None else [f"{name}:{number(weight)}" for name, weight in weights.items()]


def listed(value: str | Iterable[str] | None) -> list[str] | None:
    """One text or several."""
    return None if value is None else [value] if isinstance(value, str) else list(value)


def flags(**words: Any) -> list[str]:
    """``--name=value`` for each that is given: nothing for ``None`` and ``False``, ``--name`` for ``True``, one for each of a list."""
    typed: list[str] = []
    for name, value in words.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            typed.append(flag)
        elif isinstance(value, (list, tuple)):
            typed.extend(f"{flag}={number(one)}" for one in value)
        elif isinstance(value, os.PathLike):
            typed.append(f"{flag}={os.fsdecode(value)}")
        else:
            typed.append(f"{flag}={number(value)}")
    return typed
