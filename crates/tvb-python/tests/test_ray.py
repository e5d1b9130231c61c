"""`tvb.ray` against a real Ray on this machine: the bytes of one run, whatever dies, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray")

import tvb  # noqa: E402
import tvb.ray  # noqa: E402

#: Long enough that a part can be killed while it works, short enough for a test.
N_ROWS = 3_000_000


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A safetensors file, by hand: this package needs numpy alone."""
    import json

    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    top = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    shapes = {"embed": (N_ROWS // 4,), "layer": (N_ROWS // 2,), "bias": (7,), "head": (N_ROWS // 4, 1)}
    base = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    tasks = {}
    for task in ("cars", "mnist", "svhn"):
        tuned = {name: array + 0.01 * random.standard_normal(array.shape, np.float32) for name, array in base.items()}
        tasks[task] = write(top / f"{task}.safetensors", tuned)
    return write(top / "base.safetensors", base), tasks


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    """A node for the driver, and two that each do one part at a time."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def when(is_so: Callable[[], Any], then: Callable[[Any], None]) -> threading.Thread:
    """Does `then` in a thread of its own as soon as `is_so` answers something."""

    def wait() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                found = is_so()
            except OSError:
                found = None
            if found:
                then(found)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def part_at_work(folder: Path, kind: str) -> Callable[[], int | None]:
    """The process of a worker that has begun a part's output in a job of `folder`."""

    def find() -> int | None:
        locks = list(folder.glob(f"*.parts-*/{kind}-*.partial.lock"))
        # "tvb PROCESS" and more; empty at first, gone when the part is done.
        words = locks[0].read_text().split() if locks else []
        return int(words[1]) if len(words) > 1 else None

    return find


def test_the_bytes_are_those_of_one_run(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    for index, options in enumerate([{"bits": 2}, {"atoms": 2, "method": "anchored"}, {"atoms": 2, "bits": 4}]):
        one, many = tmp_path / f"one{index}", tmp_path / f"many{index}"
        tvb.compress(base, tasks, one, **options)
        made = tvb.ray.compress(base, tasks, many, parts=5, **options)
        assert made.path == many and contents(many) == contents(one), options
    tvb.gram(base, tasks, tmp_path / "one.gram")
    tvb.ray.gram(base, [f"{name}={path}" for name, path in tasks.items()], tmp_path / "many.gram", parts=3)
    assert (tmp_path / "one.gram").read_bytes() == (tmp_path / "many.gram").read_bytes()
    assert names(tmp_path) == ["many.gram", "many0", "many1", "many2", "one.gram", "one0", "one1", "one2"]


@pytest.mark.skipif(sys.platform == "win32", reason="kills as Unix does")
@pytest.mark.parametrize("options", [{"bits": 2}, {"atoms": 2, "method": "pca"}])
def test_a_worker_killed_at_work_changes_nothing(
    inputs: tuple[Path, dict[str, Path]], tmp_path: Path, options: dict[str, Any]
) -> None:
    base, tasks = inputs
    tvb.compress(base, tasks, tmp_path / "one", **options)
    killed: list[int] = []

    def kill(process: int) -> None:
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    work = tmp_path / "work"
    work.mkdir()
    killers = [when(part_at_work(work, kind), kill) for kind in ("compress", *(["gram"] if "atoms" in options else []))]
    seen: list[tuple[str, int, int]] = []
    tvb.ray.compress(base, tasks, work / "out", parts=4, progress=lambda *told: seen.append(told), **options)
    for killer in killers:
        killer.join()
    assert len(killed) == len(killers)
    assert contents(work / "out") == contents(tmp_path / "one")
    assert names(work) == ["out"]
    # One bar for each round, which only grows and ends full.
    stages = {stage for stage, _, _ in seen if stage.endswith(" parts")}
    assert stages == {f"{kind} in 4 parts" for kind in ("compress", *(["gram"] if "atoms" in options else []))}
    for stage in stages:
        done = [done for its, done, _ in seen if its == stage]
        totals = {total for its, _, total in seen if its == stage}
        assert done == sorted(done) and totals == {done[-1]}, stage


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc which node a worker is of")
def test_the_parts_of_a_lost_node_run_elsewhere(inputs: tuple[Path, dict[str, Path]], tmp_path: Path, cluster: Any) -> None:
    base, tasks = inputs
    tvb.compress(base, tasks, tmp_path / "one", bits=2)
    lost: list[Any] = []

    def lose(process: int) -> None:
        raylet = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        node = next(node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid == raylet)
        cluster.remove_node(node, allow_graceful=False)
        lost.append(node)

    work = tmp_path / "work"
    work.mkdir()
    loser = when(part_at_work(work, "compress"), lose)
    try:
        tvb.ray.compress(base, tasks, work / "out", parts=4, bits=2)
        loser.join()
    finally:
        cluster.add_node(num_cpus=1)
    assert len(lost) == 1
    assert contents(work / "out") == contents(tmp_path / "one")
    assert names(work) == ["out"]


def test_two_jobs_at_once_do_not_touch_each_other(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    tvb.compress(base, tasks, tmp_path / "one", bits=1)
    work = tmp_path / "work"
    work.mkdir()
    threads = [
        threading.Thread(target=tvb.ray.compress, args=(base, tasks, work / name), kwargs={"bits": 1, "parts": 3}) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(work / "a") == contents(work / "b") == contents(tmp_path / "one")
    assert names(work) == ["a", "b"]


def test_errors_of_tvb_come_at_once_as_what_they_are(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    other = write(tmp_path / "other.safetensors", {"embed": np.zeros(3, np.float32)})
    work = tmp_path / "deep" / "work"
    calls: list[tuple[type[tvb.Error], dict[str, Any]]] = [
        (tvb.InputError, {"tasks": {**tasks, "other": other}}),
        (tvb.FailedError, {"tasks": {"gone": tmp_path / "gone"}}),
        (tvb.UsageError, {"bits": 7.5}),
        (tvb.UsageError, {"parts": 0}),
        (tvb.UsageError, {"num_cpus": 1.5}),
        (tvb.UsageError, {"base": {"embed": np.zeros(3, np.float32)}}),
        (tvb.UsageError, {"tasks": {"a": {"embed": np.zeros(3, np.float32)}}}),
        (tvb.UsageError, {"tasks": "a"}),
    ]
    for kind, change in calls:
        call = {"base": base, "tasks": tasks, "out": work / "out", "parts": 16, **change}
        with pytest.raises(tvb.Error) as caught:
            tvb.ray.compress(**call)
        assert type(caught.value) is kind and caught.value.message, (change, caught.value)
        assert not (tmp_path / "deep").exists(), change
    work.mkdir(parents=True)
    (work / "out").write_text("mine")
    with pytest.raises(tvb.InputError, match="exists already"):
        tvb.ray.compress(base, tasks, work / "out")
    assert (work / "out").read_text() == "mine" and names(work) == ["out"]


def test_what_parts_remark_is_said_once(
    inputs: tuple[Path, dict[str, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, tasks = inputs
    other = write(tmp_path / "other.safetensors", {"layer": np.zeros(N_ROWS // 2, np.float32)})
    both = {"cars": tasks["cars"], "other": other}
    (tmp_path / "many").mkdir()
    lines = []
    for compress, out in ((tvb.compress, tmp_path / "one"), (tvb.ray.compress, tmp_path / "many" / "out")):
        caplog.clear()
        with caplog.at_level("WARNING", "tvb"):
            compress(
                base, both, out, skip_mismatched=True, memory="1G", bits=2, **({"parts": 4} if compress is tvb.ray.compress else {})
            )
        lines.append([record.getMessage() for record in caplog.records if record.name == "tvb"])
    assert lines[0] == lines[1] and any("left out" in line for line in lines[0]), lines
    assert contents(tmp_path / "one") == contents(tmp_path / "many" / "out")


def test_more_parts_than_work_and_an_output_that_is_replaced(base: Path, tasks: dict[str, Path], tmp_path: Path) -> None:
    tvb.compress(base, tasks, tmp_path / "one", bits=0.5)
    work = tmp_path / "work"
    tvb.compress(base, tasks, work / "out", bits=2)
    tvb.ray.compress(base, tasks, work / "out", bits=0.5, parts=40, overwrite=True)
    assert contents(work / "out") == contents(tmp_path / "one")
    assert names(work) == ["out"]


def test_a_node_that_lacks_something_is_named_with_it(
    inputs: tuple[Path, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvb.ray import _part

    base, tasks = inputs
    monkeypatch.setattr(_part, "_SEEN_WITHIN_S", 0.0)
    (tmp_path / "job").touch()
    order = {"kind": "gram", "version": tvb.__version__, "folder": str(tmp_path), "mark": "job", "seen": [], "part": (1, 1)}
    order |= {"base": str(base), "tasks": {"a": str(tasks["cars"])}, "options": {}}
    gone = str(tmp_path / "gone")
    for change, words in [
        ({"seen": [str(base), gone]}, f"does not see {gone}"),
        ({"folder": gone}, f"does not see {gone}"),
        ({"version": "0.0.0"}, "expected tvb 0.0.0 as on the driver"),
    ]:
        found = _part.run({**order, **change}, None)
        assert found["error"] == "FailedError" and found["hint"], found
        assert words in found["message"] and f"node {found['node']}" in found["message"], found
    assert names(tmp_path) == ["job"]
    assert Path(_part.run(order, None)["path"]).exists()


def test_a_node_without_the_package_is_named(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    (tmp_path / "other" / "tvb").mkdir(parents=True)
    (tmp_path / "other" / "tvb" / "__init__.py").touch()
    env = {"runtime_env": {"env_vars": {"PYTHONPATH": str(tmp_path / "other")}}}
    with pytest.raises(tvb.FailedError, match="the package tvb cannot be imported") as caught:
        tvb.ray.compress(base, tasks, tmp_path / "out", bits=2, parts=2, ray_options=env)
    assert "node " in caught.value.message and caught.value.hint
    assert names(tmp_path) == ["other"]


def test_progress_is_of_all_parts() -> None:
    from tvb.ray._board import Board, sum_up

    board = Board()
    board.tell("gram", 1, 30, 100)
    board.tell("gram", 2, 50, 50)
    board.tell("compress", 3, 1, 1)
    # Started again after its worker died.
    board.tell("gram", 1, 10, 100)
    told = board.read("gram")
    assert told == {1: (30, 100), 2: (50, 50)}
    assert sum_up(told, {2}, 4) == (80.0, 300.0)
    assert sum_up(told, {1, 2, 3, 4}, 4) == (300.0, 300.0)
    assert sum_up({}, set(), 4) == (0.0, 0.0)


def test_an_address_where_nobody_listens_is_said() -> None:
    from tvb.ray._connection import check_listening

    with pytest.raises(tvb.FailedError, match="no Ray cluster at 127.0.0.1:1:"):
        check_listening("127.0.0.1:1")
    for address in ("auto", "local", "ray://127.0.0.1:1"):
        check_listening(address)


def test_the_same_message_as_without_ray(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    other = write(tmp_path / "other.safetensors", {"embed": np.zeros(3, np.float32)})
    texts = []
    for compress in (tvb.compress, tvb.ray.compress):
        with pytest.raises(tvb.InputError) as caught:
            compress(base, {"a": tasks["cars"], "other": other}, tmp_path / "out")
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.skipif(sys.platform == "win32", reason="kills as Unix does")
def test_a_part_that_always_dies_is_said(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    work = tmp_path / "work"
    work.mkdir()
    killers = [when(part_at_work(work, "compress"), lambda process: os.kill(process, signal.SIGKILL))]
    with pytest.raises(tvb.FailedError, match="part 1 of 1: its worker died 1 times"):
        tvb.ray.compress(base, tasks, work / "out", parts=1, retries=0)
    killers[0].join()
    assert names(work) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix sends them")
# Ray itself ends a driver on SIGTERM, with exit code 1.
@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_ctrl_c_stops_the_parts_and_leaves_nothing(
    inputs: tuple[Path, dict[str, Path]], tmp_path: Path, sent: signal.Signals, exit_code: int
) -> None:
    base, tasks = inputs
    words = [
        sys.executable,
        "-m",
        "tvb.ray",
        "compress",
        "-q",
        "--base",
        str(base),
        *(f"{name}={path}" for name, path in tasks.items()),
    ]
    work = tmp_path / "work"
    work.mkdir()
    words += [
        "-o",
        str(work / "out"),
        "--parts",
        "64",
        "--bits",
        "2",
        "--address",
        ray.get_runtime_context().gcs_address,
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as driver:
        when(part_at_work(work, "compress"), lambda _: driver.send_signal(sent)).join()
        _, text = driver.communicate(timeout=60)
    assert driver.returncode == exit_code, text
    assert "Traceback" not in text, text
    assert names(work) == []


def test_from_the_shell(inputs: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, tasks = inputs
    address = ["--address", ray.get_runtime_context().gcs_address]
    words = [sys.executable, "-m", "tvb.ray"]
    its = ["--base", str(base), *(f"{name}={path}" for name, path in tasks.items()), *address, "--parts", "3"]
    done = subprocess.run([*words, "compress", *its, "-o", str(tmp_path / "out"), "--bits", "2"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "out"), done.stderr
    tvb.compress(base, tasks, tmp_path / "one", bits=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    done = subprocess.run([*words, "gram", *its, "-o", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 3 and done.stderr.startswith("error: ") and "\nhint: " in done.stderr, done.stderr
    done = subprocess.run([*words, "compress", "--base", str(base)], capture_output=True, text=True)
    assert done.returncode == 2
