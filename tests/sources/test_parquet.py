"""Parquet files as sources: what is read, and which files are refused."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import NAMES, N, check, collect, open_and_stream, table, write_parquet

from fastsoftmax.sources import open_source


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


def test_parquet_categories_and_files_without_rows(tmp_path, problem):
    X, y, w = problem
    labels = np.array(["ant", "bee", "cat", "dog"])[y]
    for i, rows in enumerate((slice(0), slice(0, 1000), slice(1000, None))):
        columns = table(X[rows], labels[rows])
        label = columns["label"].dictionary_encode()
        columns = columns.set_column(len(NAMES), "label", label)
        pq.write_table(columns, tmp_path / f"{i}.parquet", row_group_size=90)
    check(open_source(tmp_path, "label", chunk_rows=512), X, labels, w)
    (tmp_path / "1.parquet").unlink()
    (tmp_path / "2.parquet").unlink()
    assert list(open_source(tmp_path, features=NAMES, labelled=False).features()) == []


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parquet_names_the_row_group_of_a_bad_value(tmp_path, problem, value):
    X, y, _ = problem
    X = X.copy()
    X[1500, 4] = value
    write_parquet(tmp_path / "a.parquet", X, y)
    message = 'a.parquet: row group 2: column "x4": NaN or infinite'
    with pytest.raises(ValueError, match=message):
        open_and_stream(tmp_path / "a.parquet", "label", chunk_rows=700)


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
            open_and_stream(tmp_path / "a.parquet", "y", chunk_rows=2)


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
        open_and_stream(path, "label")
    write_parquet(path, X[:0], y[:0])
    with pytest.raises(ValueError, match="a.parquet: no rows"):
        open_source(path, "label")


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
