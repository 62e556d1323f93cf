"""Files for tests of sources: a small problem, and tables of it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from problems import make_problem

N, D, K = 3000, 11, 4
NAMES = [f"x{i}" for i in range(D)]


def rows_and_weights():
    """X, y and the flat weights of a model."""
    X, W, y, bias, _ = make_problem(N, D, K, np.float32)
    return X, y, np.concatenate([W.ravel(), bias])


def table(X, y):
    return pa.table([*(pa.array(column) for column in X.T.copy()), pa.array(y)], [*NAMES, "label"])


def write_parquet(path, X, y, **options):
    pq.write_table(table(X, y), path, **{"row_group_size": 700, **options})


def collect(source):
    chunks = [(X.toarray() if hasattr(X, "toarray") else X.copy(), y) for X, y in source()]
    return np.concatenate([X for X, _ in chunks]), np.concatenate([y for _, y in chunks])
