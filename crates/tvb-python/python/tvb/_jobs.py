"""The jobs: compress, gram, join, plan, verify and merge. Each is the command of that name, run in this process."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from . import _tvb
from ._basis import Basis
from ._basis import open as open_basis
from ._errors import UsageError
from ._gram import Gram, read_gram
from ._inputs import Input, Inputs, Tasks
from ._progress import Progress, sink
from ._words import Path, bits_or_off, flags, listed, number, part_of, weighted


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
    gram: Path | Gram | None = None,
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
    part: tuple[int, int] | str | None = None,
    into: Path | None = None,
    progress: Progress = None,
) -> Basis | Any:
    """Compresses the task vectors of fine-tuned checkpoints into the basis folder ``out``.

    Tasks are coded as they are, in ``bits`` bits an element (2 where nothing is said), unless ``atoms``, ``ratio`` or ``method``
    asks for mixtures. The arguments are the flags of ``tvb compress``, whose help says more of each.

    Args:
        base: The base checkpoint: a path, a state dict, or a ``torch.nn.Module``.
        tasks: The fine-tunes: a dict of names and checkpoints, or a list of paths and ``"NAME=PATH"``.
        out: The basis folder. It appears complete or not at all.
        bits: 0.25, 0.5, 1, 1.6, 2, 3, 4, 5, 6 or 8.
        keep_sum: Bits of the shared column that keeps the sum of all tasks exact; 0 or ``"off"`` for none.
        keep: Expressions that are kept too, ``"a + b"`` or ``"a + b:4"``.
        atoms: So many mixtures of the tasks.
        ratio: The same as a share of the number of tasks.
        method: How tasks are mixed: anchored, exact, ae, pca, sample, random, cluster, nmf or identity.
        dtype: How mixtures are stored where they are not coded: f32, bf16 or f16.
        shared_rank: LoRA adapters alone: cores of this rank between two factors that all share.
        max_bytes: The most that fits: a number of bytes, ``"10G"``, or ``"5%"`` of the float32 task vectors.
        max_error: The least that keeps every task's relative squared error below this; ``"mean:0.1"`` for the mean.
        weights: Weights of tasks in the sum that is kept, by name; 1 for others.
        seed: Of whatever is random in a method.
        options: More of the command's flags by name, such as ``{"balance": True, "steps": 2000}``.
        gram: A Gram file of the same inputs: one read instead of two.
        include: Only tensors in whose name this regular expression matches.
        exclude: No tensor in whose name this one matches.
        skip_mismatched: Leave out tensors that do not match instead of stopping.
        vocab: ``"common"`` takes the rows that embeddings and heads of other sizes have in common.
        rename: Rules for the names of the tasks' tensors, ``"s/REGEX/REPLACEMENT/"``.
        key: Where in a PyTorch file the state dict lies.
        clip: Write the largest finite value of a type in place of one beyond it, which is an error otherwise.
        device: ``"auto"``, ``"cpu"``, ``"gpu"``, an index, or a part of an adapter's name.
        threads: To compute and read with; one for each core by default.
        memory: Cap on host buffers, such as ``"2G"``.
        overwrite: Replace an output that is there.
        part: ``(k, n)``: the k-th of n parts, counted from 1, which :func:`join` makes one basis of.
        into: With ``part``: a folder on a file system that all parts share, where each writes its rows to their place.
        progress: ``True``, a class like ``tqdm.tqdm``, or a callable that is told ``(stage, bytes done, bytes in all)``.

    Returns:
        The basis, open. With ``part``: the path of the part.

    Raises:
        UsageError: Arguments that do not fit each other.
        InputError: Checkpoints that do not fit, or an output that is in the way.
        FailedError: I/O, or a device.

    >>> b = tvb.compress("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.pt"}, "basis", bits=2)
    >>> b.tasks
    ['cars', 'mnist']
    """
    words = flags(
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
        gram=gram.path if isinstance(gram, Gram) else gram,
        clip=clip,
        **(options or {}),
    )
    words += _selected(include, exclude, skip_mismatched, vocab, rename, key)
    words += flags(device=device, threads=threads, memory=memory, overwrite=overwrite, part=part_of(part), into=into)
    _over_inputs("compress", base, tasks, out, words, progress)
    return open_basis(out) if part is None else pathlib.Path(out)


def gram(
    base: Input,
    tasks: Tasks,
    out: Path,
    *,
    include: str | None = None,
    exclude: str | None = None,
    skip_mismatched: bool = False,
    vocab: str = "whole",
    rename: str | Iterable[str] = (),
    key: str | None = None,
    extend: Path | Gram | None = None,
    device: str | int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    part: tuple[int, int] | str | None = None,
    progress: Progress = None,
) -> Gram | Any:
    """Reads the inputs once and keeps their Gram matrices in the small file ``out``, so that later solves cost milliseconds.

    The arguments are those of :func:`compress`. ``extend`` is a Gram file of the first of these tasks, in their order: its entries are
    taken as they are, and only those of the new tasks are formed. Returns the Gram file, read; with ``part``: the path of the part.

    >>> g = tvb.gram("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.pt"}, "run.gram")
    >>> g.matrix.shape
    (2, 2)
    >>> more = {"cars": "cars.safetensors", "mnist": "mnist.pt", "svhn": "svhn.safetensors"}
    >>> tvb.gram("base.safetensors", more, "more.gram", extend=g).matrix.shape
    (3, 3)
    """
    words = _selected(include, exclude, skip_mismatched, vocab, rename, key)
    known = extend.path if isinstance(extend, Gram) else extend
    words += flags(extend=known, device=device, threads=threads, memory=memory, overwrite=overwrite, part=part_of(part))
    _over_inputs("gram", base, tasks, out, words, progress)
    return read_gram(out) if part is None else pathlib.Path(out)


def join(
    parts: Iterable[Path],
    out: Path,
    *,
    copies: bool = False,
    into: Path | None = None,
    device: str | int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Basis | Gram | Any:
    """Makes one Gram file or one basis of all parts, in any order: the bytes of one run. The inputs need not be at hand.

    Args:
        parts: The paths of all parts.
        out: Where the whole goes.
        copies: Take parts whose inputs were copies of one another, on machines of their own: their paths and times may differ.
        into: The folder that the parts wrote their rows to, where it is not at the path that they were given.
        device: As of :func:`compress`.
        threads: As of :func:`compress`.
        memory: As of :func:`compress`.
        overwrite: Replace an output that is there.
        progress: As of :func:`compress`.

    Returns:
        The basis, open, or the Gram file, read.

    >>> parts = [tvb.compress("base.pt", {"a": "a.pt"}, f"part-{k}", part=(k, 2)) for k in (1, 2)]
    >>> b = tvb.join(parts, "basis")
    """
    if isinstance(parts, (str, os.PathLike)):
        raise UsageError(f"parts: a list of paths expected, {type(parts).__name__} found")
    listed_parts = [os.fsdecode(part) for part in parts]
    if not listed_parts:
        raise UsageError("parts: all parts of a job expected, none found", "name them in any order")
    words = flags(
        output=os.fspath(out), copies=copies, into=into, device=device, threads=threads, memory=memory, overwrite=overwrite
    )
    _run(["join", *words, "--", *listed_parts], Inputs(), progress)
    return open_basis(out) if os.path.isdir(out) else read_gram(out)


def plan(
    gram: Path | Gram,
    *,
    atoms: int | Iterable[int] | None = None,
    method: str | Iterable[str] | None = None,
    bits: float | str | Iterable[float | str] | None = None,
    keep_sum: float | str | bool | None = None,
    expressions: str | Iterable[str] | None = None,
    tasks: Iterable[str] | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = None,
) -> Any:
    """What each number of atoms, each method and each code would cost and lose, from a Gram file alone.

    Returns a ``pandas.DataFrame`` where pandas can be imported, else a list of dicts, one for each row of ``tvb plan --json``.

    Args:
        gram: A Gram file, or what :func:`gram` answered.
        atoms: Numbers of atoms to show; a spread from 1 to the number of tasks where none is given.
        method: Methods to show beside the coded tasks; ``"all"`` for all.
        bits: Show every method's atoms coded in so many bits, too.
        keep_sum: Bits of the column that keeps the sum beside those codes; 0 or ``"off"`` for none.
        expressions: Edits whose truth is told, such as ``"a - 0.5*b"``.
        tasks: Only these.
        weights: Weights of tasks in the sum that is kept.
        seed: Of whatever is random in a method.
        options: More of the command's flags by name.
        progress: As of :func:`compress`.

    >>> rows = tvb.plan("run.gram", atoms=[1, 2])
    """
    words = flags(
        gram=gram.path if isinstance(gram, Gram) else gram,
        atoms=listed(atoms),
        method=listed(method),
        bits=listed(bits),
        keep_sum=bits_or_off(keep_sum),
        expression=listed(expressions),
        tasks=listed(tasks),
        weight=weighted(weights),
        seed=seed,
        **(options or {}),
    )
    rows = _run(["plan", *words], Inputs(), progress)["rows"]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.json_normalize(rows)


def verify(
    basis: Path | Basis,
    base: Input | None = None,
    tasks: Tasks | None = None,
    *,
    device: str | int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    progress: Progress = None,
) -> dict[str, Any]:
    """Checks a basis' checksums and, with the originals, its true errors.

    Returns ``{"files": […], "intact": True}``, with the originals also ``"errors"``: gain, noise, measured and predicted error of
    each task. A basis that is damaged is an :class:`InputError` that names the files.

    >>> tvb.verify("basis")["intact"]
    True
    """
    inputs = Inputs()
    words = flags(device=device, threads=threads, memory=memory)
    if base is not None:
        words += flags(base=inputs.path(base, "base"))
    words += ["--", os.fspath(basis.path if isinstance(basis, Basis) else basis)]
    if tasks is not None:
        words += inputs.tasks(tasks)
    return _run(["verify", *words], inputs, progress)


def merge(
    base: Input | None = None,
    tasks: Tasks | None = None,
    out: Path | None = None,
    *,
    recipe: Path | None = None,
    basis: Path | Basis | None = None,
    method: str = "task_arithmetic",
    weights: Mapping[str, float] | None = None,
    scale: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    like: str | None = None,
    weight_for: str | Iterable[str] = (),
    lines: str | None = None,
    seed: int | None = None,
    only_for: str | None = None,
    orthogonalise: bool = False,
    trim: str | None = None,
    allow_outside: bool = False,
    dtype: str | None = None,
    clip: bool = False,
    include: str | None = None,
    exclude: str | None = None,
    skip_mismatched: bool = False,
    vocab: str = "whole",
    rename: str | Iterable[str] = (),
    key: str | None = None,
    device: str | int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> pathlib.Path:
    """Merges models into the checkpoint ``out``: by a method and its models, or by a recipe of mergekit's.

    Args:
        base: The base checkpoint, as of :func:`compress`; of a recipe nothing.
        tasks: The fine-tunes, as of :func:`compress`; with ``basis`` a list of names, or nothing for all.
        out: A ``.safetensors`` file, or a folder.
        recipe: A recipe in mergekit's YAML, or a model card that holds one, in place of base, tasks and parameters.
        basis: A basis that has the tasks.
        method: As of ``tvb merge --method``: ``"ties"``, ``"dare_linear"``, ``"tsv_m"``, …
        weights: Weights of the tasks by name; of plain task arithmetic, tasks that are not named are left out.
        scale: A factor of the whole edit, the method's λ.
        parameters: Parameters of the method by name, ``{"density": 0.2}``; one task's own is ``{"density": {"cars": 0.1}}``, and a list goes
            through the layers.
        like: ``"paper"`` or ``"mergekit"``, where the two differ; a recipe means mergekit's, a method the paper's.
        weight_for: Factors of tensors by their names, ``"REGEX=W"`` or ``"TASK:REGEX=W"``.
        lines: LiNeS: ``"ALPHA:BETA"``.
        seed: Of what falls at random.
        only_for: One task's own model, of ``"tall"`` and ``"emr"``.
        orthogonalise: Make the task vectors orthogonal to each other first.
        trim: ``"tensor"`` or ``"model"``: what the largest values are asked over.
        allow_outside: Read models outside of the recipe's folder, too.
        dtype: Type of the float tensors; each keeps its own where nothing is said.

    The other arguments are those of :func:`compress`. Returns the path of what was written.

    >>> tvb.merge("base.safetensors", {"cars": "cars.safetensors", "mnist": "mnist.pt"}, "merged.safetensors", scale=0.4)
    PosixPath('merged.safetensors')
    >>> tvb.merge("base/", {"cars": "cars/", "mnist": "mnist/"}, "ties/", method="ties", parameters={"density": 0.2})
    PosixPath('ties')
    >>> tvb.merge(recipe="recipe.yml", out="merged/")
    PosixPath('merged')
    """
    if out is None:
        raise UsageError("out: a path expected, none found", 'out="merged/"')
    if like not in (None, "paper", "mergekit"):
        raise UsageError(f"like: 'paper' or 'mergekit' expected, {like!r} found")
    inputs = Inputs()
    common = [
        *_selected(include, exclude, skip_mismatched, vocab, rename, key),
        *flags(dtype=dtype, clip=clip, output=os.fspath(out), seed=seed, orthogonalise=orthogonalise, trim=trim),
        *flags(weight_for=listed(weight_for), lines=lines, basis=_folder(basis), like_paper=like == "paper"),
        *flags(like_mergekit=like == "mergekit", allow_outside=allow_outside, **{"for": only_for}),
        *flags(device=device, threads=threads, memory=memory, overwrite=overwrite),
    ]
    if recipe is not None:
        if base is not None or tasks is not None or weights or parameters or scale is not None:
            raise UsageError("a recipe, or models and their parameters expected, both found", "a recipe names its models")
        is_card = os.fspath(recipe).endswith(".md")
        words = [f"--recipe-from={os.fspath(recipe)}"] if is_card else ["--", os.fspath(recipe)]
        _run(["merge", *common, *words], inputs, progress)
        return pathlib.Path(out)
    words = flags(method=method, **{"lambda": scale})
    if base is not None:
        words += flags(base=inputs.path(base, "base"))
    if method == "task_arithmetic" and weights is not None and basis is None and isinstance(tasks, Mapping):
        unknown = [name for name in weights if name not in tasks]
        if unknown:
            raise UsageError(f"weights: unknown task {unknown[0]!r}", f"tasks: {', '.join(tasks)}")
        tasks = {name: tasks[name] for name in tasks if name in weights}
    own = dict(parameters or {})
    if weights is not None:
        if "weight" in own:
            raise UsageError("weights or parameters['weight'] expected, both found")
        own["weight"] = weights
    for name, value in own.items():
        words += flags(**{name: _values(name, value)})
    if basis is not None:
        words += flags(task=listed(tasks))
        _run(["merge", *common, *words], inputs, progress)
    else:
        if tasks is None:
            raise UsageError("tasks: at least one expected, none found", 'write {"NAME": PATH}, or ["NAME=PATH"]')
        _run(["merge", *common, *words, "--", *inputs.tasks(tasks)], inputs, progress)
    return pathlib.Path(out)


def _folder(basis: Path | Basis | None) -> str | None:
    """Where a basis is."""
    return None if basis is None else os.fspath(basis.path if isinstance(basis, Basis) else basis)


def _values(name: str, value: Any) -> list[str]:
    """A merger's parameter as it would be typed: one value, a list over the layers, or a dict of tasks' own."""
    if isinstance(value, Mapping):
        return [f"{task}={_values(name, own)[0]}" for task, own in value.items()]
    if isinstance(value, (list, tuple)):
        return [",".join(_values(name, own)[0] for own in value)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [number(value)]


def _selected(
    include: str | None,
    exclude: str | None,
    skip_mismatched: bool,
    vocab: str,
    rename: str | Iterable[str],
    key: str | None,
) -> list[str]:
    """Flags that say which tensors take part."""
    return flags(include=include, exclude=exclude, skip_mismatched=skip_mismatched, vocab=vocab, rename=listed(rename), key=key)


def _over_inputs(command: str, base: Input, tasks: Tasks, out: Path, words: list[str], progress: Progress) -> dict[str, Any]:
    """Runs a command over a base and tasks."""
    inputs = Inputs()
    words = [*words, *flags(base=inputs.path(base, "base"), output=os.fspath(out))]
    return _run([command, *words, "--", *inputs.tasks(tasks)], inputs, progress)


def _run(words: list[str], inputs: Inputs, progress: Progress) -> dict[str, Any]:
    """Runs a command in this process."""
    answer: dict[str, Any] = json.loads(_tvb.answer(words, inputs.models, sink(progress)))
    return answer
