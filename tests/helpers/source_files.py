"""Files for tests of sources: a small problem, its rows in files, and checks of a source."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from problems import make_problem
from sklearn.datasets import dump_svmlight_file

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source

N, D, K = 3000, 11, 4
NAMES = [f"x{i}" for i in range(D)]
KINDS = ["parquet", "csv", "svmlight", "npy", "npz"]


def rows_and_weights():
    """X, y and the flat weights of a model."""
    X, W, y, bias, _ = make_problem(N, D, K, np.float32)
    return X, y, np.concatenate([W.ravel(), bias])


def table(X, y):
    return pa.table([*(pa.array(column) for column in X.T.copy()), pa.array(y)], [*NAMES, "label"])


def write_parquet(path, X, y, **options):
    pq.write_table(table(X, y), path, **{"row_group_size": 700, **options})


def write(kind, directory, X, y):
    """Write a data set, and return the path and the target that open it."""
    if kind == "parquet":
        write_parquet(directory / "a.parquet", X, y)
        return directory / "a.parquet", "label"
    if kind == "csv":
        frame = pd.DataFrame(X.astype(float), columns=NAMES)
        frame.assign(label=y).to_csv(directory / "a.csv", index=False)
        return directory / "a.csv", "label"
    if kind == "svmlight":
        dump_svmlight_file(X, y, str(directory / "a.svm"))
        return directory / "a.svm", None
    if kind == "npz":
        np.savez(directory / "a.npz", X=X, y=y)
        return directory / "a.npz", None
    np.save(directory / "X.npy", X)
    np.save(directory / "y.npy", y)
    return directory, None


def collect(source):
    """All rows of a source, dense, and their codes."""
    chunks = [(X.toarray() if hasattr(X, "toarray") else X.copy(), y) for X, y in source()]
    return np.concatenate([X for X, _ in chunks]), np.concatenate([y for _, y in chunks])


def open_and_stream(path, target=None, **options):
    """Open a source and drop its chunks, for the errors of either."""
    for _ in open_source(path, target, **options)():
        pass


def objective(source):
    return SoftmaxObjective.from_chunks(
        source, n_features=source.n_features, n_classes=len(source.classes), l2=0.1
    )


def check(source, X, y, w):
    """The source yields these rows, and its objective has the bits of that of arrays."""
    assert (source.n_rows, source.n_features) == X.shape
    rows, codes = collect(source)
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(source.classes[codes], y)
    loss, gradient = objective(source)(w)
    want, want_gradient = SoftmaxObjective(X, codes, l2=0.1)(w)
    assert loss == want
    np.testing.assert_array_equal(gradient, want_gradient)
