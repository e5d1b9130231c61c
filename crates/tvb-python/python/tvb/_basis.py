"""A basis folder, open."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from typing import Any

from . import _tvb
from ._matrices import Matrix, matrix
from ._progress import Sink
from ._words import Path


class Basis:
    """A basis folder whose small files were read and checked; its atoms are read when they are needed.

    >>> b = tvb.open("basis")
    >>> b.tasks
    ['cars', 'mnist']
    """

    def __init__(self, inner: _tvb.Basis) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return f"<tvb.Basis {os.fspath(self.path)!r}: {self._inner.in_words()}>"

    @property
    def path(self) -> pathlib.Path:
        """The folder.

        >>> tvb.open("basis").path
        PosixPath('basis')
        """
        return self._inner.path()

    @property
    def tasks(self) -> list[str]:
        """The tasks' names, in column order.

        >>> tvb.open("basis").tasks
        ['cars', 'mnist']
        """
        return self._inner.tasks()

    @functools.cached_property
    def gram(self) -> Matrix | None:
        """The Gram matrix of the task vectors, ``[n_tasks, n_tasks]``; ``None`` where it is not known.

        >>> tvb.open("basis").gram.shape
        (2, 2)
        """
        packed = self._inner.gram()
        return None if packed is None else matrix(packed)

    @functools.cached_property
    def coefficients(self) -> tuple[Matrix | None, Matrix]:
        """``(B, W)``: atoms are mixtures of the tasks by the encode B ``[n_tasks, n_atoms]`` (``None`` where it is not known), and
        tasks come back by the decode W ``[n_atoms, n_tasks]``.

        >>> encode, decode = tvb.open("basis").coefficients
        """
        encode, decode = self._inner.coefficients()
        return (matrix(encode) if encode[0] else None), matrix(decode)

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """``basis.json``: all that is small about the basis.

        >>> tvb.open("basis").manifest["method"]["name"]
        'identity'
        """
        manifest: dict[str, Any] = json.loads(self._inner.manifest())
        return manifest


def open(path: Path) -> Basis:
    """Opens a basis folder. Its small files are read and checked at once.

    >>> b = tvb.open("basis")
    """
    return Basis(_tvb.open(os.fspath(path), Sink()))
