"""A Gram file, read."""

from __future__ import annotations

import functools
import os
import pathlib
from typing import NamedTuple

from . import _tvb
from ._matrices import Matrix, matrix
from ._progress import Sink
from ._words import Path


class GramTensor(NamedTuple):
    """A tensor that took part in a Gram file.

    >>> tvb.gram("base.pt", {"a": "a.pt"}, "run.gram").tensors[0].name
    'emb.weight'
    """

    #: Its name in the base.
    name: str
    #: Its stored type in the base, in safetensors' spelling.
    dtype: str
    #: Its shape.
    shape: tuple[int, ...]
    #: No task moved it.
    frozen: bool


class Gram:
    """A Gram file: the inner products of all task vectors, from which everything about errors and sizes follows.

    >>> g = tvb.gram("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.pt"}, "run.gram")
    >>> g.tasks
    ['cars', 'mnist']
    """

    def __init__(self, path: pathlib.Path, inner: _tvb.Gram) -> None:
        self.path = path
        self._inner = inner

    def __repr__(self) -> str:
        return f"<tvb.Gram {os.fspath(self.path)!r}: {len(self.tasks)} tasks, {len(self.tensors)} tensors>"

    @property
    def tasks(self) -> list[str]:
        """The tasks' names, in column order.

        >>> g.tasks
        ['cars', 'mnist']
        """
        return self._inner.tasks()

    @functools.cached_property
    def matrix(self) -> Matrix:
        """G, the sum over all tensors, ``[n_tasks, n_tasks]``.

        >>> g.matrix.shape
        (2, 2)
        """
        return matrix(self._inner.matrix())

    @functools.cached_property
    def tensors(self) -> list[GramTensor]:
        """The tensors that took part, in the base's order.

        >>> [tensor.name for tensor in g.tensors if tensor.frozen]
        []
        """
        return [GramTensor(name, dtype, tuple(shape), frozen) for name, dtype, shape, frozen in self._inner.tensors()]


def read_gram(path: Path) -> Gram:
    """Reads a Gram file."""
    return Gram(pathlib.Path(path), _tvb.read_gram(os.fspath(path), Sink()))
