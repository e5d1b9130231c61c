"""How a job tells how far it is: a callable, a class like tqdm's, or nothing; and the log ``tvb``."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("tvb")

#: What the argument ``progress`` takes: ``None``, ``True``, a class like ``tqdm.tqdm``, or a callable that is told
#: ``(stage, bytes done, bytes in all)``; the latter is 0 where it is not known.
Progress = None | bool | type[Any] | Callable[[str, int, int], object]


class Sink:
    """Hears what the extension tells of a job. Everything is called on the thread that asked for the job."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins, and will go through so many bytes; 0 where that is not known."""

    def advance(self, n_bytes: int) -> None:
        """So many bytes more are done."""

    def finish(self) -> None:
        """The stage is over."""

    def note(self, line: str) -> None:
        """One line worth knowing."""
        log.info("%s", line)

    def warn(self, line: str) -> None:
        """One line about something that went wrong and does not stop the job."""
        log.warning("%s", line)


class Bars(Sink):
    """One bar for each stage, of a class like tqdm's."""

    def __init__(self, bar_class: Callable[..., Any]) -> None:
        self._class = bar_class
        self._bar: Any = None

    def begin(self, stage: str, total: int) -> None:
        self.finish()
        self._bar = self._class(total=total or None, desc=stage, unit="B", unit_scale=True)

    def advance(self, n_bytes: int) -> None:
        if self._bar is not None:
            self._bar.update(n_bytes)

    def finish(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


class Calls(Sink):
    """Calls a function with stage, bytes done and bytes in all."""

    def __init__(self, call: Callable[[str, int, int], object]) -> None:
        self._call = call
        self._stage, self._done, self._total = "", 0, 0

    def begin(self, stage: str, total: int) -> None:
        self._stage, self._done, self._total = stage, 0, total
        self._call(stage, 0, total)

    def advance(self, n_bytes: int) -> None:
        self._done += n_bytes
        self._call(self._stage, self._done, self._total)


class Lines:
    """What ``progress=True`` shows where there is no tqdm: a line on stderr every ten seconds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + 10.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 10.0
            share = f"{100 * done / total:.0f} % of {total / 1e9:.2f} GB" if total else f"{done / 1e9:.2f} GB"
            print(f"{stage}: {share}", file=sys.stderr)


def sink(progress: Progress) -> Sink:
    """What hears of a job for this argument."""
    if progress is None or progress is False:
        return Sink()
    if progress is True:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return Calls(Lines())
        return Bars(tqdm)
    if callable(progress):
        return Bars(progress) if hasattr(progress, "update") else Calls(progress)
    # Such as a bar in place of its class.
    raise TypeError(f"progress: None, True, a class like tqdm or a callable expected, {type(progress).__name__} found")
