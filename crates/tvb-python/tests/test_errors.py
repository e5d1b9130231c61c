"""Errors: a class for each kind, with the command's own words and hint; nothing is left behind."""

from __future__ import annotations

import pathlib
import pickle
import subprocess
import sys
from typing import Any

import pytest
import tvb
from conftest import ZOO


def its_error(*words: Any) -> tuple[int, str, str | None]:
    """Exit code, message and hint of a command that fails."""
    run = subprocess.run([sys.executable, "-m", "tvb", *map(str, words)], capture_output=True, text=True, timeout=300)
    lines = run.stderr.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    text = "\n".join(lines[start:]).removeprefix("error: ")
    message, _, hint = text.partition("\nhint: ")
    return run.returncode, message, hint or None


def codes(error: tvb.Error) -> int:
    """The command's exit code for this class."""
    return {tvb.FailedError: 1, tvb.UsageError: 2, tvb.InputError: 3}[type(error)]


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("a file that is not there", {"base": "nowhere.safetensors"}, []),
    ("a folder that is no checkpoint", {"base": str(ZOO.parent / "src")}, []),
    ("no tensors in common", {"include": "nothing-like-it"}, []),
    ("an unknown method", {"method": "anchord"}, ["--method", "anchord"]),
    ("budget and bits", {"bits": 2, "max_bytes": "5%"}, ["--bits", "2", "--max-bytes", "5%"]),
    ("dtype without a method", {"dtype": "f16"}, ["--dtype", "f16"]),
    ("too many atoms", {"atoms": 9}, ["-m", "9"]),
    ("an unknown task", {"weights": {"digit": 2}}, ["--weight", "digit:2"]),
    ("too little memory", {"memory": 1000}, ["--memory", "1000"]),
    ("no such device", {"device": "no-such-card"}, ["--device", "no-such-card"]),
    ("a Gram file that is none", {"gram": ZOO / "base.safetensors"}, ["--gram", str(ZOO / "base.safetensors")]),
]


@pytest.mark.parametrize(("arguments", "flags"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_errors_are_the_command_s(
    tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, arguments: dict[str, Any], flags: list[str]
) -> None:
    arguments = dict(arguments)
    base = arguments.pop("base", ZOO / "base.safetensors")
    if "include" in arguments:
        flags = ["--include", arguments["include"]]
    with pytest.raises(tvb.Error) as raised:
        tvb.compress(base, tasks, tmp_path / "b", **arguments)
    words = [f"{name}={path}" for name, path in tasks.items()]
    code, message, hint = its_error("compress", "--base", base, *words, "-o", tmp_path / "b", *flags)
    assert (codes(raised.value), raised.value.message, raised.value.hint) == (code, message, hint)
    assert str(raised.value) == message + (f"\nhint: {hint}" if hint else "")
    assert list(tmp_path.iterdir()) == []


def test_flags_that_the_parser_refuses_are_usage_errors_of_one_line(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    for arguments, message in [
        ({"bits": 7}, "bits: one of 0.25, 0.5, 1, 1.6"),
        ({"bits": "two"}, "bits: one of"),
        ({"max_bytes": "lots"}, "--max-bytes"),
        ({"max_error": -1}, "an error such as 0.1"),
        ({"vocab": "hole"}, "--vocab"),
        ({"exclude": "("}, "not a regular expression"),
        ({"rename": "x"}, "--rename"),
        ({"options": {"stpes": 3}}, "--stpes"),
        ({"threads": 0}, "--threads"),
        ({"atoms": 2, "ratio": 0.5}, "cannot be used with"),
    ]:
        with pytest.raises(tvb.UsageError) as raised:
            tvb.compress(base, tasks, tmp_path / "b", **arguments)  # type: ignore[arg-type]
        assert message in raised.value.message and "\n" not in raised.value.message
    assert list(tmp_path.iterdir()) == []


def test_names_and_inputs_of_other_kinds_are_refused_by_name(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digits = ZOO / "digits.safetensors"
    cases: list[tuple[Any, str]] = [
        ({"a/b": digits}, "a task's name has a path separator"),
        ({"a=b": digits}, "a task's name has an equals sign"),
        ({"": digits}, "a task's name is empty"),
        ({1: digits}, "names expected, 1 found"),
        ({"a": 3}, "task a: a path, a state dict or a module expected, int found"),
        (str(digits), "a dict of names and checkpoints or a list of paths expected, str found"),
        ([{"w": 1}], "paths expected in a list, dict found"),
        (7, "a dict of names and checkpoints"),
    ]
    for tasks, message in cases:
        with pytest.raises(tvb.UsageError) as raised:
            tvb.compress(base, tasks, tmp_path / "b")
        assert message in raised.value.message
    for none in ({}, []):
        with pytest.raises(tvb.UsageError, match="at least one expected"):
            tvb.compress(base, none, tmp_path / "b")
    with pytest.raises(tvb.InputError, match="two tasks are named"):
        tvb.compress(base, [f"a={digits}", f"a={ZOO}/waves.safetensors"], tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there_stays(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(tvb.InputError) as raised:
        tvb.compress(base, tasks, tmp_path / "b")
    assert "exists" in raised.value.message
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


def test_errors_travel_between_processes() -> None:
    for error in (tvb.InputError("a: b", "c"), tvb.UsageError("d"), tvb.FailedError("e", None)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.message, again.hint, str(again)) == (
            type(error),
            error.message,
            error.hint,
            str(error),
        )
        assert isinstance(error, tvb.Error) and type(error).__module__ == "tvb"


def test_open_says_what_it_expects(tmp_path: pathlib.Path) -> None:
    for path, hint in [(tmp_path / "nowhere", "check the path"), (tmp_path, "tvb compress")]:
        with pytest.raises(tvb.InputError, match="a basis folder expected") as raised:
            tvb.open(path)
        assert hint in (raised.value.hint or "")
