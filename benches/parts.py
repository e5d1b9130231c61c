#!/usr/bin/env python3
"""What a job in parts takes beyond one run: user and system time of all parts and the join, over that of one run.

    benches/parts.py TVB [--tasks 16] [--parameters 8000000] [--parts 1 2 4] [--rounds 5] [--folder DIR] [--jobs gram compress into]

TVB is a release build. Makes inputs (bf16 bits, square matrices and two that are cut by parts), and runs one run and every number of
parts by turns, each part by itself with all threads. Compares what is joined with what one run wrote, byte for byte. Prints a
Markdown table: processor time, medians of the rounds; the longest part's time is the wall's, over that of one run. Needs numpy.
"""

import argparse
import filecmp
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy


def shapes(n_parameters):
    """Two tensors of several spans, and layers as a transformer has them."""
    side = 512
    large = max(n_parameters // 4 // 1024, 1) * 1024
    left = max(n_parameters - 2 * large, side * side)
    layers = {f"layer.{at:04}": (side, side) for at in range(left // side**2)}
    norms = {f"norm.{at:04}": (side,) for at in range(0, len(layers), 4)}
    return {"embedding": (large // 1024, 1024), **layers, **norms, "head": (large // 1024, 1024)}


def bf16(values):
    return (values.view(numpy.uint32) >> 16).astype(numpy.uint16)


def write(path, tensors):
    """A safetensors file; numpy has no bf16 of its own."""
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())


def write_inputs(folder, n_tasks, n_parameters):
    rng = numpy.random.default_rng(1)
    base = {name: rng.standard_normal(shape, dtype=numpy.float32) for name, shape in shapes(n_parameters).items()}
    write(folder / "base.safetensors", {name: bf16(values) for name, values in base.items()})
    for task in range(n_tasks):
        tensors = {}
        for name, values in base.items():
            moved = values + 0.02 * rng.standard_normal(values.shape, dtype=numpy.float32)
            tensors[name] = bf16(moved)
        write(folder / f"t{task:03}.safetensors", tensors)
    return sum(values.size for values in base.values())


def same(a, b):
    if a.is_file():
        return filecmp.cmp(a, b, shallow=False)
    names = sorted(os.listdir(a))
    return names == sorted(os.listdir(b)) and all(filecmp.cmp(a / name, b / name, shallow=False) for name in names)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tvb")
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--parameters", type=int, default=8_000_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--jobs", nargs="+", default=["gram", "compress", "into"])
    args = parser.parse_args()
    own = tempfile.TemporaryDirectory(dir=args.folder)
    root = Path(own.name)
    env = {name: value for name, value in os.environ.items() if name not in ["TVB_DEVICE", "TVB_LOG"]}
    n_parameters = write_inputs(root, args.tasks, args.parameters)
    inputs = ["--base", root / "base.safetensors", *sorted(root.glob("t*.safetensors"))]

    def run(words):
        """Processor seconds and wall seconds."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        words = [args.tvb, *words, "--device", "cpu", "-q"]
        done = subprocess.run([str(word) for word in words], env=env, capture_output=True, text=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, words))}: {done.stderr}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall

    def clear():
        for path in root.iterdir():
            if path.suffix != ".safetensors":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def once(job, n_parts):
        """Of one run (0 parts) or of parts: processor seconds of the passes and of the join, wall seconds of the longest."""
        command = ["gram"] if job == "gram" else ["compress", "--bits", "2"]
        if n_parts == 0:
            processor, wall = run([*command, *inputs, "-o", root / "one"])
            return processor, 0.0, wall, 0.0
        into = ["--into", root / "into"] if job == "into" else []
        outputs = [root / f"part-{number}" for number in range(1, n_parts + 1)]
        words = [["--part", f"{number}/{n_parts}", "-o", out, *into] for number, out in enumerate(outputs, 1)]
        times = [run([*command, *inputs, *own]) for own in words]
        processor, wall = run(["join", *outputs, "-o", root / "joined"])
        if not same(root / "one", root / "joined"):
            sys.exit(f"{job}, {n_parts} parts: other bytes than one run's")
        for out in [*outputs, root / "joined", root / "into"]:
            if out.exists():
                shutil.rmtree(out) if out.is_dir() else out.unlink()
        return sum(own for own, _ in times), processor, max(own for _, own in times), wall

    print("| job | parts | passes, s | join, s | all over one run | longest part, wall s | join, wall s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for job in args.jobs:
        found = {n_parts: [] for n_parts in [0, *args.parts]}
        for _ in range(args.rounds):
            clear()
            for n_parts in found:
                found[n_parts].append(once(job, n_parts))
        # By rounds, so that what else the machine did meanwhile weighs on both.
        one = [processor for processor, *_ in found[0]]
        for n_parts, rounds in found.items():
            middle = [statistics.median(values) for values in zip(*rounds)]
            over = statistics.median((own[0] + own[1]) / one for own, one in zip(rounds, one))
            passes, join, longest, join_wall = middle
            ends = f"{join:.2f} | {over:.3f} | {longest:.2f} | {join_wall:.2f}" if n_parts else f" | | {longest:.2f} |"
            print(f"| {job} | {n_parts or 'one run'} | {passes:.2f} | {ends} |", flush=True)
    print(f"\n{args.tasks} tasks, {n_parameters} parameters, bf16; {args.rounds} rounds.")


if __name__ == "__main__":
    main()
