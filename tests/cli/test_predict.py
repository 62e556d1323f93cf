"""The command predict."""

import bz2
import gzip
import io
import lzma

import numpy as np
import pandas as pd
import pytest


def test_labels(iris, command):
    code, output, errors = command("predict", "m.npz", "iris.csv")
    assert code == 0, errors
    lines = output.split()
    assert lines[0] == "species"
    truth = pd.read_csv(iris / "iris.csv")["species"]
    assert np.mean(truth == lines[1:]) > 0.95


def test_columns_in_another_order(iris, command):
    frame = pd.read_csv(iris / "iris.csv")
    frame[frame.columns[::-1]].to_csv(iris / "reversed.csv", index=False)
    assert command("predict", "m.npz", "reversed.csv") == command("predict", "m.npz", "iris.csv")


def test_another_number_of_features(iris, command):
    np.savez(iris / "wide.npz", X=np.ones((5, 7)), y=np.arange(5))
    code, _, errors = command("predict", "m.npz", "wide.npz")
    assert (code, errors) == (2, "error: wide.npz: expected 4 features, got 7\n")


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".GZ"])
@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.CSV", "p"])
def test_output_is_what_its_name_says(name, suffix, iris, command):
    want = command("predict", "m.npz", "iris.csv").out
    code, _, errors = command("predict", "m.npz", "iris.csv", "--output", name + suffix)
    assert (code, errors) == (0, "")
    openers = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with openers[suffix.lower()](iris / (name + suffix), "rb") as file:
        assert file.read().decode() == want
    if name != "p":
        frame = pd.read_csv(iris / (name + suffix), sep="\t" if "tsv" in name else ",")
        assert len(frame) == 150


def test_output_in_parquet(iris, command):
    want = pd.read_csv(io.StringIO(command("predict", "m.npz", "iris.csv").out))
    for name in ("p.parquet", "p.PQ"):
        assert command("predict", "m.npz", "iris.csv", "--output", name).code == 0
        assert pd.read_parquet(iris / name)["species"].tolist() == want["species"].tolist()


@pytest.mark.parametrize(
    "name", ["p.npy", "p.npz", "p.svm", "p.csv.zip", "p.csv.zst", "p.parquet.gz"]
)
def test_output_in_formats_that_are_not_written(name, iris, command):
    code, _, errors = command("predict", "m.npz", "iris.csv", "--output", name)
    assert (code, "expected .parquet, .csv, .tsv" in errors) == (2, True)
    assert not (iris / name).exists()


@pytest.mark.parametrize("labels", [[False, True, True], [0.5, 1.5, 2.0], [1, 2, 3]], ids=str)
@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_predictions_have_the_type_of_the_labels(labels, stream, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    X, y = np.repeat(np.eye(3), 30, axis=0), np.repeat(labels, 30)
    frame = pd.DataFrame(X, columns=list("abc")).assign(y=y)
    frame.to_parquet("a.parquet")
    code, _, errors = command("train", "a.parquet", "--target", "y", "--output", "m.npz", *stream)
    assert (code, errors) == (0, "")
    assert command("predict", "m.npz", "a.parquet", "--output", "p.parquet").code == 0
    predicted = pd.read_parquet("p.parquet")["y"]
    assert predicted.dtype == y.dtype
    np.testing.assert_array_equal(predicted, y)


def test_a_column_of_lists(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    y = np.resize([0, 1, 2], 300)
    X = np.eye(3)[y] + np.random.default_rng(0).random((300, 3)) / 4
    frame = pd.DataFrame({"emb": list(X), "year": y * 0.0, "y": y}, index=y)
    frame.to_parquet("a.parquet")
    frame[["y", "year", "emb"]].to_parquet("b.parquet")
    code, _, errors = command("train", "a.parquet", "--target", "y", "--output", "m.npz")
    assert (code, errors) == (0, "")
    for name in ("a.parquet", "b.parquet"):
        assert command("predict", "m.npz", name, "--output", "p.csv").code == 0
        np.testing.assert_array_equal(pd.read_csv("p.csv")["y"], y)
    frame.assign(emb=list(X[:, :2])).to_parquet("c.parquet")
    code, _, errors = command("predict", "m.npz", "c.parquet")
    assert (code, errors) == (
        2,
        'error: c.parquet: column "emb": expected lists of 3 values as in training, got '
        "list<element: double> (2 values)\n",
    )


def test_an_index_that_pandas_wrote_is_no_feature(iris, command):
    frame = pd.read_csv(iris / "iris.csv")
    frame.set_index(frame.index[::-1] * 2).to_parquet(iris / "i.parquet")
    code, _, errors = command("train", "i.parquet", "--target", "species", "--output", "i.npz")
    assert (code, errors) == (0, "")
    assert command("predict", "i.npz", "i.parquet") == command("predict", "i.npz", "iris.csv")
