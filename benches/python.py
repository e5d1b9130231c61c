"""What Python costs: a job by the command and by the package, a task as arrays and by `tvb recover`, the memory of `b.apply`.

    python benches/python.py TVB FOLDER [ROUNDS]

TVB is a release build of the command, and the package of the Python that runs this is one, too. FOLDER holds base.safetensors and
fine-tunes, as `make_inputs` makes them. Rounds are by turns; the least of each is told, since others may use the machine.
"""

from __future__ import annotations

import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tvb

JOB = """
import sys, tvb
base, out, *tasks = sys.argv[1:]
tvb.compress(base, tasks, out)
"""

APPLY = """
import json, struct, sys
import numpy as np
import tvb
folder, base = sys.argv[1:]
data = np.fromfile(base, np.uint8)
length = struct.unpack("<Q", data[:8].tobytes())[0]
header = json.loads(data[8 : 8 + length].tobytes())
header.pop("__metadata__", None)
kinds = {"F32": np.float32, "F16": np.float16}
model = {}
for name, entry in header.items():
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    model[name] = np.ndarray(entry["shape"], kinds[entry["dtype"]], data.data, begin)
b = tvb.open(folder)
b.weights(b.tasks[0])
def resident(which):
    return int(next(line for line in open("/proc/self/status") if line.startswith(which)).split()[1])
# Linux: the most memory so far is that of now.
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
b.apply(model, {name: 0.1 for name in b.tasks})
print(before / 1024, resident("VmHWM") / 1024)
"""


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of this process and its children on processors."""

    def used() -> float:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

    began, cpu = time.perf_counter(), used()
    work()
    return time.perf_counter() - began, used() - cpu


def rounds(n_rounds: int, ways: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Every way in every round; the least seconds of each, by the clock and on processors."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(n_rounds):
        for name, work in ways.items():
            seen[name].append(timed(work))
    return {name: (min(clock for clock, _ in times), min(cpu for _, cpu in times)) for name, times in seen.items()}


def main() -> None:
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    n_rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    base = folder / "base.safetensors"
    tasks = sorted(path for path in folder.glob("*.safetensors") if path != base)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = pathlib.Path(name)

        def command(*words: object) -> None:
            subprocess.run([program, "-q", *map(str, words)], check=True, stdout=subprocess.DEVNULL)

        def fresh(out: str) -> pathlib.Path:
            shutil.rmtree(work / out, ignore_errors=True)
            return work / out

        def script() -> None:
            subprocess.run([sys.executable, "-c", JOB, str(base), str(fresh("b")), *map(str, tasks)], check=True)

        ways = {
            "compress, the command": lambda: command("compress", "--base", base, "-o", fresh("a"), *tasks),
            "compress, a script": script,
            "compress, in one process": lambda: tvb.compress(base, tasks, fresh("c")),
            "an empty script": lambda: subprocess.run([sys.executable, "-c", "import tvb"], check=True),
        }
        for name, (clock, cpu) in rounds(n_rounds, ways).items():
            print(f"{name:<28} {clock:7.3f} s   {cpu:7.3f} s of processors")

        b = tvb.open(work / "a")
        task = b.tasks[0]
        n_bytes = sum(values.nbytes for values in b.task(task).values())
        target = {name: np.empty(values.shape, values.dtype) for name, values in b.task(task).items()}
        assert set(target) == set(b.task(task))
        ways = {
            "recover, the command": lambda: command("recover", b.path, task, "-o", fresh("deltas")),
            "b.task": lambda: b.task(task),
        }
        for name, (clock, cpu) in rounds(n_rounds, ways).items():
            print(f"{name:<28} {clock:7.3f} s   {cpu:7.3f} s of processors   {n_bytes / 1e9 / clock:5.2f} GB/s")

        out = subprocess.run([sys.executable, "-c", APPLY, str(b.path), str(base)], check=True, capture_output=True, text=True)
        before, after = map(float, out.stdout.split())
        model = base.stat().st_size / 2**20
        print(f"b.apply: {after - before:.1f} MiB beyond a model of {model:.0f} MiB")


if __name__ == "__main__":
    main()
