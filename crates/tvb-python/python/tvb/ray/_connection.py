"""The connection to a Ray cluster that a process's jobs share: the first makes it, if the program has not; the last ends it."""

from __future__ import annotations

import socket
import threading
from typing import Any

import tvb

#: How long the cluster's address may take to answer.
_LISTENS_WITHIN_S = 10.0

_lock = threading.Lock()
_n_jobs = 0
_is_ours = False


def connect(address: str) -> Any:
    """Ray, connected to a cluster. Whoever calls this calls `leave` in the end, and only then."""
    global _n_jobs, _is_ours
    try:
        import ray
    except ImportError:
        raise tvb.UsageError("tvb.ray needs the package ray", "pip install 'tvb[ray]'") from None
    with _lock:
        if not ray.is_initialized():
            check_listening(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                raise tvb.FailedError(
                    f"no Ray cluster at {address}: {last_line(error)}",
                    "start one with `ray start --head`, or say address='local' for this machine alone",
                ) from error
            _is_ours = True
        _n_jobs += 1
    return ray


def leave(ray: Any) -> None:
    """A job is over. A connection that a job made ends with the last of them."""
    global _n_jobs, _is_ours
    with _lock:
        _n_jobs -= 1
        if _n_jobs == 0 and _is_ours:
            _is_ours = False
            ray.shutdown()


def check_listening(address: str) -> None:
    """Ray itself tries an address where nobody listens for longer than anyone waits."""
    host, _, port = address.rpartition(":")
    if "/" in host or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        hint = "`ray status` on a node of the cluster shows its address"
        raise tvb.FailedError(f"no Ray cluster at {address}: {error}", hint) from error


def last_line(error: BaseException) -> str:
    """The line of a long error that says what it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
