"""State dicts in memory give what files give, and edits in memory are what is written to files, bit by bit."""

from __future__ import annotations

import json
import logging
import pathlib
import struct
from typing import Any

import numpy as np
import pytest
import tvb
from conftest import NAMES, ZOO, files, tvb_command

KINDS = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "U8": "u1", "BOOL": "?"}


def load(path: pathlib.Path) -> dict[str, np.ndarray[Any, Any]]:
    """A safetensors file as arrays."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        kind = KINDS.get(entry["dtype"], "u2")
        tensors[name] = np.frombuffer(data[begin:end], dtype=np.dtype(kind)).reshape(entry["shape"]).copy()
    return tensors


def save(path: pathlib.Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Arrays of float32 as a safetensors file."""
    header: dict[str, Any] = {}
    at = 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())


def models() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The zoo's base and four fine-tunes in memory."""
    return load(ZOO / "base.safetensors"), {name: load(ZOO / f"{name}.safetensors") for name in NAMES}


@pytest.mark.parametrize("arguments", [{}, {"bits": 0.5}, {"method": "pca", "atoms": 2}, {"method": "random", "atoms": 2}])
def test_a_basis_of_state_dicts_is_that_of_the_files(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, arguments: dict[str, Any]
) -> None:
    in_memory, of_tasks = models()
    tvb.compress(in_memory, of_tasks, tmp_path / "memory", **arguments)
    tvb.compress(base, tasks, tmp_path / "files", **arguments)
    ours, its = files(tmp_path / "memory"), files(tmp_path / "files")
    assert ours.keys() == its.keys()
    differing = {name for name in ours if ours[name] != its[name]}
    assert differing == {"basis.json"}, "only where they came from differs"
    assert tvb.open(tmp_path / "memory").manifest["base"]["source"] == "state dict in memory"
    # Some in memory, some on the disk.
    tvb.compress(base, {**tasks, "waves": of_tasks["waves"]}, tmp_path / "mixed", **arguments)
    assert {name for name, data in files(tmp_path / "mixed").items() if data != its[name]} == {"basis.json"}


def test_gram_verify_merge_and_saved_edits_take_state_dicts(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    in_memory, of_tasks = models()
    g = tvb.gram(in_memory, of_tasks, tmp_path / "m.gram")
    np.testing.assert_array_equal(g.matrix, tvb.gram(base, tasks, tmp_path / "f.gram").matrix)
    b = tvb.compress(in_memory, of_tasks, tmp_path / "b")
    assert len(tvb.verify(b, in_memory, of_tasks)["errors"]) == 4
    for kind, (model, fine_tunes) in {"m": (in_memory, of_tasks), "f": (base, tasks)}.items():
        tvb.merge(model, fine_tunes, tmp_path / f"merged-{kind}.safetensors", scale=0.3)
        b.save_edit("digits - waves", model, tmp_path / f"edited-{kind}.safetensors")
    for what in ("merged", "edited"):
        ours, its = (load(tmp_path / f"{what}-{kind}.safetensors") for kind in "mf")
        assert ours.keys() == its.keys()
        for name, values in ours.items():
            np.testing.assert_array_equal(values, its[name], err_msg=name)


@pytest.mark.parametrize("arguments", [{}, {"method": "anchored", "atoms": 2}, {"method": "random", "atoms": 2}])
def test_a_task_is_what_recover_writes(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, arguments: dict[str, Any]
) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b", **arguments)
    tvb_command("recover", b.path, "digits", "-o", tmp_path / "deltas")
    its = load(tmp_path / "deltas" / "digits.safetensors")
    ours = b.task("digits")
    assert list(ours) == list(its) or ours.keys() == its.keys()
    for name, values in ours.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, its[name], err_msg=name)
    some = list(ours)[1:3]
    part = b.task("digits", tensors=some)
    assert list(part) == some
    for name in some:
        np.testing.assert_array_equal(part[name], ours[name])
    half = b.edit({"digits": 1.0}, scale=0.5, dtype="float16")
    assert {values.dtype for values in half.values()} == {np.dtype("float16")}
    for name, values in half.items():
        np.testing.assert_allclose(values, 0.5 * ours[name], atol=1e-3)


