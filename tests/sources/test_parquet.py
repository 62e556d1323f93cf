"""Parquet files as sources: what is read, and which files are refused."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
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
        (["u1", "i2"], np.float32),
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
        'column "a": expected numbers, text or truth values, got binary': {
            "a": [b"1"] * 4,
            "y": [0, 1, 0, 1],
        },
        "expected labels that are numbers or strings, got others": {
            "a": ones,
            "y": [[0], [1], [0], [1]],
        },
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


@pytest.mark.parametrize("other", [{"a": ["p", "q", "r"] * 100}, {"b": [1.0] * 300}])
def test_damaged_texts(other, tmp_path):
    path = tmp_path / "a.parquet"
    texts = pa.table({**other, "y": ["ant", "bee", "cat"] * 100})
    pq.write_table(texts, path, compression="none")
    whole = path.read_bytes()
    # The codes 0, 1, 2, 0, ... of two bits each, of which the first becomes 3; and no UTF-8.
    for bytes_before, bytes_after in (
        (b"\x24\x49\x92", b"\x27\x49\x92"),
        (b"\3\0\0\0b", b"\3\0\0\0\xff"),
    ):
        assert bytes_before in whole
        path.write_bytes(whole.replace(bytes_before, bytes_after, 1))
        with pytest.raises(ValueError, match="a.parquet: row group 0: not readable: Dictionary"):
            open_and_stream(path, "y")


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


@pytest.mark.parametrize("index", ["unnamed", "named", "two", "lost", "range"])
def test_an_index_that_pandas_wrote_is_no_feature(index, tmp_path):
    frame = pd.DataFrame({"a": np.arange(6.0), "y": [0, 0, 0, 1, 1, 1]})
    if index == "two":
        frame.index = pd.MultiIndex.from_arrays(
            [np.arange(6), np.arange(6) + 10], names=["i", None]
        )
    elif index != "range":
        frame.index = pd.Index(np.arange(6) * 3, name="i" if index == "named" else None)
    columns = pa.Table.from_pandas(frame)
    pq.write_table(
        columns.replace_schema_metadata() if index == "lost" else columns, tmp_path / "a.parquet"
    )
    assert open_source(tmp_path / "a.parquet", "y").feature_names == ["a"]
    if index in ("named", "two"):
        source = open_source(tmp_path / "a.parquet", "y", features=["i", "a"])
        np.testing.assert_array_equal(collect(source)[0][:, 1], frame["a"])
        assert open_source(tmp_path / "a.parquet", "i").n_features == 2
    if index == "unnamed":
        source = open_source(tmp_path / "a.parquet", "y", features=["__index_level_0__"])
        np.testing.assert_array_equal(collect(source)[0][:, 0], frame.index)


def put(folder, name, **columns):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_a_folder_is_read_by_the_rules_of_pyarrow(tmp_path):
    for i, name in enumerate(["b.parquet", "a.PQ", "sub/c.parquet"]):
        put(tmp_path, name, a=[float(i)], y=[i])
    for name in (".hidden.parquet", "_metadata", ".ipynb_checkpoints/b.parquet", "_tmp/d.parquet"):
        put(tmp_path, name, a=[100.0], y=[100])
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".b.parquet.crc").write_text("")
    source = open_source(tmp_path, "y")
    assert collect(source)[0].ravel().tolist() == [1, 0, 2]
    want = pa.dataset.dataset(tmp_path, format="parquet", partitioning="hive").to_table()
    assert sorted(want["a"].to_pylist()) == [0, 1, 2]
    put(tmp_path, "part-0", a=[3.0], y=[3])
    with pytest.raises(ValueError, match="expected Parquet files only, got part-0"):
        open_source(tmp_path, "y")
    assert collect(open_source(tmp_path, "y", format="parquet"))[0].ravel().tolist() == [1, 0, 3, 2]
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link to a folder"):
        open_source(tmp_path, "y")


def test_partitions_in_folder_names_are_columns(tmp_path, monkeypatch):
    for year in (2023, 2024):
        for kind in ("rose", "lily"):
            put(tmp_path, f"d/year={year}/kind={kind}/0.parquet", a=[1.0 * year, 2.0, 3.0])
    want = pa.dataset.dataset(tmp_path / "d", partitioning="hive").to_table()
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "d", "d"):
        source = open_source(path, "kind", chunk_rows=2)
        assert source.feature_names == ["a", "year"]
        X, y = source.load()
        np.testing.assert_array_equal(X, np.column_stack([want["a"], want["year"]]))
        assert y.tolist() == want["kind"].to_pylist()
    source = open_source("d", "kind", features=["year"])
    assert collect(source)[0].ravel().tolist() == [2023] * 6 + [2024] * 6
    source = open_source("d", "year", chunk_rows=4)
    assert source.feature_names == ["a", "kind_lily", "kind_rose"]
    assert source.load()[0][:, 1].tolist() == [1, 1, 1, 0, 0, 0] * 2
    put(tmp_path, "d/x.parquet", a=[1.0])
    with pytest.raises(ValueError, match="missing"):
        open_and_stream("d", "kind")
    put(tmp_path, "e/year=1/0.parquet", a=[1.0], year=[5.0])
    with pytest.raises(ValueError, match="^e: .*year"):
        open_source("e", "a")


@pytest.mark.parametrize("chunk_rows", [None, 7])
@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_column_of_lists_is_features(kind, alone, chunk_rows, tmp_path):
    X = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    types = {
        "list": pa.list_(pa.float32()),
        "large": pa.large_list(pa.float32()),
        "fixed": pa.list_(pa.float32(), 8),
    }
    y = np.arange(50) % 3
    columns = {"emb": pa.array(X.tolist(), types[kind]), "y": y}
    if not alone:
        columns["b"] = y.astype(np.float32)
        X = np.column_stack([X, y]).astype(np.float32)
    for i, rows in enumerate((slice(0), slice(0, 30), slice(30, None))):
        put(tmp_path, f"{i}.parquet", **{name: c[rows] for name, c in columns.items()})
    source = open_source(tmp_path, "y", chunk_rows=chunk_rows)
    assert source.feature_names[:2] == ["emb[0]", "emb[1]"]
    assert source.columns.names == (["emb"] if alone else ["emb", "b"])
    check(source, X, y, np.arange(3.0 * (X.shape[1] + 1)))


def test_lists_that_are_no_features(tmp_path):
    y = [0, 1, 0]
    for values, message in (
        ([[1.0, 2], [3, 4], [5]], r'column "emb": expected lists of 2 values, got one of 1'),
        ([[1.0, 2], [3, 4], None], 'column "emb": missing values'),
        ([[1.0, 2], [3, None], [5, 6]], 'column "emb": missing values'),
        ([["a"], ["b"], ["c"]], 'column "emb": expected numbers, .*got list'),
        ([[], [], []], "expected"),
    ):
        put(tmp_path, "a.parquet", emb=values, y=y)
        with pytest.raises(ValueError, match=message):
            open_and_stream(tmp_path / "a.parquet", "y")


def test_labels_stored_in_several_ways(tmp_path):
    labels = pa.array(["u", "v"])
    for i, kind in enumerate(
        (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()))
    ):
        put(tmp_path, f"s/{i}.parquet", a=[1.0, 2.0], y=labels.cast(kind))
        put(tmp_path, f"i/{i}.parquet", a=[1.0, 2.0], y=np.array([1, 2], f"i{2 << i}"[:2]))
    assert open_source(tmp_path / "s", "y").load()[1].tolist() == ["u", "v"] * 3
    assert open_source(tmp_path / "i", "y").load()[1].tolist() == [1, 2] * 3
    put(tmp_path, "i/9.parquet", a=[1.0, 2.0], y=labels)
    with pytest.raises(ValueError, match="expected int16 as before, got string"):
        open_source(tmp_path / "i", "y")


def test_repeated_names(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array([1.0, 2]), pa.array([3.0, 4]), pa.array([0, 1])], list("aay")
    )
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="b.parquet: columns whose names occur more than once: a"):
        open_source(tmp_path / "b.parquet", "y")
    put(tmp_path, "a.parquet", a=[1.0], y=[0])
    with pytest.raises(ValueError, match='b.parquet: more than one column "a"'):
        open_source(tmp_path, "y")
    with pytest.raises(ValueError, match="names occur more than once: a"):
        open_source(tmp_path / "a.parquet", "y", features=["a", "a"])
