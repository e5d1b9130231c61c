"""Arguments as the words of the command, which has the one parser for them: what they mean and what is refused is the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ._errors import UsageError

#: A path, as text or as an object of :mod:`pathlib`.
Path = str | os.PathLike[str]


def number(value: Any) -> str:
    """A number as it would be typed: ``2.0`` is 2."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def bits_or_off(value: Any) -> Any:
    """``keep_sum``: bits, or off for 0, False and "off"."""
    return "off" if value is False or (value is not None and value == 0) else value


def weighted(weights: Mapping[str, float] | None) -> list[str] | None:
    """``{"a": 0.5}`` as ``["a:0.5"]``."""
    return None if weights is None else [f"{name}:{number(weight)}" for name, weight in weights.items()]


def listed(value: Any) -> list[Any] | None:
    """One text or number, or several."""
    if value is None:
        return None
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def flags(**words: Any) -> list[str]:
    """``--name=value`` for each that is given: nothing for ``None`` and ``False``, ``--name`` for ``True``, one for each of a
    list."""
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
        elif isinstance(value, (str, int, float)) or hasattr(value, "__index__") or hasattr(value, "__float__"):
            typed.append(f"{flag}={number(value)}")
        else:
            raise UsageError(f"{name}: a text or a number expected, {type(value).__name__} found")
    return typed


def part_of(part: Any) -> str | None:
    """``(k, n)`` or ``"k/n"`` as the command has it."""
    if part is None or isinstance(part, str):
        return part
    if isinstance(part, Iterable):
        numbers = list(part)
        if len(numbers) == 2:
            return f"{numbers[0]}/{numbers[1]}"
    raise UsageError(f"part: (number, parts) such as (1, 4) expected, {part!r} found")
