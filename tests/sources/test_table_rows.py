"""Columns of a table, put side by side in rows."""

import numpy as np
import pytest

from fastsoftmax.sources._table_rows import Columns


@pytest.mark.parametrize("n_rows", [1, 16, 2509])
@pytest.mark.parametrize("n_columns", [1, 7, 16, 17, 50])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_interleaving(n_rows, n_columns, dtype, monkeypatch):
    X = np.random.default_rng(0).integers(0, 99, (n_rows + 3, n_columns)).astype(dtype)
    places = np.random.default_rng(1).permutation(n_rows)
    for disabled in (False, True):
        monkeypatch.setattr("fastsoftmax.sources._table_rows.jit_disabled", lambda d=disabled: d)
        out = np.full_like(X, 100)
        Columns(list(X.T), X.dtype).interleave(3, places, out)
        np.testing.assert_array_equal(out[places], X[3:])
        np.testing.assert_array_equal(out[n_rows:], 100)
