"""What the tests share: the committed zoo of small trained models, and a way to run the command."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
ZOO = ROOT / "crates" / "tvb-zoo" / "checkpoints"
NAMES = ["digits", "letters", "mazes", "waves"]


@pytest.fixture
def base() -> pathlib.Path:
    """The zoo's base."""
    return ZOO / "base.safetensors"


@pytest.fixture
def tasks() -> dict[str, pathlib.Path]:
    """Four of the zoo's fine-tunes by name."""
    return {name: ZOO / f"{name}.safetensors" for name in NAMES}


def tvb_command(*words: Any, check: bool = True) -> Any:
    """Runs ``python -m tvb WORDS --json`` in a process of its own; answers its JSON."""
    run = subprocess.run([sys.executable, "-m", "tvb", *map(str, words), "--json"], capture_output=True, text=True, timeout=300)
    if check:
        assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
