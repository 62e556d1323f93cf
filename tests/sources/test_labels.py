"""Labels keep their type, stay apart, and are matched with those of other types."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import collect

from fastsoftmax.sources import open_source


def csv(path, labels):
    path.write_text("x,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    return open_source(path, "y")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1_0", "10"], ["10", "1_0"]),
        (["٣", "3"], ["3", "٣"]),
        (["007", "7"], ["007", "7"]),
        (["1", "2", "0x3"], ["0x3", "1", "2"]),
        (["9" * 20, "1"], ["1", "9" * 20]),
        (["9" * 20, "9" * 19 + "8"], ["9" * 19 + "8", "9" * 20]),
        (["1" * 5000, "1"], ["1", "1" * 5000]),
        (["1e99999999", "2"], ["1e99999999", "2"]),
        (["0.1", "0.1000000000000000000001"], ["0.1", "0.1000000000000000000001"]),
        (["12345678901234567891", "0.5"], ["0.5", "12345678901234567891"]),
        (["infinity", "1"], ["1", "infinity"]),
        (["True", "False"], ["False", "True"]),
        (["12345678901234567890", "1"], [1, 12345678901234567890]),
        (["-9223372036854775808", "1"], [-(2**63), 1]),
        (["+1", "-1"], [-1, 1]),
        (["1.0", "2"], [1, 2]),
        ([".5", "2e0"], [0.5, 2.0]),
    ],
)
def test_csv_labels(labels, classes, tmp_path):
    source = csv(tmp_path / "a.csv", labels)
    assert source.classes.tolist() == classes
    codes = collect(source)[1]
    assert len(set(codes.tolist())) == len(labels)
    if isinstance(classes[0], str):
        assert source.classes[codes].tolist() == labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array([-100, 50, 100], np.int8),
        np.array([-30000, 30000, 7], np.int16),
        np.array([-(2**31), 2**31 - 1], np.int32),
        np.array([-(2**63), 2**63 - 1, 0]),
        np.array([0, 255], np.uint8),
        np.array([2**64 - 1, 2**64 - 3, 2**64 - 2**10], np.uint64),
        np.array([0, 2**64 - 1], np.uint64),
        np.array([2**63, 2**63 + 5], np.uint64),
        np.array([1e20, 2.0]),
        np.array([0.5, -1.5], np.float16),
        np.array([False, True]),
        np.array([7], ">i2"),
        np.array(["b", "a"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["npz", "npy", "parquet"])
def test_small_and_large_types(labels, kind, tmp_path):
    y = np.resize(labels, 50)
    X = np.arange(100.0).reshape(50, 2)
    if kind == "parquet":
        if labels.dtype == np.float16 or not y.dtype.isnative:
            return
        pq.write_table(pa.table({"a": X[:, 0], "y": y}), tmp_path / "a.parquet")
        source = open_source(tmp_path / "a.parquet", "y", chunk_rows=7)
    elif kind == "npz":
        np.savez(tmp_path / "a.npz", X=X, y=y)
        source = open_source(tmp_path / "a.npz", chunk_rows=7)
    else:
        np.save(tmp_path / "X.npy", X)
        np.save(tmp_path / "y.npy", y)
        source = open_source(tmp_path, chunk_rows=7)
    assert source.classes.tolist() == sorted(labels.tolist())
    assert source.load()[1].tolist() == y.tolist()


def test_labels_of_several_files(tmp_path):
    def labels(*arrays):
        for i, y in enumerate(arrays):
            np.save(tmp_path / f"X_{i}.npy", np.ones((len(y), 2)))
            np.save(tmp_path / f"y_{i}.npy", y)
        source = open_source(tmp_path)
        return source.classes.tolist(), source.load()[1].tolist()

    large = np.array([2**64 - 1, 3], np.uint64)
    assert labels([1, 2], large) == ([1, 2, 3, 2**64 - 1], [1, 2, 2**64 - 1, 3])
    assert labels([1, 2], [0.5, 1]) == ([0.5, 1, 2], [1, 2, 0.5, 1])
    for first, second in (([1, 2], ["1", "2"]), ([0, 1], [True, False]), ([-1, 2], large),
                          ([2**53 + 1, 2**53], [0.5, 1])):  # fmt: skip
        with pytest.raises(ValueError, match=r"y_1.npy: expected labels of the type .*\(.*\(.*"):
            labels(first, second)


def test_classes_of_a_model(tmp_path):
    csv(tmp_path / "a.csv", ["1", "2", "1"])
    for classes, codes in (
        (["2", "other", "1"], [2, 0, 2]),
        ([1, 2, 3], [0, 1, 0]),
        ([1.0, 1.5, 2.0], [0, 2, 0]),
    ):
        source = open_source(tmp_path / "a.csv", "y", classes=classes)
        assert source.classes.tolist() == classes
        assert collect(source)[1].tolist() == codes
        assert source.load()[1].tolist() == [classes[code] for code in codes]
    with pytest.raises(
        ValueError, match=r"a.csv: expected labels that are text \(a, b\), got text"
    ):
        open_source(tmp_path / "a.csv", "y", classes=["a", "b"])
    with pytest.raises(ValueError, match=r"classes, integers \(1, 5\); got others, text \(2\)"):
        open_source(tmp_path / "a.csv", "y", classes=[1, 5])
    np.savez(tmp_path / "a.npz", X=np.ones((2, 1)), y=[1, 2])
    with pytest.raises(ValueError, match='do not tell the classes "1" and "1.0" apart'):
        open_source(tmp_path / "a.npz", classes=["1", "1.0", "2"])
    source = open_source(tmp_path / "a.npz")
    assert source.use_classes([2, 3]).tolist() == [1]
    assert collect(source)[1].tolist() == [-1, 0]
    with pytest.raises(ValueError, match="not among the classes"):
        source.load()
