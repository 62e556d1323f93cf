"""CSV and svmlight files as sources: what is read, and which files are refused."""

import bz2
import gzip
import lzma
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from source_files import NAMES, check, collect, objective, open_and_stream

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import TableColumns, open_source
from fastsoftmax.sources._columns import Column


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV file"),
        ("a,y\n", "no rows"),
        ("a,y\n1,0\n2,1\n3,\n", "row 3: missing label"),
        ("a,y\n1,0\n2,1\n,1\n", 'column "a": missing or infinite value in row 3'),
        ("a,y\n1,0\n2,1\ninf,1\n", 'column "a": missing or infinite value in row 3'),
        ("a,y\n1,0\n2,1\n3,1,7,8\n", "not a CSV file: .*line 4"),
        ("a,b\n1,0\n", 'no column "y"'),
        ('a,y\n1,"0\n', "not a CSV file: .*EOF inside string"),
        (b"a,y\n1,\xe9\n2,0\n", "not a CSV file: 'utf-8' codec"),
        (b"\xe9,y\n1,1\n2,0\n", "not a CSV file: 'utf-8' codec"),
    ],
)
def test_csv_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"a.csv: {message}"):
        open_and_stream(tmp_path / "a.csv", "y", chunk_rows=2)


def test_unlabelled_csv_is_checked(tmp_path):
    for text, message in (
        ("a,b\n1,2\n3,4,5\n", "not a CSV file"),
        ("a,b\n1,2\n3,x\n", 'column "b": expected numbers, got "x" in row 2'),
        ("a,b\n1,2\n3\n", 'column "b": missing or infinite value in row 2'),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=f"a.csv: {message}"):
            columns = TableColumns([Column("a", "number"), Column("b", "number")])
            list(open_source(tmp_path / "a.csv", labelled=False, columns=columns).features())


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
        open_and_stream(tmp_path / "a.svm", chunk_rows=2)


@pytest.mark.parametrize(
    "text",
    [
        "a,y\nr1,1,0\nr2,2,1\n",  # R's write.table
        "a,y\n1,1,0\n2,2,1\n",
        "\n\na,y\n1,1,0\n2,1\n",
        "a,y\n1,0,\n2,1,\n",
        "a,y\n1,1,1,0\n",
    ],
)
def test_a_header_with_names_missing(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    for options in ({"target": "y"}, {"labelled": False}, {"target": "y", "features": ["a"]}):
        with pytest.raises(ValueError, match=r"a.csv: row 1 has more values than the header"):
            open_source(tmp_path / "a.csv", **options)


def test_columns_without_a_name_and_repeated_ones(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5], "y": [0, 1]}, index=[7, 8])
    frame.to_csv(tmp_path / "a.csv")
    source = open_source(tmp_path / "a.csv", "y")
    assert source.feature_names == ["a"]
    assert collect(source)[0].ravel().tolist() == [1.5, 2.5]
    source = open_source(tmp_path / "a.csv", "y", features=["Unnamed: 0"])
    assert collect(source)[0].ravel().tolist() == [7, 8]
    (tmp_path / "a.csv").write_text("a,y,y\n1,2,3\n")
    with pytest.raises(ValueError, match="names occur more than once: y"):
        open_source(tmp_path / "a.csv", "y")


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zip", ".GZ", ".zst"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.CSV"])
def test_csv_as_pandas_writes_it(name, suffix, tmp_path):
    if suffix == ".zst":
        pytest.importorskip("zstandard")
    frame = pd.DataFrame(np.arange(60.0).reshape(20, 3), columns=list("abc")).assign(y=[0, 1] * 10)
    frame.to_csv(tmp_path / (name + suffix), index=False, sep="\t" if "tsv" in name else ",")
    source = open_source(tmp_path / (name + suffix), "y", chunk_rows=7)
    np.testing.assert_array_equal(collect(source)[0], frame[list("abc")])
    named = "tsv" if "tsv" in name else "csv"
    (tmp_path / (name + suffix)).rename(tmp_path / ("data" + suffix))
    source = open_source(tmp_path / ("data" + suffix), "y", format=named)
    np.testing.assert_array_equal(collect(source)[0], frame[list("abc")])


OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("name", ["a9a", "mnist.scale", "a.t", "a.svm", "a.LIBSVM"])
def test_svmlight_by_any_name(name, suffix, tmp_path):
    X = np.random.default_rng(0).random((40, 5)).round(1)
    X[:, 1] = 0
    with OPENERS[suffix](tmp_path / (name + suffix), "wb") as file:
        dump_svmlight_file(X, np.arange(40) % 2, file, comment="from a test", zero_based=True)
    source = open_source(tmp_path / (name + suffix), chunk_rows=7)
    np.testing.assert_allclose(collect(source)[0], X, rtol=1e-12)
    assert source.zero_based


@pytest.mark.parametrize("name", ["a.csv", "a9a"])
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_damaged_compressed_text(name, suffix, tmp_path):
    path = tmp_path / (name + suffix)
    with OPENERS[suffix](path, "wb") as file:
        file.write(b"a,y\n" + b"".join(b"%d,%d\n" % (i * i, i % 2) for i in range(9000)))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.csv|a9a"):
            open_source(path, *(["y"] if name == "a.csv" else []))


def test_zst_without_zstandard_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.csv.zst").write_bytes(b"")
    with pytest.raises(ImportError, match="a.csv.zst: needs pip install zstandard"):
        open_source(tmp_path / "a.csv.zst", "y")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("1 1000000000000:1\n", {}, "line 1: not svmlight: value too large"),
        ("1 99999999999999999999:1\n", {}, "line 1: not svmlight"),
        ("1 1:1\n12345678901234567890 1:1\n", {}, "expected labels of at most"),
        ("1_0 1:1\n10 1:1\n", {}, "line 1: not svmlight: expected numbers, got an underscore"),
        ("1 1_0:1\n", {}, "underscore"),
        ("1 0:1\n", {"zero_based": False}, "expected columns counted from 1, got a column 0"),
        ("1 5:1\n", {"n_features": 4}, "expected 4 features, got 5"),
        ("1 4:1\n", {"n_features": 4, "zero_based": True}, "expected 4 features, got 5"),
        ("1 3:1\n", {"n_features": 4}, "columns 3 to 3 of 4 may be counted from 0 or from 1"),
    ],
)
def test_svmlight_that_is_not_as_expected(text, options, message, tmp_path):
    (tmp_path / "a.svm").write_text(text)
    with pytest.raises(ValueError, match=f"a.svm: .*{message}|a.svm: {message}"):
        open_source(tmp_path / "a.svm", **options)


@pytest.mark.parametrize("zero_based", [True, False])
def test_svmlight_with_origin_and_width(zero_based, tmp_path):
    (tmp_path / "a.svm").write_text("1 2:1 # a_comment\n0 3:1\n")
    for labelled in (True, False):
        source = open_source(
            tmp_path / "a.svm", zero_based=zero_based, n_features=6, labelled=labelled
        )
        (X,) = source.features()
        want = np.eye(6)[[2, 3]] if zero_based else np.eye(6)[[1, 2]]
        np.testing.assert_array_equal(X.toarray(), want)
    assert open_source(tmp_path / "a.svm").zero_based is False
    (tmp_path / "a.svm").write_text("1 0:1\n0 6:1\n")
    assert open_source(tmp_path / "a.svm", n_features=7).zero_based is True
    (tmp_path / "a.svm").write_text("1 1:1\n0 6:1\n")
    assert open_source(tmp_path / "a.svm", n_features=6).zero_based is False
