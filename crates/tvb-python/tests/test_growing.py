"""Tasks that join a basis and leave it: what the command does, whole or in memory, and its errors."""

from __future__ import annotations

import pathlib
import shutil

import pytest
import tvb

from conftest import NAMES, files, tvb_command


def test_tasks_join_and_leave_as_with_the_command(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    first = {name: tasks[name] for name in NAMES[:3]}
    new = {NAMES[3]: tasks[NAMES[3]]}
    b = tvb.compress(base, first, tmp_path / "b")
    grown = tvb.extend(b, base, new, tmp_path / "grown")
    assert (b.tasks, grown.tasks) == (NAMES[:3], NAMES) and grown.path == tmp_path / "grown"
    tvb_command("extend", tmp_path / "b", f"{NAMES[3]}={tasks[NAMES[3]]}", "--base", base, "-o", tmp_path / "its")
    assert files(tmp_path / "grown") == files(tmp_path / "its")

    smaller = tvb.drop(grown, NAMES[1], tmp_path / "smaller")
    assert smaller.tasks == [NAMES[0], *NAMES[2:]]
    tvb_command("drop", tmp_path / "grown", NAMES[1], "-o", tmp_path / "its-smaller")
    assert files(tmp_path / "smaller") == files(tmp_path / "its-smaller")
    stay = {name: path for name, path in tasks.items() if name != NAMES[1]}
    again = tvb.drop(grown, [NAMES[1]], tmp_path / "again", base=base, originals=stay)
    assert again.tasks == smaller.tasks and files(tmp_path / "again") != files(tmp_path / "smaller")


def test_in_place_an_exact_gram_file_and_the_originals_bytes(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    first = {name: tasks[name] for name in NAMES[:3]}
    new = {NAMES[3]: tasks[NAMES[3]]}
    b = tvb.compress(base, first, tmp_path / "b")
    g = tvb.gram(base, tasks, tmp_path / "all.gram", extend=tvb.gram(base, first, tmp_path / "first.gram"))
    own = {name: data for name, data in files(tmp_path / "b").items() if name.startswith("atom-0")}
    shutil.copytree(tmp_path / "b", tmp_path / "estimated")
    exact = tvb.extend(b, base, new, gram=g)
    estimated = tvb.extend(tmp_path / "estimated", base, new)
    assert exact.path == tmp_path / "b" and exact.tasks == NAMES
    assert "estimates" not in exact.manifest and "estimates" in estimated.manifest
    found = files(tmp_path / "b")
    assert own and sum(found.get(name) == data for name, data in own.items()) >= len(NAMES[:3])


def test_what_is_wrong_is_an_error_and_changes_nothing(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    first = {name: tasks[name] for name in NAMES[:2]}
    b = tvb.compress(base, first, tmp_path / "b")
    before = files(tmp_path / "b")
    with pytest.raises(tvb.Error, match=NAMES[0]):
        tvb.extend(b, base, {NAMES[0]: tasks[NAMES[0]]})
    with pytest.raises(tvb.Error, match="base"):
        tvb.extend(b, tasks[NAMES[3]], {NAMES[2]: tasks[NAMES[2]]})
    with pytest.raises(tvb.Error, match="nobody"):
        tvb.drop(b, "nobody")
    with pytest.raises(tvb.Error, match="task"):
        tvb.drop(b, NAMES[:2])
    with pytest.raises(tvb.UsageError, match="originals"):
        tvb.drop(b, NAMES[0], base=base)
    with pytest.raises(tvb.UsageError, match="at least one"):
        tvb.extend(b, base, {})
    assert files(tmp_path / "b") == before
