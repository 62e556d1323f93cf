"""What all sources can do: split, load, features alone; and what every pass checks."""

import os

import numpy as np
import pytest
from source_files import KINDS, NAMES, N, collect, objective, write

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source


@pytest.mark.parametrize("kind", KINDS)
def test_split_is_disjoint_and_the_same_each_time(kind, tmp_path, problem):
    X, y, _ = problem
    path, target = write(kind, tmp_path, X, y)
    splits = []
    for chunk_rows in (100, 1000):
        source = open_source(path, target, chunk_rows=chunk_rows)
        splits.append([collect(side) for side in source.split(0.3, seed=5)])
        rows, codes = collect(source)
    assert rows.shape == X.shape
    (first, second), again = splits
    for (a, labels), (b, same) in zip((first, second), again, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(labels, same)
    assert 0.25 < len(second[0]) / N < 0.35
    assert [side.n_rows for side in source.split(0.3, seed=5)] == [len(first[0]), len(second[0])]
    order = np.argsort(np.concatenate([first[0], second[0]])[:, 0])
    both = np.concatenate([first[0], second[0]])[order]
    np.testing.assert_array_equal(both, rows[np.argsort(rows[:, 0])])
    labels = np.concatenate([first[1], second[1]])[order]
    np.testing.assert_array_equal(labels, codes[np.argsort(rows[:, 0])])
    assert not np.array_equal(collect(source.split(0.3, seed=6)[1])[0], second[0])


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_one_side_of_a_split_in_memory_and_streamed(kind, tmp_path, problem):
    """Chunks without a row of this side come between others that are still being read."""
    X, y, w = problem
    path, target = write(kind, tmp_path, X, y)
    for side in open_source(path, target, chunk_rows=2).split(0.4):
        previous = before = None
        for rows, _ in side():
            assert len(rows) > 0
            if previous is not None:
                np.testing.assert_array_equal(previous, before)
            previous, before = rows, rows.copy()
    side = open_source(path, target, chunk_rows=300).split(0.4)[0]
    rows, codes = collect(side)
    assert objective(side)(w)[0] == SoftmaxObjective(rows, codes, l2=0.1)(w)[0]


def test_a_side_is_split_again(tmp_path, problem):
    X, y, _ = problem
    source = open_source(*write("npy", tmp_path, X, y), chunk_rows=700)
    train, test = source.split(0.25, seed=3)
    first, second = train.split(0.25, seed=3)
    third, fourth = second.split(0.5, seed=3)
    rows = [collect(side)[0] for side in (test, first, third, fourth)]
    assert [len(r) for r in rows] == [side.n_rows for side in (test, first, third, fourth)]
    assert 0.2 < (len(rows[2]) + len(rows[3])) / train.n_rows < 0.3
    both = np.concatenate(rows)
    np.testing.assert_array_equal(both[np.argsort(both[:, 0])], X[np.argsort(X[:, 0])])
    counts = [side.n_rows for side in train.split(0.5, seed=3)]
    assert 0.9 < counts[0] / counts[1] < 1.1


def test_split_refused(tmp_path, problem):
    X, y, _ = problem
    source = open_source(*write("npz", tmp_path, X[:2], np.array([0, 1])))
    with pytest.raises(ValueError, match="2 rows are too few to split"):
        source.split(1e-9)
    with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1, got 1"):
        source.split(1)


@pytest.mark.parametrize("kind", KINDS)
def test_features_alone_types_and_digests(kind, tmp_path, problem):
    X, y, _ = problem
    path, target = write(kind, tmp_path, X, y)
    names = NAMES if target else None
    source = open_source(path, features=names, chunk_rows=700, labelled=False)
    source.dtype = np.dtype(np.float64)
    chunks = [chunk.copy() for chunk in source.features()]
    assert {chunk.dtype for chunk in chunks} == {np.dtype(np.float64)}
    rows = np.concatenate([chunk.toarray() if kind == "svmlight" else chunk for chunk in chunks])
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


def test_float32_that_overflows_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.array([[1.0], [1e300]]), y=np.array([0, 1]))
    source = open_source(tmp_path / "a.npz")
    source.dtype = np.dtype(np.float32)
    with pytest.raises(ValueError, match="a.npz: rows 0 to 1: column 0: NaN or infinite"):
        collect(source)


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
