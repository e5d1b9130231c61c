"""One job over the nodes of a Ray cluster: `tvb.ray.compress`, `tvb.ray.gram`, and `python -m tvb.ray` in a shell.

A job is cut into parts (see `tvb.compress(…, part=…)`). Each part is a Ray task that is told paths, its number and the options,
reads its rows of the inputs from the shared file system, and writes its rows of the output there; the driver joins them. No
tensor passes through Ray. The result is that of `tvb.compress` on one machine, byte for byte.

Needs `pip install ray`, this package in the same version on every node, and a file system that all of them see. docs/ray.md says
more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import tvb

from .._progress import Progress
from .._words import Path
from ._driver import How, Job

if TYPE_CHECKING:
    from .. import Basis, Gram

__all__ = ["compress", "gram"]

#: Options of `tvb.gram` that `tvb.compress` has too: what the Gram matrix is formed of.
_OF_INPUTS = ("include", "exclude", "skip_mismatched", "vocab", "rename", "key", "device", "memory")

#: Options with which tasks are not coded as they are in one pass, so that the Gram matrix comes first.
_OF_MIXTURES = ("atoms", "ratio", "method", "dtype", "max_bytes", "max_error")


def compress(
    base: Path,
    tasks: Mapping[str, Path] | Iterable[Path],
    out: Path,
    *,
    address: str = "auto",
    parts: int = 64,
    num_cpus: int = 1,
    retries: int = 4,
    ray_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    **options: Any,
) -> Basis:
    """Makes a basis as :func:`tvb.compress` does, in parts on the nodes of a Ray cluster.

    With mixtures (``atoms``, ``ratio``, ``method``, ``dtype``, ``max_bytes``, ``max_error``) there are two rounds: parts of the
    Gram matrix, then parts of the basis. Whatever happens, nothing is left beside the output: parts are in a folder
    ``OUT.parts-…``, which is removed. Ctrl-C cancels all.

    Args:
        base: Path of the base, on a file system that every node sees under the same name. State dicts are refused: their tensors
            would have to travel.
        tasks: Paths of the fine-tunes by name, or a list of paths and ``"NAME=PATH"``.
        out: The basis folder, on that file system too.
        address: The cluster: ``"auto"`` for the one that runs, ``"local"`` for a new one on this machine, ``"HOST:PORT"``. Where
            Ray is initialized already, that cluster is taken, and left running.
        parts: Into how many parts the rows are cut. A few for each CPU keep all busy.
        num_cpus: CPUs and threads of each part.
        retries: How often a part is started again after its worker or node died. Errors of tvb itself are raised at once.
        ray_options: More options of the tasks, as ``ray.remote`` takes them: ``resources``, ``label_selector``, ``runtime_env``.
        overwrite: Replace an output that is there.
        progress: As of :func:`tvb.compress`; one bar for all parts.
        options: All others of :func:`tvb.compress`: ``bits``, ``atoms``, ``gram``, ``include``, ``memory`` (of a part) and so on.
            ``device`` is ``"cpu"`` where nothing is said: nodes may differ in their GPUs, and all parts must be of one kind of
            device.

    Raises:
        FailedError: A part's worker died too often; a node does not see a path, or has another version of this package.

    What :func:`tvb.compress` raises is raised as it is.

    >>> basis = tvb.ray.compress("/nfs/base", {"cars": "/nfs/cars"}, "/nfs/basis", bits=2, parts=64)
    """
    with Job(
        base,
        tasks,
        out,
        how=How(address, parts, num_cpus, retries, ray_options),
        overwrite=overwrite,
        progress=progress,
    ) as job:
        options = _checked(tvb.compress, options)
        if "gram" in options:
            options["gram"] = job.seen(options["gram"], "gram")
        elif _wants_gram(options):
            of_inputs = {name: options[name] for name in _OF_INPUTS if name in options}
            options["gram"] = job.join(job.parts("gram", of_inputs), job.folder / "gram")
        found: Basis = job.join(job.parts("compress", {**options, "into": job.folder / "into"}), None)
        return found


def gram(
    base: Path,
    tasks: Mapping[str, Path] | Iterable[Path],
    out: Path,
    *,
    address: str = "auto",
    parts: int = 64,
    num_cpus: int = 1,
    retries: int = 4,
    ray_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    **options: Any,
) -> Gram:
    """Forms a Gram file as :func:`tvb.gram` does, in parts on the nodes of a Ray cluster. The arguments are those of
    :func:`compress`.

    >>> gram = tvb.ray.gram("/nfs/base", {"cars": "/nfs/cars"}, "/nfs/run.gram", parts=64)
    """
    with Job(
        base,
        tasks,
        out,
        how=How(address, parts, num_cpus, retries, ray_options),
        overwrite=overwrite,
        progress=progress,
    ) as job:
        options = _checked(tvb.gram, options)
        found: Gram = job.join(job.parts("gram", options), None)
        return found


def _checked(job: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are said. A name that `job` does not know is an error before anything is started."""
    for name in ("part", "into"):
        if name in options:
            raise tvb.UsageError(f"{name}: expected none, since the parts are made here", f"use tvb.{job.__name__} for one part")
    inspect.signature(job).bind("base", "tasks", "out", **options)
    return {"device": "cpu", **{name: value for name, value in options.items() if value is not None}}


def _wants_gram(options: Mapping[str, Any]) -> bool:
    """Whether the Gram matrix comes first. Only the CPU engine forms it and the codes of tasks as they are from one read."""
    named = {**options, **options.get("options", {})}
    return any(name in named for name in _OF_MIXTURES) or named["device"] != "cpu"
