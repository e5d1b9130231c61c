"""How jobs run: progress, Ctrl-C, other threads, the command as a module and as a script."""

from __future__ import annotations

import io
import pathlib
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from typing import Any

import numpy as np
import pytest
import tvb


def test_progress_adds_up_on_the_thread_that_called(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    heard: list[tuple[str, int, int]] = []

    def hear(stage: str, done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        heard.append((stage, done, total))

    tvb.compress(base, tasks, tmp_path / "b", method="anchored", atoms=2, progress=hear)
    last: dict[str, tuple[int, int]] = {}
    for stage, done, total in heard:
        assert done >= last.get(stage, (0, 0))[0]
        last[stage] = (done, total)
    assert len(last) == 2, last
    for done, total in last.values():
        assert done == total > 0


def test_progress_takes_a_class_like_tqdm(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    bars: list[Bar] = []

    class Bar:
        def __init__(self, total: int | None, desc: str, unit: str, unit_scale: bool) -> None:
            self.total, self.desc, self.n, self.closed = total, desc, 0, False
            bars.append(self)

        def update(self, n: int) -> None:
            assert not self.closed
            self.n += n

        def close(self) -> None:
            self.closed = True

    b = tvb.compress(base, tasks, tmp_path / "b", progress=Bar)
    b.task("digits", progress=Bar)
    assert len(bars) == 2 and all(bar.closed and bar.n == bar.total for bar in bars)
    bars.clear()
    with pytest.raises(tvb.InputError):
        tvb.compress(base, tasks, tmp_path / "b", progress=Bar)
    assert all(bar.closed for bar in bars)
    tqdm = pytest.importorskip("tqdm")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", out)
        tvb.compress(base, tasks, tmp_path / "again", progress=True)
        tvb.compress(base, tasks, tmp_path / "and-again", progress=tqdm.tqdm)
    with pytest.raises(TypeError, match="progress"):
        tvb.compress(base, tasks, tmp_path / "c", progress=3)  # type: ignore[arg-type]


def test_an_exception_in_the_progress_stops_the_job(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise ZeroDivisionError(stage)

    with pytest.raises(ZeroDivisionError):
        tvb.compress(base, tasks, tmp_path / "b", progress=stop)
    assert list(tmp_path.iterdir()) == []


def large_model(n_elements: int) -> dict[str, Any]:
    """So much that a job takes a while."""
    return {f"w{number}": np.ones((n_elements // 4 // 1024, 1024), np.float32) for number in range(4)}


def test_other_threads_run_meanwhile(tmp_path: pathlib.Path) -> None:
    plain = large_model(1 << 24)
    tuned = {name: values * 1.5 for name, values in plain.items()}
    counts = [0]
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            counts[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counts[0]
        tvb.compress(plain, {"a": tuned, "b": plain}, tmp_path / "b", threads=1)
        assert counts[0] > before + 3, "the interpreter was held"
    finally:
        over.set()
        thread.join()


def test_jobs_run_in_several_threads_at_once(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    failed: list[BaseException] = []

    def job(number: int) -> None:
        try:
            b = tvb.compress(base, tasks, tmp_path / str(number), bits=4)
            b.task("digits")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    first = {path.name: path.read_bytes() for path in (tmp_path / "0").iterdir() if path.is_file()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "3").iterdir() if path.is_file()}


INTERRUPTED = """
import numpy as np, sys, tvb
plain = {f"w{n}": np.ones((4096, 1024), np.float32) for n in range(16)}
tuned = {name: values * 1.5 for name, values in plain.items()}
def hear(stage, done, total):
    if done > 0:
        print("working", flush=True)
try:
    tvb.compress(plain, {"a": tuned, "b": plain, "c": tuned}, sys.argv[1] + "/b", threads=1, progress=hear)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    tvb.compress({"w": plain["w0"]}, {"a": {"w": tuned["w0"]}}, sys.argv[1] + "/after")
    print("goes on", flush=True)
else:
    print("not interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_a_keyboard_interrupt_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    lines = [line for line in out.splitlines() if line != "working"]
    assert lines == ["interrupted", "goes on"], (out, err)
    assert [path.name for path in tmp_path.iterdir()] == ["after"]


def run_module(*words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tvb", *words], capture_output=True, text=True, timeout=300, **keywords)


def test_the_module_is_the_command() -> None:
    version = run_module("--version")
    assert (version.returncode, version.stdout) == (0, f"tvb {tvb.__version__}\n")
    wrong = run_module("gram", "--bse")
    assert wrong.returncode == 2 and "Usage: tvb gram" in wrong.stderr
    missing = run_module("inspect", "nowhere")
    assert missing.returncode == 1 and missing.stderr.startswith("error: ") and missing.stdout == ""


def test_the_script_is_the_command_too() -> None:
    script = shutil.which("tvb", path=sysconfig.get_path("scripts"))
    if script is None:
        pytest.skip("the package is not installed")
    run = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, f"tvb {tvb.__version__}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_stops_the_command_cleanly(tmp_path: pathlib.Path) -> None:
    """With the command's own words and exit code, not Python's traceback."""
    from test_memory import save

    plain = large_model(1 << 26)
    save(tmp_path / "base.safetensors", plain)
    save(tmp_path / "a.safetensors", {name: values * 1.5 for name, values in plain.items()})
    words = ["gram", "--base", "base.safetensors", "-j", "1", "-o", "run.gram", "-v"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tvb", *words, *[f"t{number}=a.safetensors" for number in range(12)]],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = time.monotonic()
    while not any(tmp_path.glob("*partial*")) and process.poll() is None and time.monotonic() < started + 60:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "stopping cleanly" in err and "error: interrupted" in err and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "base.safetensors"]
