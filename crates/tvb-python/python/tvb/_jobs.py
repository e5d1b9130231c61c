"""The jobs: compress, gram, and what is asked of their results."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from . import _tvb
from ._basis import Basis
from ._inputs import Input, Tasks, column, named
from ._progress import Progress, sink
from ._words import Path, bits_or_off, flags, listed, weighted


def compress(
    base: Input,
    tasks: Tasks,
    out: Path,
    *,
    bits: float | str | None = None,
    keep_sum: float | str | bool | None = None,
    keep: str | Iterable[str] | None = None,
    atoms: int | None = None,
    ratio: float | None = None,
    method: str | None = None,
    dtype: str | None = None,
    shared_rank: int | None = None,
    max_bytes: int | str | None = None,
    max_error: float | str | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    gram: Path | None = None,
    include: str | None = None,
    exclude: str | None = None,
    skip_mismatched: bool = False,
    vocab: str = "whole",
    rename: str | Iterable[str] = (),
    key: str | None = None,
    clip: bool = False,
    device: str | int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Basis:
    """Compresses the task vectors of fine-tuned checkpoints into the basis folder ``out``.

    >>> b = tvb.compress("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.pt"}, "basis", bits=2)
    """
    asked = flags(
        bits=bits,
        keep_sum=bits_or_off(keep_sum),
        keep=listed(keep),
        atoms=atoms,
        ratio=ratio,
        method=method,
        dtype=dtype,
        shared_rank=shared_rank,
        max_bytes=max_bytes,
        max_error=max_error,
        weight=weighted(weights),
        seed=seed,
        gram=gram,
        clip=clip,
        **(options or {}),
    )
    asked += _common(locals())
    return Basis(_tvb.compress(column(base, "base"), named(tasks), os.fspath(out), asked, sink(progress)))


def _common(words: Mapping[str, Any]) -> list[str]:
    """What every job over inputs takes."""
    selection = {name: words[name] for name in ("include", "exclude", "skip_mismatched", "vocab", "key")}
    rest = {name: words[name] for name in ("device", "threads", "memory", "overwrite")}
    return flags(rename=listed(words["rename"]), **selection, **rest)
