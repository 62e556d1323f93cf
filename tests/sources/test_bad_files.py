"""Files that are refused as sources: damaged, changing, or not what they should be."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import collect, rows_and_weights, table, write_parquet

from fastsoftmax.sources import open_source


@pytest.fixture(scope="module")
def problem():
    return rows_and_weights()


def drained(path, target=None, **options):
    for _ in open_source(path, target, **options)():
        pass


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parquet_names_the_row_group_of_a_bad_value(tmp_path, problem, value):
    X, y, _ = problem
    X = X.copy()
    X[1500, 4] = value
    write_parquet(tmp_path / "a.parquet", X, y)
    message = 'a.parquet: row group 2: column "x4": NaN or infinite'
    with pytest.raises(ValueError, match=message):
        drained(tmp_path / "a.parquet", "label", chunk_rows=700)


def test_parquet_missing_values(tmp_path):
    ones = [1.0] * 4
    for name, data in {
        'row group 1: column "a": missing values': {"a": [1.0, 2.0, None, 3.0], "y": [0, 1, 0, 1]},
        "row groups? .*1: missing": {"a": ones, "y": [0, 1, None, 1]},
        "row groups? .*missing labels": {"a": ones, "y": ["u", "v", None, "u"]},
        'column "a": expected numbers, got string': {"a": ["1"] * 4, "y": [0, 1, 0, 1]},
        "expected labels that are numbers or strings": {
            "a": ones,
            "y": pa.array([0, 1, 0, 1], pa.timestamp("s")),
        },
    }.items():
        pq.write_table(pa.table(data), tmp_path / "a.parquet", row_group_size=2)
        with pytest.raises(ValueError, match=name):
            drained(tmp_path / "a.parquet", "y", chunk_rows=2)


def test_parquet_columns_and_schemas(tmp_path, problem):
    X, y, _ = problem
    write_parquet(tmp_path / "a.parquet", X, y)
    for target, features, message in (
        (None, None, "no labels: name their column"),
        ("nowhere", None, 'no column "nowhere"'),
        ("label", ["x1", "z"], "missing feature columns: z"),
        ("label", [], "missing feature columns: all"),
    ):
        with pytest.raises(ValueError, match=f"a.parquet: {message}"):
            open_source(tmp_path / "a.parquet", target, features)
    write_parquet(tmp_path / "b.parquet", X.astype(float), y)
    with pytest.raises(ValueError, match='b.parquet: column "x0": expected float as before'):
        open_source(tmp_path, "label")
    pq.write_table(table(X, y).drop_columns(["x5"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match='b.parquet: no column "x5"'):
        open_source(tmp_path, "label")


def test_parquet_damaged(tmp_path, problem):
    X, y, _ = problem
    path = tmp_path / "a.parquet"
    write_parquet(path, X, y, compression="snappy")
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"no parquet at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.parquet: not a readable Parquet file"):
            open_source(path, "label")
    path.write_bytes(whole[: len(whole) // 4] + bytes(2000) + whole[len(whole) // 4 + 2000 :])
    with pytest.raises(ValueError, match="a.parquet: row group"):
        drained(path, "label")
    write_parquet(path, X[:0], y[:0])
    with pytest.raises(ValueError, match="a.parquet: no rows"):
        open_source(path, "label")


def test_labels_that_change_between_passes(tmp_path, problem):
    X, y, _ = problem
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    source = open_source(tmp_path)
    times = os.stat(tmp_path / "y.npy")
    np.save(tmp_path / "y.npy", y + 1)
    os.utime(tmp_path / "y.npy", ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="y.npy: changed since it was opened"):
        collect(source)
    os.utime(tmp_path / "y.npy", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match="rows 0 to 2999: labels that were not there"):
        collect(source)
    os.unlink(tmp_path / "y.npy")
    with pytest.raises(ValueError, match="y.npy: not readable: No such file"):
        collect(source)


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
        drained(tmp_path, chunk_rows=1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV file"),
        ("a,y\n", "no rows"),
        ("a,y\n1,0\n2,1\nx,0\n", 'column "a": expected numbers, got others in row 3'),
        ("a,y\n1,0\n2,1\n3,\n", "row 3: missing label"),
        ("a,y\n1,0\n2,1\n,1\n", 'column "a": missing or infinite value in row 3'),
        ("a,y\n1,0\n2,1\ninf,1\n", 'column "a": missing or infinite value in row 3'),
        ("a,y\n1,0\n2,1\n3,1,7,8\n", "not a CSV file: .*line 4"),
        ("a,b\n1,0\n", 'no column "y"'),
    ],
)
def test_csv_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=f"a.csv: {message}"):
        drained(tmp_path / "a.csv", "y", chunk_rows=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("1 1:2\n2 1:3\n1 1:x\n", "line 3: not svmlight"),
        ("1 1:2\n2 1:nan\n", "lines 1 to 2: NaN"),
        ("nan 1:2\n2 1:1\n", "lines 1 to 2: missing or infinite labels"),
        ("1\n2\n", "no features"),
    ],
)
def test_svmlight_refused(tmp_path, text, message):
    (tmp_path / "a.svm").write_text(text)
    with pytest.raises(ValueError, match=f"a.svm: {message}"):
        drained(tmp_path / "a.svm", chunk_rows=2)


def test_unknown_paths_and_arguments(tmp_path):
    (tmp_path / "a.xls").write_text("")
    (tmp_path / "a.svm").write_text("1 1:2\n2 1:3\n")
    for name, options, message in (
        ("b.csv", {}, "no such file"),
        ("a.xls", {}, 'expected .parquet, .*got ".xls"'),
        ("a.svm", {"target": "y"}, "target and features are for"),
        ("a.svm", {"chunk_rows": 0}, "chunk_rows: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path / name, **options)


def test_without_pyarrow_the_extra_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    code = (
        "import sys; sys.modules['pyarrow'] = None; from fastsoftmax.sources import open_source;"
        f"open_source({str(tmp_path / 'a.parquet')!r}, 'y')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=300
    )
    assert 'pip install "fastsoftmax[parquet]"' in result.stderr
