"""Small matrices of the extension as numpy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def matrix(packed: tuple[int, int, bytes]) -> Matrix:
    """Rows, columns and bytes as an array of its own."""
    n_rows, n_columns, data = packed
    array: Matrix = np.frombuffer(data, dtype=np.float64).reshape(n_rows, n_columns).copy()
    return array
