"""Files as sources of chunks: what is read, in bounded memory."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from source_files import NAMES, N, collect, rows_and_weights, write_parquet

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source
from fastsoftmax.sources._table_rows import Columns


@pytest.fixture(scope="module")
def problem():
    return rows_and_weights()


def objective(source):
    return SoftmaxObjective.from_chunks(
        source, n_features=source.n_features, n_classes=len(source.classes), l2=0.1
    )


def check(source, X, y, w):
    """The source gives these rows, and so do its passes the in-memory bits."""
    assert (source.n_rows, source.n_features) == X.shape
    rows, codes = collect(source)
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(source.classes[codes], y)
    loss, gradient = objective(source)(w)
    want, want_gradient = SoftmaxObjective(X, codes, l2=0.1)(w)
    assert loss == want
    np.testing.assert_array_equal(gradient, want_gradient)


@pytest.mark.parametrize("chunk_rows", [None, 1, 100, 700, 1500])
@pytest.mark.parametrize("group", [700, 90, 3000])
def test_parquet(tmp_path, problem, chunk_rows, group):
    X, y, w = problem
    write_parquet(tmp_path / "a.parquet", X, y, row_group_size=group)
    source = open_source(tmp_path / "a.parquet", "label", chunk_rows=chunk_rows)
    assert source.feature_names == NAMES
    assert all(len(rows) <= (chunk_rows or N) for rows, _ in source())
    rows, codes = collect(source)
    assert rows.dtype == np.float32
    if chunk_rows == 1:
        np.testing.assert_array_equal(rows, X)
    else:
        check(source, X, y, w)


def test_parquet_directory_projection_and_string_labels(tmp_path, problem):
    X, y, _ = problem
    labels = np.array(["ant", "bee", "cat", "dog"])[y]
    for i, rows in enumerate((slice(0, 1000), slice(1000, None))):
        write_parquet(tmp_path / f"part-{i}.parquet", X[rows], labels[rows])
    source = open_source(tmp_path, "label", features=["x7", "x2"], chunk_rows=512)
    assert source.feature_names == ["x7", "x2"]
    check(source, X[:, [7, 2]], labels, np.arange(12.0))


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        (["f4", "f8"], np.float64),
        (["u1", "u1"], np.uint8),
        (["u1", "f4"], np.float32),
        (["i4", "f4"], np.float64),
        (["?", "i2"], np.float32),
    ],
)
def test_parquet_types(tmp_path, types, dtype):
    columns = [np.arange(9) % 2 + np.zeros(9, t) for t in types]
    columns = [column.astype(t) for column, t in zip(columns, types, strict=True)]
    y = np.arange(9) % 3 == 0
    pq.write_table(pa.table({"a": columns[0], "b": columns[1], "y": y}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", "y")
    X, codes = collect(source)
    assert X.dtype == dtype
    np.testing.assert_array_equal(X, np.column_stack(columns))
    np.testing.assert_array_equal(codes, y)


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


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", ["X.npy", "pair", "parts"])
def test_npy(tmp_path, problem, layout, order):
    X, y, w = problem
    X, labels = np.asarray(X, order=order), y * 10 - 5
    if layout == "parts":
        for i, rows in enumerate((slice(0, 900), slice(900, None))):
            np.save(tmp_path / f"X_{i}.npy", np.asarray(X[rows], order=order))
            np.save(tmp_path / f"y_{i}.npy", labels[rows])
    else:
        np.save(tmp_path / "X.npy", X)
        np.save(tmp_path / "y.npy", labels)
    path = tmp_path / "X.npy" if layout == "pair" else tmp_path
    check(open_source(path, chunk_rows=640), X, labels, w)


@pytest.mark.parametrize("labels", ["numbers", "strings"])
def test_csv(tmp_path, problem, labels):
    X, y, w = problem
    X = X.astype(float)
    y = np.array(["10", "9", "8", "x"])[y] if labels == "strings" else np.array([10, 9, 8, -1])[y]
    frame = pd.DataFrame(X, columns=NAMES)
    frame.insert(3, "label", y)
    frame.to_csv(tmp_path / "a.csv", index=False)
    X = pd.read_csv(tmp_path / "a.csv")[NAMES].to_numpy()
    source = open_source(tmp_path / "a.csv", "label", chunk_rows=701)
    check(source, X, y, w)
    assert source.classes.dtype.kind == ("U" if labels == "strings" else "i")


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("chunk_rows", [None, 450])
def test_svmlight(tmp_path, problem, zero_based, chunk_rows):
    X, y, w = problem
    X = np.where(np.abs(X) > 0.5, X, 0).astype(float)
    dump_svmlight_file(X, y + 1, str(tmp_path / "a.svm"), zero_based=zero_based)
    source = open_source(tmp_path / "a.svm", chunk_rows=chunk_rows)
    assert source.classes.tolist() == [1, 2, 3, 4]
    rows, codes = collect(source)
    np.testing.assert_allclose(rows, X, rtol=1e-12)
    np.testing.assert_array_equal(codes, y)
    loss, _ = objective(source)(w)
    assert loss == SoftmaxObjective(sparse.csr_array(rows), y, l2=0.1)(w)[0]


# --------------------------------------------------------------------------- shares, features


def write(kind, directory, X, y):
    """Write a data set, and return what opens it."""
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


KINDS = pytest.mark.parametrize("kind", ["parquet", "csv", "svmlight", "npy", "npz"])


@KINDS
def test_shares_are_disjoint_and_the_same_each_time(kind, tmp_path, problem):
    X, y, _ = problem
    path, target = write(kind, tmp_path, X, y)
    shares = []
    for chunk_rows in (100, 1000):
        source = open_source(path, target, chunk_rows=chunk_rows)
        shares.append([collect(share) for share in source.split(0.3, seed=5)])
        rows, codes = collect(source)
    assert rows.shape == X.shape
    (first, second), again = shares
    for (a, labels), (b, same) in zip((first, second), again, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(labels, same)
    assert 0.25 < len(second[0]) / N < 0.35
    assert [share.n_rows for share in source.split(0.3, seed=5)] == [len(first[0]), len(second[0])]
    order = np.argsort(np.concatenate([first[0], second[0]])[:, 0])
    both = np.concatenate([first[0], second[0]])[order]
    np.testing.assert_array_equal(both, rows[np.argsort(rows[:, 0])])
    labels = np.concatenate([first[1], second[1]])[order]
    np.testing.assert_array_equal(labels, codes[np.argsort(rows[:, 0])])
    assert not np.array_equal(collect(source.split(0.3, seed=6)[1])[0], second[0])


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_a_share_in_memory_and_streamed(kind, tmp_path, problem):
    """Chunks of which the share has nothing come between others that are still being read."""
    X, y, w = problem
    path, target = write(kind, tmp_path, X, y)
    for share in open_source(path, target, chunk_rows=2).split(0.4):
        previous = before = None
        for rows, _ in share():
            assert len(rows) > 0
            if previous is not None:
                np.testing.assert_array_equal(previous, before)
            previous, before = rows, rows.copy()
    share = open_source(path, target, chunk_rows=300).split(0.4)[0]
    rows, codes = collect(share)
    assert objective(share)(w)[0] == SoftmaxObjective(rows, codes, l2=0.1)(w)[0]


def test_shares_refused(tmp_path, problem):
    X, y, _ = problem
    source = open_source(*write("npz", tmp_path, X[:2], np.array([0, 1])))
    with pytest.raises(ValueError, match="2 rows are too few to split"):
        source.split(1e-9)
    with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1, got 1"):
        source.split(1)


@KINDS
def test_features_alone_types_and_digests(kind, tmp_path, problem):
    X, y, _ = problem
    path, target = write(kind, tmp_path, X, y)
    names = NAMES if target else None
    source = open_source(path, features=names, chunk_rows=700, labelled=False)
    source.dtype = np.dtype(np.float64)
    parts = list(part.copy() for part in source.features())
    assert {part.dtype for part in parts} == {np.dtype(np.float64)}
    rows = np.concatenate([part.toarray() if kind == "svmlight" else part for part in parts])
    np.testing.assert_allclose(rows, X, rtol=1e-6)
    source = open_source(path, target, chunk_rows=700)
    assert source.digest == ()
    loaded, labels = source.load()
    np.testing.assert_allclose(loaded.toarray() if kind == "svmlight" else loaded, X, rtol=1e-6)
    np.testing.assert_array_equal(labels, y)
    changed = X.copy()
    changed[2000, 3] += 1
    write(kind, tmp_path, changed, y)
    other = open_source(path, target, chunk_rows=700)
    other.load()
    assert (other.digest[0] != source.digest[0], other.digest[1]) == (True, source.digest[1])


def test_unlabelled_csv_is_checked(tmp_path):
    for text, message in (
        ("a,b\n1,2\n3,4,5\n", "not a CSV file"),
        ("a,b\n1,2\n3,x\n", 'column "b": expected numbers'),
        ("a,b\n1,2\n3\n", 'column "b": missing or infinite value in row 2'),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=f"a.csv: {message}"):
            list(open_source(tmp_path / "a.csv", labelled=False).features())


def test_float32_that_overflows_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.array([[1.0], [1e300]]), y=np.array([0, 1]))
    source = open_source(tmp_path / "a.npz")
    source.dtype = np.dtype(np.float32)
    with pytest.raises(ValueError, match="a.npz: rows 0 to 1: column 0: NaN or infinite"):
        collect(source)
