"""A basis that tasks join and leave: extend and drop. Each is the command of that name, run in this process."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

from . import _tvb
from ._basis import Basis
from ._basis import open as open_basis
from ._gram import Gram
from ._inputs import Input, Inputs, Tasks
from ._progress import Progress, sink
from ._words import Path, flags, listed


def extend(
    basis: Basis | Path,
    base: Input,
    tasks: Tasks,
    out: Path | None = None,
    *,
    atoms: int | None = None,
    gram: Path | Gram | None = None,
    weight: float = 1.0,
    keep_sum: float | str | None = None,
    rename: str | Iterable[str] = (),
    key: str | None = None,
    force: bool = False,
    threads: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Basis:
    """Takes new tasks into a basis without the originals of those that are in it, as ``tvb extend`` does. Inner products with old
    tasks are estimated from their codes, and said to be; ``gram`` makes them exact.

    Args:
        basis: The basis, or its path.
        base: The base that the basis was made from, as of :func:`compress`.
        tasks: The fine-tunes that join it, as of :func:`compress`.
        out: Where the extended basis goes. It replaces the old one where nothing is said; one that is open then is to be opened again.
        atoms: Atoms of a basis of mixtures from now on; as many as before where nothing is said.
        gram: A Gram file of all tasks, old and new (:func:`gram` with ``extend``).
        weight: The newcomers' weight in the sum that is kept.
        keep_sum: Bits of the shared column that keeps the sum, from now on.
        rename: As of :func:`compress`.
        key: As of :func:`compress`.
        force: Take a base that is not the one the basis was made from.
        threads: As of :func:`compress`.
        memory: As of :func:`compress`.
        overwrite: Replace an output that is there.
        progress: As of :func:`compress`.

    Returns:
        The extended basis, open.

    >>> b = tvb.extend("basis", "base.safetensors", {"svhn": "svhn.safetensors"}, "grown")
    >>> b.tasks
    ['cars', 'mnist', 'svhn']
    """
    inputs = Inputs()
    words = flags(
        base=inputs.path(base, "base"),
        output=None if out is None else os.fspath(out),
        atoms=atoms,
        gram=gram.path if isinstance(gram, Gram) else gram,
        weight=weight,
        keep_sum=keep_sum,
        rename=listed(rename),
        key=key,
        force=force,
        threads=threads,
        memory=memory,
        overwrite=overwrite,
    )
    return _changed(["extend", *words], basis, inputs.tasks(tasks), out, inputs, progress)


def drop(
    basis: Basis | Path,
    names: str | Iterable[str],
    out: Path | None = None,
    *,
    base: Input | None = None,
    originals: Tasks | None = None,
    rename: str | Iterable[str] = (),
    key: str | None = None,
    force: bool = False,
    threads: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Basis:
    """Takes tasks out of a basis, as ``tvb drop`` does. The columns of the others keep their bytes; what the kept sum is off by then
    is stated in the manifest, and made anew where ``originals`` are at hand.

    Args:
        basis: The basis, or its path.
        names: The tasks that go: one name or several.
        out: Where the basis without them goes. It replaces the old one where nothing is said; one that is open then is to be opened
            again.
        base: The base that the basis was made from, where there are ``originals``.
        originals: The fine-tunes of all tasks that go, or of all that stay, as of :func:`compress`.
        rename: As of :func:`compress`.
        key: As of :func:`compress`.
        force: Take a base that is not the one the basis was made from.
        threads: As of :func:`compress`.
        memory: As of :func:`compress`.
        overwrite: Replace an output that is there.
        progress: As of :func:`compress`.

    Returns:
        The basis without them, open.

    >>> b = tvb.drop("basis", "mnist", "smaller")
    >>> b.tasks
    ['cars']
    """
    inputs = Inputs()
    words = flags(
        base=None if base is None else inputs.path(base, "base"),
        output=None if out is None else os.fspath(out),
        rename=listed(rename),
        key=key,
        force=force,
        threads=threads,
        memory=memory,
        overwrite=overwrite,
    )
    columns = [*(listed(names) or []), *([] if originals is None else inputs.tasks(originals))]
    return _changed(["drop", *words], basis, columns, out, inputs, progress)


def _changed(
    words: list[str], basis: Basis | Path, columns: list[str], out: Path | None, inputs: Inputs, progress: Progress
) -> Basis:
    """Runs a command over a basis and opens what it has made of it."""
    folder = basis.path if isinstance(basis, Basis) else pathlib.Path(basis)
    _tvb.answer([*words, "--", os.fspath(folder), *columns], inputs.models, sink(progress))
    return open_basis(folder if out is None else out)
