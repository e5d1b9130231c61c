"""Jobs in parts: joined in any order they are what one run makes, to the byte; what does not belong together is refused."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import tvb
from conftest import ZOO, files
from test_memory import models


def test_parts_of_a_gram_file_join_to_one_run_s(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    whole = tvb.gram(base, tasks, tmp_path / "whole.gram")
    parts = [tvb.gram(base, tasks, tmp_path / f"part-{k}", part=(k, 3)) for k in (1, 2, 3)]
    assert parts == [tmp_path / f"part-{k}" for k in (1, 2, 3)]
    joined = tvb.join([parts[2], parts[0], parts[1]], tmp_path / "joined.gram")
    assert isinstance(joined, tvb.Gram) and joined.path.read_bytes() == whole.path.read_bytes()
    np.testing.assert_array_equal(joined.matrix, whole.matrix)
    assert tvb.gram(base, tasks, tmp_path / "again", part="2/3").read_bytes() == parts[1].read_bytes()


@pytest.mark.parametrize(
    "arguments", [{}, {"bits": 4, "keep_sum": 0}, {"method": "pca", "atoms": 2}, {"atoms": 2, "dtype": "bf16"}]
)
def test_parts_of_a_basis_join_to_one_run_s(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, arguments: dict[str, Any]
) -> None:
    if "atoms" in arguments:
        arguments = {**arguments, "gram": tvb.gram(base, tasks, tmp_path / "run.gram")}
    whole = tvb.compress(base, tasks, tmp_path / "whole", **arguments)
    parts = [tvb.compress(base, tasks, tmp_path / f"part-{k}", part=(k, 2), **arguments) for k in (2, 1)]
    assert parts == [tmp_path / "part-2", tmp_path / "part-1"]
    joined = tvb.join(parts, tmp_path / "joined")
    assert isinstance(joined, tvb.Basis) and joined.tasks == whole.tasks
    assert files(tmp_path / "joined") == files(tmp_path / "whole")
    into = tmp_path / "shared"
    parts = [tvb.compress(base, tasks, tmp_path / f"own-{k}", part=(k, 2), into=into, **arguments) for k in (1, 2)]
    tvb.join(parts, tmp_path / "of-shared")
    assert files(tmp_path / "of-shared") == files(tmp_path / "whole")


def test_what_does_not_belong_together_is_refused(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    first, second = (tvb.gram(base, tasks, tmp_path / f"{k}", part=(k, 2)) for k in (1, 2))
    others = tvb.gram(base, {**tasks, "waves": ZOO / "dice.safetensors"}, tmp_path / "others", part=(2, 2))
    of_three = tvb.gram(base, tasks, tmp_path / "of-three", part=(2, 3))
    damaged = tmp_path / "damaged"
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for parts in ([first], [first, first, second], [first, others], [first, of_three], [first, damaged], [first, base]):
        with pytest.raises(tvb.Error) as raised:
            tvb.join(parts, tmp_path / "joined")
        assert raised.value.message
        assert not (tmp_path / "joined").exists()
    for part in ((0, 2), (3, 2), (1, 0), "x", (1, 2, 3), 7):
        with pytest.raises(tvb.UsageError):
            tvb.gram(base, tasks, tmp_path / "never", part=part)  # type: ignore[arg-type]
    with pytest.raises(tvb.UsageError, match="a list of paths expected"):
        tvb.join("part-1", tmp_path / "never")
    with pytest.raises(tvb.UsageError, match="all parts of a job expected"):
        tvb.join([], tmp_path / "never")
    with pytest.raises(tvb.UsageError):
        # Mixtures want the Gram matrix of all rows first.
        tvb.compress(base, tasks, tmp_path / "never", atoms=2, part=(1, 2))
    assert not (tmp_path / "never").exists()


def test_parts_of_state_dicts_in_memory(tmp_path: pathlib.Path) -> None:
    base, tasks = models()
    whole = tvb.gram(base, tasks, tmp_path / "whole")
    parts = [tvb.gram(base, tasks, tmp_path / f"{k}", part=(k, 2)) for k in (1, 2)]
    joined = tvb.join(parts, tmp_path / "joined")
    assert joined.path.read_bytes() == whole.path.read_bytes()
