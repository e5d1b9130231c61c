"""Compress, gram, plan, verify and merge do what the command does, to the byte."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
import pytest
import tvb
from conftest import NAMES, ZOO, files, tvb_command
from test_memory import load

#: Arguments, and the flags of the command that mean the same.
WAYS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"bits": 0.5, "keep_sum": 0}, ["--bits", "0.5", "--keep-sum", "off"]),
    (
        {"bits": 4.0, "keep_sum": 4, "keep": "digits + waves"},
        "--bits 4 --keep-sum 4 --keep".split() + ["digits + waves"],
    ),
    ({"method": "anchored", "atoms": 2, "dtype": "bf16"}, "--method anchored -m 2 --dtype bf16".split()),
    ({"method": "pca", "ratio": 0.5, "bits": "3"}, "--method pca --ratio 0.5 --bits 3".split()),
    ({"method": "random", "atoms": 2, "seed": 7}, "--method random -m 2 --seed 7".split()),
    ({"max_bytes": "5%"}, "--max-bytes 5%".split()),
    ({"max_error": 0.05, "weights": {"digits": 2}}, "--max-error 0.05 --weight digits:2".split()),
    ({"include": "weight", "exclude": "^head", "threads": 1}, "--include weight --exclude ^head -j 1".split()),
    (
        {"method": "ae", "atoms": 2, "options": {"steps": 50, "balance": True}},
        "--method ae -m 2 --steps 50 --balance".split(),
    ),
]


@pytest.mark.parametrize(("arguments", "flags"), WAYS, ids=[" ".join(flags) or "default" for _, flags in WAYS])
def test_a_basis_is_the_command_s_to_the_byte(
    base: pathlib.Path,
    tasks: dict[str, pathlib.Path],
    tmp_path: pathlib.Path,
    arguments: dict[str, Any],
    flags: list[str],
) -> None:
    b = tvb.compress(base, tasks, tmp_path / "ours", **arguments)
    words = [f"{name}={path}" for name, path in tasks.items()]
    tvb_command("compress", "--base", base, *words, "-o", tmp_path / "its", *flags)
    assert files(tmp_path / "ours") == files(tmp_path / "its")
    assert b.tasks == NAMES and b.path == tmp_path / "ours"
    assert b.manifest["method"]["name"] == arguments.get("method", "identity")


def test_tasks_may_be_listed_as_the_command_takes_them(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    b = tvb.compress(str(base), [ZOO / "digits.safetensors", f"w={ZOO}/waves.safetensors"], str(tmp_path / "b"))
    assert b.tasks == ["digits", "w"]


def test_gram_plan_and_a_solve_from_it(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    g = tvb.gram(base, tasks, tmp_path / "run.gram")
    b = tvb.compress(base, tasks, tmp_path / "b", gram=g, method="exact", atoms=2)
    assert g.tasks == NAMES and g.path == tmp_path / "run.gram"
    assert b.gram is not None and g.matrix.dtype == np.float64
    np.testing.assert_allclose(g.matrix, b.gram, rtol=1e-12)
    np.testing.assert_array_equal(g.matrix, g.matrix.T)
    assert {tensor.dtype for tensor in g.tensors} == {"F32"} and all(len(tensor.shape) < 5 for tensor in g.tensors)
    encode, decode = b.coefficients
    assert encode is not None and encode.shape == (4, 2) and decode.shape == (2, 4)

    its = tvb_command("plan", "--gram", tmp_path / "run.gram", "-m", "1,2", "--bits", "2", "--expression", "digits - waves")
    rows = tvb.plan(g, atoms=[1, 2], bits=2, expressions="digits - waves")
    if not isinstance(rows, list):
        assert list(rows["method"]) == [row["method"] for row in its["rows"]]
    else:
        assert rows == its["rows"]


def test_tasks_join_a_gram_file(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    first = dict(list(tasks.items())[:3])
    known = tvb.gram(base, first, tmp_path / "first.gram")
    for extend in (known, tmp_path / "first.gram"):
        grown = tvb.gram(base, tasks, tmp_path / "all.gram", extend=extend, overwrite=True)
        assert grown.tasks == NAMES
    tvb.gram(base, tasks, tmp_path / "fresh.gram")
    assert (tmp_path / "all.gram").read_bytes() == (tmp_path / "fresh.gram").read_bytes()
    with pytest.raises(tvb.UsageError, match="no new task"):
        tvb.gram(base, first, tmp_path / "more.gram", extend=known)


def test_plan_is_a_data_frame_where_pandas_is(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tvb.gram(base, tasks, tmp_path / "run.gram")
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = tvb.plan(tmp_path / "run.gram", atoms=2, method="pca")
    assert isinstance(rows, list) and "pca" in {row["method"] for row in rows}
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    frame = tvb.plan(tmp_path / "run.gram", atoms=2, method="pca")
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(rows)
    assert list(frame["gain.mean"]) == [row["gain"]["mean"] for row in rows]


def test_verify_measures_and_finds_damage(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b", bits=3)
    assert tvb.verify(b)["intact"] is True
    found = tvb.verify(tmp_path / "b", base, tasks)
    assert [error["task"] for error in found["errors"]] == NAMES
    assert all(error["measured"] == pytest.approx(error["predicted"], rel=0.2) for error in found["errors"])
    atom = sorted((tmp_path / "b").rglob("*.safetensors"))[0]
    data = bytearray(atom.read_bytes())
    data[-1] ^= 1
    atom.write_bytes(data)
    with pytest.raises(tvb.InputError, match="damaged") as raised:
        tvb.verify(tmp_path / "b")
    assert raised.value.hint is not None


def test_merge_is_plain_task_arithmetic(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    out = tvb.merge(base, tasks, tmp_path / "ours.safetensors", scale=0.4)
    words = [f"{name}={path}" for name, path in tasks.items()]
    tvb_command("add", "--base", base, "--scale", "0.4", "-o", tmp_path / "its.safetensors", "--from-checkpoints", *words)
    # λ of the sum, and the sum of weights that λ is in.
    assert_close(out, tmp_path / "its.safetensors")
    weights = {"digits": 1, "waves": -0.5}
    tvb.merge(base, tasks, out, weights=weights, overwrite=True)
    tvb_command("apply", "--base", base, "-o", tmp_path / "two.safetensors", "digits - 0.5*waves", "--from-checkpoints", *words)
    assert_close(out, tmp_path / "two.safetensors")
    listed = tvb.merge(base, list(tasks.values()), tmp_path / "listed.safetensors", weights=weights)
    assert_close(listed, out)
    with pytest.raises(tvb.UsageError, match="unknown task 'x'"):
        tvb.merge(base, tasks, tmp_path / "x", weights={"x": 1.0})


def assert_close(ours: pathlib.Path, its: pathlib.Path) -> None:
    """Two checkpoints hold the same up to the rounding of a sum."""
    ours_by_name, its_by_name = load(ours), load(its)
    assert ours_by_name.keys() == its_by_name.keys()
    for name, values in ours_by_name.items():
        np.testing.assert_allclose(values, its_by_name[name], rtol=0, atol=1e-6, err_msg=name)


#: Arguments of a merge, and the flags of the command that mean the same.
MERGES: list[tuple[dict[str, Any], str]] = [
    (
        {"method": "ties", "parameters": {"density": 0.3, "weight": {"digits": 0.5}}},
        "--method ties --density 0.3 --weight digits=0.5",
    ),
    (
        {
            "method": "dare_ties",
            "parameters": {"density": [0.9, 0.5], "rescale": False},
            "seed": 3,
            "like": "mergekit",
            "weights": dict.fromkeys(NAMES, 0.25),
        },
        "--method dare_ties --density 0.9,0.5 --rescale false --seed 3 --like-mergekit "
        + " ".join(f"--weight {name}=0.25" for name in NAMES),
    ),
    ({"method": "emr", "only_for": "waves", "scale": 0.5}, "--method emr --for waves --lambda 0.5"),
    ({"method": "iso_cts", "parameters": {"common": 0.5}, "lines": "0.5:1"}, "--method iso_cts --common 0.5 --lines 0.5:1"),
    (
        {"orthogonalise": True, "weight_for": ["mlp=0.5", "waves:attn=2"]},
        "--method task_arithmetic --orthogonalise --weight-for mlp=0.5 --weight-for waves:attn=2",
    ),
]


@pytest.mark.parametrize(("arguments", "flags"), MERGES, ids=[flags for _, flags in MERGES])
def test_a_merge_is_the_command_s_to_the_byte(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, arguments: dict[str, Any], flags: str
) -> None:
    ours = tvb.merge(base, tasks, tmp_path / "ours.safetensors", **arguments)
    words = [f"{name}={path}" for name, path in tasks.items()]
    tvb_command("merge", "--base", base, *words, "-o", tmp_path / "its.safetensors", *flags.split())
    assert ours.read_bytes() == (tmp_path / "its.safetensors").read_bytes()


def test_recipes_cards_and_bases_are_merged(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    models = "".join(f"- {{model: {path}, parameters: {{weight: 0.5}}}}\n" for path in tasks.values())
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"merge_method: ties\nbase_model: {base}\nmodels:\n{models}parameters: {{density: 0.4}}\n")
    first = tvb.merge(recipe=recipe, out=tmp_path / "first")
    again = tvb.merge(recipe=first / "README.md", out=tmp_path / "again")
    assert files(first)["model.safetensors"] == files(again)["model.safetensors"]
    b = tvb.compress(base, tasks, tmp_path / "b", bits=4)
    of_basis = tvb.merge(base, ["waves", "digits"], tmp_path / "of-basis", basis=b, method="ties")
    words = ["--basis", b.path, "--base", base, "--task", "waves", "--task", "digits"]
    tvb_command("merge", "--method", "ties", *words, "-o", tmp_path / "its")
    assert files(of_basis)["model.safetensors"] == files(tmp_path / "its")["model.safetensors"]
    with pytest.raises(tvb.UsageError, match="unknown merge method"):
        tvb.merge(base, tasks, tmp_path / "x", method="tise")
    with pytest.raises(tvb.UsageError, match="both found"):
        tvb.merge(base, tasks, tmp_path / "x", recipe=recipe)
    with pytest.raises(tvb.InputError, match="unknown merge_method"):
        recipe.write_text(recipe.read_text().replace("ties", "tise"))
        tvb.merge(recipe=recipe, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_saved_edit_is_the_command_s(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b")
    ours = b.save_edit("digits - 0.5*waves", base, tmp_path / "ours.safetensors", scale=0.4)
    words = ["--base", base, "--scale", "0.4", "-o", tmp_path / "its.safetensors", tmp_path / "b"]
    tvb_command("apply", *words, "digits - 0.5*waves")
    assert ours.read_bytes() == (tmp_path / "its.safetensors").read_bytes()
    by_weights = b.save_edit({"digits": 1, "waves": -0.5}, base, tmp_path / "w.safetensors", scale=0.4)
    assert by_weights.read_bytes() == ours.read_bytes()
    with pytest.raises(tvb.InputError, match="exists"):
        b.save_edit("digits", base, ours)
    assert b.weights("digits - 0.5*waves") == {"digits": 1.0, "letters": 0.0, "mazes": 0.0, "waves": -0.5}
