#!/usr/bin/env python3
"""Whether `--device auto` takes the faster engine: whole jobs on the CPU, on a named adapter, and as auto chooses.

    benches/auto.py TVB [--device llvmpipe] [--rounds 5] [--folder DIR] [--parameters N]

TVB is a release build. Saves a bench of this machine first (into the folder, not into the user's cache), makes inputs, and runs
every job by turns. A software adapter is passed off as a card. Prints a Markdown table: seconds of each, what auto took, and
how far that is off the better one; the medians of the rounds. Needs numpy and safetensors.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from safetensors.numpy import save_file


def write_inputs(folder, n_tasks, n_parameters, dtype):
    """A base and its fine-tunes, of square matrices; 16-bit ones are f16, which numpy has."""
    folder.mkdir(parents=True)
    side = max(int(n_parameters**0.5) // 4, 16)
    names = [f"layer.{at:03}" for at in range(max(n_parameters // side**2, 1))]
    rng = numpy.random.default_rng(n_tasks)
    base = {name: rng.standard_normal((side, side), dtype=numpy.float32) for name in names}
    save_file({name: value.astype(dtype) for name, value in base.items()}, folder / "base.safetensors")
    for task in range(n_tasks):
        moved = {
            name: (value + 0.01 * rng.standard_normal((side, side), dtype=numpy.float32)).astype(dtype)
            for name, value in base.items()
        }
        save_file(moved, folder / f"t{task:03}.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tvb")
    parser.add_argument("--device", default="llvmpipe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parameters", type=int, nargs="+", default=[50_000, 4_000_000])
    parser.add_argument("--tasks", type=int, nargs="+", default=[4, 20, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[0])
    parser.add_argument("--saved", help="a saved bench to go by, in place of a new one")
    parser.add_argument("--quick", action="store_true", help="save a quick bench")
    parser.add_argument("--folder")
    args = parser.parse_args()
    own = tempfile.TemporaryDirectory(dir=args.folder)
    root = Path(own.name)
    env = dict(os.environ, TVB_CACHE_DIR=str(root), TVB_SOFTWARE_AS_CARD="1")
    for name in ["TVB_DEVICE", "TVB_LOG", "WGPU_BACKEND"]:
        env.pop(name, None)

    def run(words):
        started = time.perf_counter()
        done = subprocess.run([args.tvb, *map(str, words), "--json", "-q"], env=env, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            sys.exit(f"{words}: {done.stderr or done.stdout}")
        return seconds, json.loads(done.stdout)

    if args.saved:
        (root / "bench.json").write_bytes(Path(args.saved).read_bytes())
    else:
        quick = ["--quick"] if args.quick else []
        run(["bench", "--save", "--device", args.device, *quick])
        run(["bench", "--save", "--device", "cpu", *quick])
    print("| job | dtype | T | parameters | threads | cpu, s | adapter, s | auto, s | expected, s | taken | off the better |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    worst = 0.0
    for n_parameters in args.parameters:
        for n_tasks in args.tasks:
            for dtype in ["float32", "float16"]:
                folder = root / f"{n_parameters}-{n_tasks}-{dtype}"
                write_inputs(folder, n_tasks, n_parameters, dtype)
                inputs = ["--base", folder / "base.safetensors", *sorted(folder.glob("t*.safetensors"))]
                basis = folder / "basis"
                coded = folder / "coded"
                run(["compress", "-m", max(n_tasks // 2, 1), "-o", basis, *inputs])
                run(["compress", "-o", coded, *inputs])
                jobs = {
                    "gram": ["gram", "-o", folder / "gram", *inputs],
                    "compress -m T/2": ["compress", "-m", max(n_tasks // 2, 1), "-o", folder / "made", *inputs],
                    "compress": ["compress", "-o", folder / "made", *inputs],
                    "add, mixtures": ["add", basis, "--base", folder / "base.safetensors", "-o", folder / "sum"],
                    "add, codes": ["add", coded, "--base", folder / "base.safetensors", "-o", folder / "sum"],
                }
                for name, words in jobs.items():
                    for n_threads in args.threads:
                        flags = ["--overwrite", *(["-j", n_threads] if n_threads else [])]
                        times = {"cpu": [], args.device: [], "auto": []}
                        taken, expected = "", None
                        for _ in range(args.rounds):
                            for device in times:
                                seconds, answer = run([*words, *flags, "--device", device])
                                times[device].append(seconds)
                                if device == "auto":
                                    taken = "cpu" if answer["device"].startswith("cpu") else args.device
                                    expected = answer["device_choice"]["taken"]["expected_seconds"]
                        medians = {device: statistics.median(all_of) for device, all_of in times.items()}
                        best = min(medians["cpu"], medians[args.device])
                        off = medians[taken] / best
                        worst = max(worst, off)
                        cells = [name, "f32" if dtype == "float32" else "f16", n_tasks, n_parameters, n_threads or "all"]
                        cells += [f"{medians[device]:.3f}" for device in times]
                        cells += [f"{expected:.3f}" if expected else "-", taken, f"{off:.2f}"]
                        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
                subprocess.run(["rm", "-r", folder], check=True)
    print(f"\nThe device that auto took was at most {worst:.2f} times as slow as the better one.")


if __name__ == "__main__":
    main()
