"""NumPy's files as sources: what is read, and which files are refused."""

import numpy as np
import pytest
from source_files import check, open_and_stream

from fastsoftmax.sources import open_source


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", ["directory", "file", "pairs"])
def test_npy(tmp_path, problem, layout, order):
    X, y, w = problem
    X, labels = np.asarray(X, order=order), y * 10 - 5
    if layout == "pairs":
        for i, rows in enumerate((slice(0, 900), slice(900, None))):
            np.save(tmp_path / f"X_{i}.npy", np.asarray(X[rows], order=order))
            np.save(tmp_path / f"y_{i}.npy", labels[rows])
    else:
        np.save(tmp_path / "X.npy", X)
        np.save(tmp_path / "y.npy", labels)
    path = tmp_path / "X.npy" if layout == "file" else tmp_path
    check(open_source(path, chunk_rows=640), X, labels, w)


def test_npy_refused(tmp_path, problem):
    X, y, _ = problem
    with pytest.raises(ValueError, match="expected .parquet files, or X.npy"):
        open_source(tmp_path)
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(ValueError, match="no labels: expected them in y.npy"):
        open_source(tmp_path)
    np.save(tmp_path / "y.npy", y[:-1])
    with pytest.raises(ValueError, match=r"y.npy: expected shape \(3000,\), got \(2999,\)"):
        open_source(tmp_path)
    np.save(tmp_path / "y.npy", np.where(y == 2, np.nan, y))
    with pytest.raises(ValueError, match="y.npy: missing or infinite labels"):
        open_source(tmp_path)
    (tmp_path / "X.npy").write_bytes((tmp_path / "X.npy").read_bytes()[:5000])
    with pytest.raises(ValueError, match="X.npy: not a readable .npy file"):
        open_source(tmp_path)
    X = X.copy()
    X[2000, 3] = np.nan
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(ValueError, match="rows 2000 to 2999: column 3: NaN"):
        open_and_stream(tmp_path, chunk_rows=1000)
