"""What every case of the table uses: a folder of its own, `tvb` as a user runs it, and comparisons with PyTorch arithmetic.

A case is a function that writes files with the library it names, runs `tvb`, and answers what it found: `same(…)` or `refused(…)`.
"""

import copy
import importlib.util
import json
import os
import shutil
import subprocess

import torch
from safetensors.torch import load_file

# Of the largest value of a tensor: what f32 arithmetic in another order may differ by.
CLOSE = 1e-6
CASES = []


class Case:
    """One line of the table."""

    def __init__(self, title, writer, expected, needs, body):
        self.title, self.writer, self.expected, self.needs, self.body = title, writer, expected, needs, body

    def missing(self):
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


class Wrong(Exception):
    """What was found instead, in a few words."""


def case(title, writer, expected="same", needs=()):
    """Registers a case: its title, who wrote the files, what is expected, and the packages that it imports."""

    def register(body):
        CASES.append(Case(title, writer, expected, needs, body))
        return body

    return register


class Run:
    """What a command answered."""

    def __init__(self, words, done):
        self.words, self.code, self.out, self.err = words, done.returncode, done.stdout, done.stderr

    def error(self):
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return lines[0] if lines else (self.err.strip() or self.out.strip())[:200]


class Place:
    """The folder of a case, and `tvb` run from there."""

    def __init__(self, folder, tvb):
        self.folder, self.program = folder, tvb
        self.log = []
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)

    def __call__(self, *names):
        return os.path.join(self.folder, *names)

    def make(self, *names):
        os.makedirs(self(*names), exist_ok=True)
        return self(*names)

    def tvb(self, *words):
        self.log.append("tvb " + " ".join(words))
        done = subprocess.run([self.program, *words], cwd=self.folder, capture_output=True, text=True, errors="replace", timeout=120)
        return Run(words, done)

    def ok(self, *words):
        run = self.tvb(*words)
        if run.code != 0:
            raise Wrong(f"exit {run.code}: {run.error()}")
        return run

    def add(self, base, tasks, *more, out="out", scale=0.5):
        """The command that adds originals to `base`."""
        return self.tvb("add", "--base", base, "--scale", str(scale), "-o", out, *more, "--from-checkpoints", *tasks)

    def added(self, base, tasks, *more, out="out", scale=0.5):
        """`base` + `scale` × the sum of `tasks`, from the originals and from a basis that keeps them as they are."""
        self.said = self.add(base, tasks, *more, out=out, scale=scale)
        if self.said.code != 0:
            raise Wrong(f"exit {self.said.code}: {self.said.error()}")
        direct = state(self(out))
        self.ok("compress", "--base", base, *tasks, "--method", "identity", "-m", str(len(tasks)), "-o", out + "-basis", *more)
        self.ok("add", out + "-basis", "--base", base, "--scale", str(scale), "-o", out + "-from-basis")
        off, name = difference(state(self(out + "-from-basis")), direct)
        if off > step(direct[name]) if name else False:
            raise Wrong(f"from a basis {name} differs by {off:.1e}")
        return direct


def step(tensor):
    """What rounding once to the tensor's type may change, as a part of its largest value."""
    return {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(tensor.dtype, CLOSE)


def state(path):
    """The state dict of a file or folder, without any library's own loader."""
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if name.endswith((".safetensors", ".bin", ".pt", ".pth")))
        found = {}
        for name in names:
            found.update(state(os.path.join(path, name)))
        return found
    if not path.endswith((".pt", ".pth", ".bin", ".tar", ".ckpt")):
        return load_file(path)
    found = torch.load(path, weights_only=True)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def arithmetic(base, tasks, scale=0.5):
    """What `Place.added` shall give: in f64, rounded to the base's types. Names that a task lacks do not move."""
    result = {}
    for name, value in base.items():
        if value.is_floating_point():
            moved = sum(task[name].double() - value.double() for task in tasks if name in task)
            result[name] = (value.double() + scale * moved).to(value.dtype)
        else:
            result[name] = value
    return result


def difference(found, expected):
    """The largest difference, as a part of the largest value of its tensor, and that tensor's name."""
    names = [name for name in expected if name not in found] + [name for name in found if name not in expected]
    if names:
        raise Wrong(f"names differ: {', '.join(names[:3])}")
    worst = (0.0, "")
    for name, value in expected.items():
        other = found[name]
        if other.shape != value.shape or other.dtype != value.dtype:
            raise Wrong(f"{name}: {tuple(other.shape)} {other.dtype} in place of {tuple(value.shape)} {value.dtype}")
        if not value.numel():
            continue
        a, b = other.detach().double(), value.detach().double()
        worst = max(worst, ((a - b).abs().max().item() / max(b.abs().max().item(), 1e-30), name))
    return worst


def same(found, expected, tolerance=None):
    """Names, shapes and types alike, values to `tolerance` of the largest (by default one rounding of the type)."""
    off, name = difference(found, expected)
    if name and off > (step(expected[name]) if tolerance is None else tolerance):
        raise Wrong(f"{name} differs by {off:.1e} of its largest value")
    return "same bits" if off == 0 else f"same to {off:.0e}"


def refused(run, *words):
    """Refused as wrong usage or input, with all of `words` in the message or its hint."""
    if run.code not in (2, 3):
        last = run.err.strip().splitlines()[-1:] or ["not a word"]
        raise Wrong(f"exit {run.code}: {last[0][:120]}")
    text = run.err.lower()
    missing = [word for word in words if word.lower() not in text]
    if missing:
        raise Wrong(f"refused without `{'`, `'.join(missing)}`: {run.error()}")
    return f"refused: {run.error().removeprefix('error: ')[:110]}"


def said(run, *words):
    """Said with all of `words`, on either stream."""
    text = (run.out + run.err).lower()
    missing = [word for word in words if word.lower() not in text]
    if missing:
        raise Wrong(f"not said: {', '.join(missing)}")


def tuned(value, seed, size=0.02):
    """A module or a state dict after some training: every float parameter moved, parameters that are shared moved once."""
    generator = torch.Generator().manual_seed(seed)
    noise = lambda tensor: (size * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
    if isinstance(value, torch.nn.Module):
        moved = copy.deepcopy(value)
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter += noise(parameter)
        return moved
    return {name: tensor + noise(tensor) if tensor.is_floating_point() else tensor for name, tensor in value.items()}


def small_net(seed=0):
    """A small module of a few kinds of layers."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 32), torch.nn.LayerNorm(32)
    )


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file)
