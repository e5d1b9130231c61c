"""The driver of a job on Ray: starts its parts, waits for them, starts lost ones again, joins them, and clears up."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import tvb

from .._progress import Progress
from ._board import Bar, Board, Told

_LOG = logging.getLogger("tvb")

#: As many parts as a job may have (`tvb gram --part`).
_PARTS_MAX = 65_536
#: How often the driver looks at what its parts do.
_LOOK_EVERY_S = 0.25
#: How long parts that were asked to stop may take to clear up, and then to die.
_STOP_S, _KILL_S = 5.0, 10.0
#: How often a folder is tried to be removed: a dying worker may still close its files.
_REMOVALS = 20


@dataclass(frozen=True)
class How:
    """How a job is divided, and on which cluster; as in `tvb.ray.compress`."""

    address: str
    parts: int
    num_cpus: int
    retries: int
    ray_options: Mapping[str, Any] | None


class Job:
    """One job: a connection to Ray, and a folder beside the output for its parts. Leaving it clears both up."""

    def __init__(
        self,
        base: Any,
        tasks: Any,
        out: Any,
        *,
        how: How,
        overwrite: bool,
        progress: Progress,
    ) -> None:
        self._base = _absolute(base, "base")
        self._tasks = _absolute_tasks(tasks)
        self.out = Path(_absolute(out, "out"))
        self._overwrite = overwrite
        self._progress = progress
        self._address = how.address
        self._n_parts = _whole(how.parts, "parts", 1, _PARTS_MAX)
        self._num_cpus = _whole(how.num_cpus, "num_cpus", 1, 4096)
        self._retries = _whole(how.retries, "retries", 0, 1000)
        self._ray_options = dict(how.ray_options or {})
        self._extra_seen: list[str] = []
        self.folder = self.out.with_name(f"{self.out.name}.parts-{secrets.token_hex(4)}")
        self._made: list[Path] = []
        self._pending: list[Any] = []
        self._said: set[str] = set()
        self._is_ours = False
        self._board: Any = None

    def __enter__(self) -> Job:
        if os.path.lexists(self.out) and not self._overwrite:
            raise tvb.InputError(f"{self.out}: exists already", "choose another output, or replace it with overwrite=True")
        ray = _ray()
        try:
            if not ray.is_initialized():
                self._connect(ray)
            self._make_folder()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._stop()
        finally:
            self._leave(is_failed=kind is not None)

    def seen(self, path: Any, what: str) -> str:
        """A further input, which every node must see."""
        absolute = _absolute(path, what)
        self._extra_seen.append(absolute)
        return absolute

    def parts(self, kind: str, options: Mapping[str, Any]) -> list[str]:
        """Does all parts of a Gram matrix or of a basis. Returns where they are.

        Raises what a part raises, as soon as the first does; the others are cancelled on leaving.
        """
        ray = _ray()
        board = self._board_of(ray)
        order = {
            "kind": kind,
            "version": tvb.__version__,
            "folder": str(self.folder),
            "mark": "job",
            "seen": self._seen_here(),
            "base": self._base,
            "tasks": self._tasks,
            "options": {"threads": self._num_cpus, **{name: _plain(value) for name, value in options.items()}},
        }
        how = {"num_cpus": self._num_cpus, "scheduling_strategy": "SPREAD", "name": f"tvb {kind}", **self._ray_options}
        # What tvb says is an answer, so Ray starts a part again only when its worker or node died.
        task = ray.remote(**how, max_retries=self._retries, retry_exceptions=False)(_task())
        self._warn_of_too_few(ray)
        refs = {task.remote({**order, "part": (number, self._n_parts)}, board): number for number in range(1, self._n_parts + 1)}
        self._pending = list(refs)
        paths: dict[int, str] = {}
        bar = Bar(self._progress, f"{kind} in {self._n_parts} parts")
        try:
            while self._pending:
                ready, self._pending = ray.wait(
                    self._pending, num_returns=len(self._pending), timeout=_LOOK_EVERY_S, fetch_local=False
                )
                for ref in ready:
                    paths[refs[ref]] = self._answer(ray, ref, refs[ref])
                if board is not None:
                    bar.show(_read(ray, board, kind), set(paths), self._n_parts)
            bar.finish()
        finally:
            bar.close()
        return [paths[number] for number in sorted(paths)]

    def join(self, parts: Sequence[str], out: Path | None) -> Any:
        """Joins parts to a Gram file in the job's folder, or to the output (`None`)."""
        if out is not None:
            tvb.join(list(parts), out)
            return out
        return tvb.join(list(parts), self.out, overwrite=self._overwrite)

    def _answer(self, ray: Any, ref: Any, number: int) -> str:
        try:
            found = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            # Not one of tvb's: a fault of this package, or the task's environment could not be made.
            raise tvb.FailedError(f"part {number} of {self._n_parts}: {_last_line(error)}") from error
        except ray.exceptions.RayError as error:
            raise tvb.FailedError(
                f"part {number} of {self._n_parts}: its worker died {self._retries + 1} times: {_last_line(error)}",
                "a worker that needs more memory than there is gets killed; memory= caps that of a part",
            ) from error
        for level, line in found.get("said", []):
            # All parts say the same of the inputs.
            if line not in self._said:
                self._said.add(line)
                _LOG.log(level, "%s", line)
        if "error" in found:
            _LOG.info("part %d of %d failed on node %s", number, self._n_parts, found["node"])
            raise getattr(tvb, found["error"], tvb.Error)(found["message"], found["hint"])
        return str(found["path"])

    def _connect(self, ray: Any) -> None:
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise tvb.FailedError(
                f"no Ray cluster at {self._address}: {_last_line(error)}",
                "start one with `ray start --head`, or say address='local' for this machine alone",
            ) from error
        self._is_ours = True

    def _board_of(self, ray: Any) -> Any:
        if self._progress is None or self._progress is False:
            return None
        if self._board is None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            # On the driver's own node: it dies with the driver, not with somebody else's node.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
            self._board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
        return self._board

    def _seen_here(self) -> list[str]:
        """Inputs that the driver sees. What it does not see either is for tvb to say."""
        its_paths = (
            [text.partition("=")[2] or text for text in self._tasks] if isinstance(self._tasks, list) else self._tasks.values()
        )
        paths = [self._base, *its_paths, *self._extra_seen]
        return [path for path in paths if os.path.exists(path)]

    def _warn_of_too_few(self, ray: Any) -> None:
        cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        if self._num_cpus > max(cpus, default=0):
            _LOG.warning("no node offers %d CPUs now (the largest %d): parts wait for one", self._num_cpus, max(cpus, default=0))

    def _make_folder(self) -> None:
        missing = [parent for parent in self.folder.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            self._made.append(parent)
        self.folder.mkdir()
        (self.folder / "job").touch()

    def _stop(self) -> None:
        """Cancels what still runs, and waits until it has let go of its files."""
        if not self._pending:
            return
        ray = _ray()
        pending = self._pending
        for is_forced, patience in ((False, _STOP_S), (True, _KILL_S)):
            for ref in pending:
                ray.cancel(ref, force=is_forced)
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=patience, fetch_local=False)
            if not pending:
                break
        self._pending = []

    def _leave(self, is_failed: bool = True) -> None:
        for attempt in range(_REMOVALS):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.1 * (attempt > 0))
        else:
            _LOG.warning("%s: could not be removed; nothing needs it any more", self.folder)
        if is_failed:
            for parent in reversed(self._made):
                try:
                    parent.rmdir()
                except OSError:
                    break
        ray = _ray()
        if self._board is not None:
            ray.kill(self._board)
        if self._is_ours:
            ray.shutdown()


