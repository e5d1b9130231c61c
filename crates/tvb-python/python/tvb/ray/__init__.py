"""One job over the nodes of a Ray cluster: `tvb.ray.compress`, `tvb.ray.gram`, and `python -m tvb.ray` in a shell.

A job is cut into parts (see `tvb.compress(…, part=…)`). Each part is a Ray task that is told paths, its number and the options, reads its
rows of the inputs from the shared file system, and writes its rows of the output there; the driver joins them. No tensor passes through
Ray. The result is that of `tvb.compress` on one machine, byte for byte.

Needs `pip install ray`, this package in the same version on every node, and a file system that all of them see. docs/ray.md says more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from .._progress import Progress
from ._driver import Job

if TYPE_CHECKING:
    from .. import Basis, Gram

__all__ = ["compress", "gram"]

#: A path, as text or otherwise.
Path = Union[str, "os.PathLike[str]"]

#: Options of `tvb.gram` that `tvb.compress` has too: what the Gram matrix is formed of.
_OF_INPUTS = ("include", "exclude", "skip_mismatched", "vocab", "rename", "key", "device", "memory")

#: Options with which tasks are not coded as they are in one pass, so that the Gram matrix comes first.
_OF_MIXTURES = ("atoms", "ratio", "method", "dtype", "max_bytes", "max_error")


def compress(
    base: Path,
    tasks: Union[Mapping[str, Path], Sequence[str]],
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
    """Makes a basis as `tvb.compress` does, in parts on the nodes of a Ray cluster.

    - `base`, `tasks`, `out`: paths as in `tvb.compress`, on a file system that every node sees under the same name. State dicts are
      refused: a tensor would have to travel.
    - `address`: the cluster: `"auto"` for the one that runs, `"local"` for a new one on this machine, `"HOST:PORT"`. Where Ray is
      initialized already, that cluster is taken, and left running.
    - `parts`: into how many parts the rows are cut. A few times the number of CPUs keeps all busy; a part that is lost is done again.
    - `num_cpus`: CPUs and threads of each part.
    - `retries`: how often a part is started again after its worker or node died. Errors of tvb itself are raised at once.
    - `ray_options`: more options of the tasks, as `ray.remote` takes them: `resources`, `label_selector`, `runtime_env`, ….
    - `progress`: as in `tvb.compress`; one bar for all parts.
    - `options`: all others of `tvb.compress`: `bits`, `keep_sum`, `atoms`, `ratio`, `method`, `gram`, `include`, `memory` (of a part), ….
      `device` is `"cpu"` where nothing is said: nodes may differ in their GPUs, and all parts must be of one kind of device.

    With mixtures (`atoms`, `ratio`, `method`, `dtype`, `max_bytes`, `max_error`) there are two rounds: parts of the Gram matrix, then
    parts of the basis.

    Whatever happens, nothing is left beside the output: parts are in a folder `OUT.parts-…`, which is removed. Ctrl-C cancels all.

    Raises what `tvb.compress` raises, and `tvb.FailedError` where a part's worker died more than `retries` times, a node does not see a
    path or has another version of this package.

    Example:

        >>> basis = tvb.ray.compress("/nfs/base", {"cars": "/nfs/cars"}, "/nfs/basis", bits=2, parts=64)      # doctest: +SKIP
    """
    ray = {"address": address, "n_parts": parts, "num_cpus": num_cpus, "retries": retries, "ray_options": ray_options}
    with Job(base, tasks, out, overwrite=overwrite, progress=progress, **ray) as job:
        options = {"device": "cpu", **{name: value for name, value in options.items() if value is not None}}
        if "gram" in options:
            options["gram"] = job.seen(options["gram"], "gram")
        elif any(name in options for name in _OF_MIXTURES):
            of_inputs = {name: options[name] for name in _OF_INPUTS if name in options}
            options["gram"] = job.join(job.parts("gram", of_inputs), job.folder / "gram")
        found: Basis = job.join(job.parts("compress", {**options, "into": job.folder / "into"}), None)
        return found


def gram(
    base: Path,
    tasks: Union[Mapping[str, Path], Sequence[str]],
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
    """Forms a Gram file as `tvb.gram` does, in parts on the nodes of a Ray cluster. See `compress` for the arguments.

    Example:

        >>> gram = tvb.ray.gram("/nfs/base", {"cars": "/nfs/cars"}, "/nfs/gram", parts=64)      # doctest: +SKIP
    """
    ray = {"address": address, "n_parts": parts, "num_cpus": num_cpus, "retries": retries, "ray_options": ray_options}
    with Job(base, tasks, out, overwrite=overwrite, progress=progress, **ray) as job:
        options = {"device": "cpu", **{name: value for name, value in options.items() if value is not None}}
        found: Gram = job.join(job.parts("gram", options), None)
        return found
