"""CSV and svmlight files as sources: what is read, and which files are refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from source_files import NAMES, check, collect, objective, open_and_stream

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source


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
        open_and_stream(tmp_path / "a.csv", "y", chunk_rows=2)


def test_unlabelled_csv_is_checked(tmp_path):
    for text, message in (
        ("a,b\n1,2\n3,4,5\n", "not a CSV file"),
        ("a,b\n1,2\n3,x\n", 'column "b": expected numbers'),
        ("a,b\n1,2\n3\n", 'column "b": missing or infinite value in row 2'),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=f"a.csv: {message}"):
            list(open_source(tmp_path / "a.csv", labelled=False).features())


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