def _task() -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    def tvb_part(order: dict[str, Any], board: Any) -> dict[str, Any]:
        # Ray sends this function itself, not its name: a node without the package can still say so.
        try:
            from tvb.ray import _part
        except ImportError as error:
            import ray.util

            node = str(ray.util.get_node_ip_address())
            message = f"node {node}: the package tvb cannot be imported: {error}"
            return {
                "error": "FailedError",
                "message": message,
                "hint": "install the same tvb on every node",
                "node": node,
            }
        return _part.run(order, board)

    return tvb_part


def _read(ray: Any, board: Any, kind: str) -> dict[int, Told]:
    try:
        told: dict[int, Told] = ray.get(board.read.remote(kind), timeout=5)
    except ray.exceptions.RayError:
        # The display is not worth the job.
        return {}
    return told


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise tvb.UsageError("tvb.ray needs the package ray", "pip install 'tvb[ray]'") from None
    return ray


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _whole(value: Any, what: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise tvb.UsageError(f"{what}: expected a whole number from {least} to {most}, found {value!r}")
    return value


def _absolute(path: Any, what: str) -> str:
    """A path for workers, whose current folder is another. `PATH::KEY` stays as it is behind the path."""
    if not isinstance(path, (str, os.PathLike)):
        raise tvb.UsageError(
            f"{what}: expected a path, found {type(path).__name__}",
            "parts read files; tvb.compress takes what is in memory",
        )
    text = os.fspath(path)
    if not isinstance(text, str):
        raise tvb.UsageError(f"{what}: expected a path as text, found bytes")
    return os.path.join(os.getcwd(), text)


def _absolute_tasks(tasks: Any) -> dict[str, str] | list[str]:
    if isinstance(tasks, Mapping):
        return {name: _absolute(path, f"task {name}") for name, path in tasks.items()}
    if isinstance(tasks, (str, bytes, os.PathLike)) or not isinstance(tasks, Iterable):
        raise tvb.UsageError(f"tasks: expected a dict of paths or a list, found {type(tasks).__name__}")
    return [_absolute_task(text) for text in tasks]


def _absolute_task(text: Any) -> str:
    """`NAME=PATH` or `PATH`, read as the command reads it."""
    if not isinstance(text, str):
        return _absolute(text, "a task")
    name, equals, path = text.partition("=")
    # Such as `epoch=3-step=100.ckpt`: the name of a file, not of a task.
    is_named = bool(equals and name) and not set(name) & {"/", "\\"} and (os.path.exists(path) or not os.path.exists(text))
    return f"{name}={_absolute(path, name)}" if is_named else _absolute(text, "a task")
