"""What a Ray task does on its node: one part, from paths to paths."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import tvb

_LOG = logging.getLogger("tvb")

#: How long a folder that the driver has just made may take to be seen on another node: network file systems remember what was not
#: there.
_SEEN_WITHIN_S = 10.0

#: How often the driver hears of a part's progress.
_REPORT_EVERY_S = 0.2


def run(order: dict[str, Any], board: Any) -> dict[str, Any]:
    """Does the part that `order` is about. Returns where it is, or what went wrong: tvb's errors are no reason to try again."""
    node = _node()
    with _Said() as said:
        return {**_answer(order, board, node), "said": said.lines}


def _answer(order: dict[str, Any], board: Any, node: str) -> dict[str, Any]:
    try:
        if order["version"] != tvb.__version__:
            raise tvb.FailedError(
                f"node {node}: expected tvb {order['version']} as on the driver, found {tvb.__version__}",
                "install the same on every node",
            )
        _check_seen(order, node)
        number, n_parts = order["part"]
        # A name of its own for each try: one that was given up for lost may still be writing.
        path = os.path.join(order["folder"], f"{order['kind']}-{number}-of-{n_parts}-{secrets.token_hex(4)}")
        call: Any = {"gram": tvb.gram, "compress": tvb.compress}[order["kind"]]
        progress = None if board is None else _reporter(board, order["kind"], number)
        call(order["base"], order["tasks"], path, part=(number, n_parts), progress=progress, **order["options"])
        return {"path": path}
    except tvb.Error as error:
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint, "node": node}


def _check_seen(order: dict[str, Any], node: str) -> None:
    mark = os.path.join(order["folder"], order["mark"])
    until = time.monotonic() + _SEEN_WITHIN_S
    while not os.path.exists(mark):
        if time.monotonic() > until:
            raise tvb.FailedError(
                f"node {node} does not see {order['folder']}",
                "the output must be on a file system that all nodes share",
            )
        time.sleep(0.1)
    for path in order["seen"]:
        if not os.path.exists(path):
            raise tvb.FailedError(
                f"node {node} does not see {path}",
                "the inputs must be on a file system that all nodes share, under one name",
            )


class _Said(logging.Handler):
    """Keeps what is said in the log, for the driver to say: what was left out, for example."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))

    def __enter__(self) -> _Said:
        self._level = _LOG.level
        _LOG.setLevel(logging.INFO)
        _LOG.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LOG.removeHandler(self)
        _LOG.setLevel(self._level)


def _node() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())


def _reporter(board: Any, kind: str, number: int) -> Callable[[str, int, int], None]:
    """A function that tells the driver's board how far this part is; a part's stages are taken together."""
    stages: dict[str, tuple[int, int]] = {}
    told = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal told
        stages[stage] = (done, total)
        now = time.monotonic()
        if now - told > _REPORT_EVERY_S or done == total:
            told = now
            # Nobody waits for the answer: a board that is gone costs the display, not the part.
            board.tell.remote(kind, number, sum(done for done, _ in stages.values()), sum(total for _, total in stages.values()))

    return report
