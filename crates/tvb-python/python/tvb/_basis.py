"""A basis folder, open: what it holds, and task arithmetic from it."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from . import _tvb
from ._arrays import empty, tensors_of, told, writable
from ._errors import UsageError
from ._inputs import Input, Inputs
from ._matrices import Matrix, matrix
from ._progress import Progress, Sink, sink
from ._words import Path, flags

#: An edit: a linear expression in the tasks' names, or weights by name.
Edit = str | Mapping[str, float]


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

    def __reduce__(self) -> Any:
        # To another process goes the path.
        return open, (self.path,)

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

    def weights(self, edit: Edit) -> dict[str, float]:
        """What an expression means: the weights of all tasks by name, 0 where a task has no part in it.

        >>> tvb.open("basis").weights("cars - 0.5*mnist")
        {'cars': 1.0, 'mnist': -0.5}
        """
        return dict(zip(self.tasks, self._inner.weights(_said(edit), Sink()), strict=True))

    def task(
        self,
        name: str,
        *,
        as_torch: bool = False,
        dtype: str = "float32",
        tensors: Iterable[str] | None = None,
        clip: bool = False,
        device: str | int | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        progress: Progress = None,
    ) -> dict[str, Any]:
        """A task's vector τ̂ as it comes back from the basis, by tensor: numpy arrays, or torch tensors that share that memory.

        Tensors that no task has moved are not stored, and so not among them. Of tensors that are one under two names, both names
        have the same array.

        Args:
            name: The task.
            as_torch: Torch tensors in place of numpy arrays.
            dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; numpy needs the package ``ml_dtypes`` for the latter.
            tensors: Only these, by name; only they are read.
            clip: Give the largest finite value of the type in place of one beyond it, which is an error otherwise.
            device: As of :func:`compress`.
            threads: As of :func:`compress`.
            memory: As of :func:`compress`.
            progress: As of :func:`compress`.

        >>> delta = tvb.open("basis").task("cars")
        >>> delta["emb.weight"].dtype
        dtype('float32')
        """
        return self.edit(
            {name: 1.0},
            as_torch=as_torch,
            dtype=dtype,
            tensors=tensors,
            clip=clip,
            device=device,
            threads=threads,
            memory=memory,
            progress=progress,
        )

    def edit(
        self,
        edit: Edit,
        *,
        scale: float = 1.0,
        as_torch: bool = False,
        dtype: str = "float32",
        tensors: Iterable[str] | None = None,
        clip: bool = False,
        device: str | int | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        progress: Progress = None,
    ) -> dict[str, Any]:
        """A linear combination of tasks, formed in one pass: what is to be added to the base, by tensor.

        The edit is an expression in the tasks' names or weights by name; the other arguments are those of :meth:`task`.

        >>> delta = tvb.open("basis").edit("cars - 0.5*mnist", scale=0.4)
        """
        stored, twins = self._inner.edit_tensors(Sink())
        shapes = {name: tuple(shape) for name, shape in stored}
        first_of = dict(twins)
        if tensors is None:
            wanted = [*shapes, *first_of]
        else:
            wanted = [tensors] if isinstance(tensors, str) else list(dict.fromkeys(tensors))
            self._check_moved(wanted)
        values: dict[str, Any] = {}
        lent = []
        for name in wanted:
            first = first_of.get(name, name)
            if first not in values:
                # The extension knows which tensors there are, and which name is near.
                values[first], memory_of = empty(first, shapes.get(first, ()), dtype, as_torch)
                lent.append(memory_of)
        setup = flags(device=device, threads=threads, memory=memory)
        self._inner.form(_said(edit), float(scale), lent, clip, setup, sink(progress))
        return {name: values[first_of.get(name, name)] for name in wanted}

    def apply(
        self,
        model: Any,
        edit: Edit,
        *,
        scale: float = 1.0,
        clip: bool = False,
        device: str | int | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        progress: Progress = None,
    ) -> int:
        """Adds an edit to a model in place, chunk by chunk, each tensor in its own type. The model is a ``torch.nn.Module``, or a
        state dict of torch tensors or numpy arrays. Beyond it a few chunks of memory are taken; tensors that are on a GPU are copied
        to the CPU, all of them, and back when the edit is done, with a warning.

        What does not match is refused before anything is written. The model is not compared with the base that the basis was made
        from, as it may have been edited before: names and shapes alone tell whether it is the right one. To take an edit back,
        apply it with ``scale`` negated; rounding stays.

        Args:
            model: The model that is edited.
            edit: An expression in the tasks' names, or weights by name.
            scale: A factor of the whole edit.
            clip: Write the largest finite value of a type in place of one beyond it, which is an error otherwise.
            device: As of :func:`compress`.
            threads: As of :func:`compress`.
            memory: As of :func:`compress`.
            progress: As of :func:`compress`.

        Returns:
            How many tensors were edited; those that are one under two names count once.

        >>> tvb.open("basis").apply(model, {"cars": 1.0}, scale=0.4)
        62
        """
        lent, copies = writable(tensors_of(model, "model"), "model")
        setup = flags(device=device, threads=threads, memory=memory)
        try:
            n_edited = self._inner.apply(_said(edit), float(scale), lent, clip, setup, sink(progress))
            copies.bring_back()
            return n_edited
        finally:
            told(lent)

    def save_edit(
        self,
        edit: Edit,
        base: Input,
        out: Path,
        *,
        scale: float = 1.0,
        dtype: str | None = None,
        clip: bool = False,
        force: bool = False,
        key: str | None = None,
        device: str | int | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        overwrite: bool = False,
        progress: Progress = None,
    ) -> pathlib.Path:
        """Writes an edited copy of the base, as ``tvb apply`` does: a ``.safetensors`` file, or a folder with what lies beside
        the base.

        Args:
            edit: An expression in the tasks' names, or weights by name.
            base: The base checkpoint: a path, a state dict, or a module.
            out: Where it goes. It appears complete or not at all.
            scale: A factor of the whole edit.
            dtype: Type of the float tensors; each keeps its own where nothing is said.
            clip: Write the largest finite value of a type in place of one beyond it, which is an error otherwise.
            force: Use a base that is not the one the basis was made from.
            key: Where in a PyTorch file the state dict lies.
            device: As of :func:`compress`.
            threads: As of :func:`compress`.
            memory: As of :func:`compress`.
            overwrite: Replace an output that is there.
            progress: As of :func:`compress`.

        Returns:
            The path of what was written.

        >>> tvb.open("basis").save_edit("cars - 0.5*mnist", "base.safetensors", "edited.safetensors", scale=0.4)
        PosixPath('edited.safetensors')
        """
        inputs = Inputs()
        words = flags(
            base=inputs.path(base, "base"),
            output=os.fspath(out),
            scale=scale,
            dtype=dtype,
            clip=clip,
            force=force,
            key=key,
            device=device,
            threads=threads,
            memory=memory,
            overwrite=overwrite,
        )
        folder = os.fspath(self.path)
        if isinstance(edit, str):
            words = ["apply", *words, "--", folder, edit]
        else:
            if not edit:
                raise UsageError("edit: at least one task expected, none found")
            words = ["add", *words, *(f"--task={name}:{weight}" for name, weight in edit.items()), "--", folder]
        _tvb.answer(words, inputs.models, sink(progress))
        return pathlib.Path(out)

    def _check_moved(self, names: list[str]) -> None:
        """Of tensors that no task has moved the basis keeps no shape, so there is nothing to form."""
        unmoved = sorted(set(self.manifest["frozen"]).intersection(names))
        if unmoved:
            raise UsageError(f"tensors: no task has moved {', '.join(unmoved)}", "leave out what no edit changes")


def _said(edit: Edit) -> Any:
    """An edit as the extension takes it."""
    if isinstance(edit, str):
        return edit
    if isinstance(edit, Mapping):
        for name, weight in edit.items():
            if not isinstance(name, str):
                raise UsageError(f"edit: names of tasks expected, {name!r} found")
            if isinstance(weight, str) or not hasattr(weight, "__float__"):
                raise UsageError(f"task {name}: a number as its weight expected, {type(weight).__name__} found")
        return [(name, float(weight)) for name, weight in edit.items()]
    raise UsageError(
        f"edit: an expression or weights by name expected, {type(edit).__name__} found",
        'write "a - 0.5*b", or {"a": 1.0, "b": -0.5}',
    )


def open(path: Path) -> Basis:
    """Opens a basis folder. Its small files are read and checked at once.

    >>> b = tvb.open("basis")
    """
    return Basis(_tvb.open(os.fspath(path), Sink()))