def test_an_edit_in_place_is_the_edit_to_a_file(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b")
    model = load(base)
    before = {name: (values.copy(), values.ctypes.data) for name, values in model.items()}
    n_tensors = b.apply(model, "digits - 0.5*waves", scale=0.4)
    b.save_edit("digits - 0.5*waves", base, tmp_path / "edited.safetensors", scale=0.4)
    its = load(tmp_path / "edited.safetensors")
    changed = 0
    for name, values in model.items():
        np.testing.assert_array_equal(values, its[name], err_msg=name)
        assert values.ctypes.data == before[name][1], "written where it was"
        changed += not np.array_equal(values, before[name][0])
    assert changed == n_tensors > 0
    b.apply(model, {"digits": 1.0, "waves": -0.5}, scale=-0.4)
    for name, values in model.items():
        np.testing.assert_allclose(values, before[name][0], atol=1e-6)


def test_a_model_that_does_not_match_is_refused_before_anything_is_written(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b")
    names = list(b.task("digits"))

    def refused(change: Any, expected: list[str], kind: type[tvb.Error] = tvb.InputError) -> None:
        model = load(base)
        change(model)
        before = {name: np.array(values, copy=True) for name, values in model.items() if isinstance(values, np.ndarray)}
        with pytest.raises(kind) as raised:
            b.apply(model, "digits")
        for text in expected:
            assert text in raised.value.message, raised.value.message
        for name, values in before.items():
            np.testing.assert_array_equal(model[name], values)

    def short(model: dict[str, Any]) -> None:
        del model[names[0]]
        model[names[1]] = model[names[1]].reshape(-1)[:-1].copy()

    def strided(model: dict[str, Any]) -> None:
        name = next(name for name in names if model[name].ndim == 2)
        model[name] = np.asfortranarray(model[name])

    def read_only(model: dict[str, Any]) -> None:
        model[names[0]].flags.writeable = False

    def swapped(model: dict[str, Any]) -> None:
        model[names[0]] = model[names[0]].astype(">f4")

    refused(short, [names[0], names[1], "missing"])
    refused(strided, ["rows without gaps expected"])
    refused(read_only, [f"tensor {names[0]}", "read-only"])
    refused(swapped, ["order of bytes expected, >f4 found"])
    refused(lambda model: model.update({names[0]: model[names[0]].astype(np.int32)}), [names[0], "float"])
    refused(lambda model: model.update({names[0]: "text"}), ["a numpy array or a torch tensor expected, str found"])
    refused(lambda model: model.update({3: model[names[0]]}), ["names of tensors expected, 3 found"])
    for edit, message in [("digit", 'unknown task "digit"'), ("digits +", ""), ({"digits": float("nan")}, "finite")]:
        with pytest.raises(tvb.Error) as raised:
            b.apply(load(base), edit)
        assert message in raised.value.message
    for wrong in (3, None, [("digits", 1)], {"digits": "1"}, {1: 1.0}):
        with pytest.raises(tvb.UsageError):
            b.apply(load(base), wrong)  # type: ignore[arg-type]
    with pytest.raises(tvb.UsageError):
        b.apply(42, "digits")


def test_wrong_words_for_edits(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b")
    with pytest.raises(tvb.InputError, match='unknown task "digit"') as raised:
        b.task("digit")
    assert "digits" in (raised.value.hint or "")
    for arguments, message in [
        ({"dtype": "float8"}, "one of float32, float16, bfloat16 expected"),
        ({"tensors": ["no.such"]}, "no such tensor"),
        ({"device": "no-such-card"}, ""),
        ({"memory": "some"}, "--memory"),
    ]:
        with pytest.raises(tvb.Error) as caught:
            b.task("digits", **arguments)  # type: ignore[arg-type]
        assert message in caught.value.message
    with pytest.raises(tvb.UsageError, match="a finite number expected"):
        b.edit("digits", scale=float("inf"))


def test_odd_arrays_as_inputs(tmp_path: pathlib.Path) -> None:
    """Contents decide, not how they lie: strides, odd addresses, no rows, no dimensions."""
    rng = np.random.default_rng(0)
    plain = {"w": rng.standard_normal((48, 33)).astype(np.float32), "s": np.float32(2.0) * np.ones((), np.float32)}
    tuned = {"w": plain["w"] + 0.01, "s": plain["s"] * 2}
    plain["none"] = tuned["none"] = np.zeros((0, 4), np.float32)
    raw = np.empty(plain["w"].nbytes + 1, np.uint8)
    odd = np.frombuffer(raw.data, np.float32, plain["w"].size, 1).reshape(plain["w"].shape)
    odd[...] = plain["w"]
    ways = {"plain": plain, "fortran": {**plain, "w": np.asfortranarray(plain["w"])}, "odd": {**plain, "w": odd}}
    made = {}
    for name, base in ways.items():
        tvb.compress(base, {"a": tuned}, tmp_path / name, bits=4)
        made[name] = {key: data for key, data in files(tmp_path / name).items() if key != "basis.json"}
    assert made["plain"] == made["fortran"] == made["odd"]


def test_arrays_that_are_not_for_us_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    plain = {"w": np.ones((4, 4), np.float32)}
    for wrong, message in [
        (np.array([1, "a"], dtype=object), "object found"),
        (np.ones((4, 4), ">f4"), ">f4 found"),
        (np.array(["x"]), "found"),
        ([1.0, 2.0], "a numpy array or a torch tensor expected, list found"),
        ({"nested": plain}, "a numpy array or a torch tensor expected, dict found"),
        (np.str_("x"), "found"),
        (np.ones((5, 4), np.float32), "[5, 4]"),
    ]:
        with pytest.raises(tvb.InputError) as raised:
            tvb.compress(plain, {"a": {"w": wrong}}, tmp_path / "b")
        assert message in raised.value.message and "w" in raised.value.message, raised.value.message
    infinite = {"w": np.full((4, 4), np.inf, np.float32)}
    with pytest.raises(tvb.InputError):
        tvb.compress(plain, {"a": infinite}, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_remarks_go_to_the_log(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = {"w": np.ones((4, 4), np.float32), "head": np.ones((3, 4), np.float32)}
    tuned = {"w": np.ones((4, 4), np.float32) * 2, "head": np.ones((5, 4), np.float32)}
    with caplog.at_level(logging.INFO, "tvb"):
        tvb.compress(plain, {"a": tuned}, tmp_path / "b", skip_mismatched=True, method="identity")
    assert any("head" in record.getMessage() for record in caplog.records)
