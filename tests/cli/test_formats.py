"""Files of every format go through train, evaluate and predict; bad ones leave everything as is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file, load_iris
from sklearn.metrics import log_loss

from fastsoftmax.cli._model_files import load_model


def write(kind, iris):
    """Write iris in a format, in several chunks where it has any; return its name and target."""
    frame = pd.read_csv(iris / "iris.csv")
    X, y = frame.drop(columns="species").to_numpy(), load_iris().target
    if kind == "parquet":
        frame.to_parquet(iris / "iris.parquet", row_group_size=40)
        return "iris.parquet", "species"
    if kind == "npy":
        np.save(iris / "X.npy", X)
        np.save(iris / "y.npy", y)
        return "X.npy", None
    if kind == "svmlight":
        dump_svmlight_file(X, y, str(iris / "iris.svm"), zero_based=True)
        return "iris.svm", None
    return ("iris.csv", "species") if kind == "csv" else ("iris.npz", None)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "npz", "svmlight"])
def test_streams_of_all_formats(kind, iris, command, monkeypatch):
    monkeypatch.setattr("fastsoftmax.sources._chunk_source._CHUNK_BYTES", 0)
    monkeypatch.setattr("fastsoftmax.sources._text._SVMLIGHT_BYTES", 1000)
    monkeypatch.setattr("fastsoftmax.sources._chunk_source._MIN_ROWS", 32)
    data, target = write(kind, iris)
    options = ["--target", target] if target else []
    code, output, errors = command("train", data, *options, "--stream", "--output", "new.npz")
    assert code == 0, errors
    assert float(output.split("held-out rows")[1].split("│")[1]) > 0.9
    code, output, errors = command("evaluate", "new.npz", data, *options)
    assert code == 0, errors
    saved = load_model(iris / "new.npz")
    frame = pd.read_csv(iris / "iris.csv")
    X = frame.drop(columns="species").to_numpy().astype(np.float32)
    truth = frame["species"] if target else load_iris().target
    accuracy = saved.model.score(X, truth)
    loss = log_loss(truth, saved.model.predict_proba(X))
    assert f"{accuracy:.4f}" in output
    assert f"{loss:.4f}" in output
    for extension, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        path = iris / f"p.{extension}"
        assert command("predict", "new.npz", data, "--output", path).code == 0
        np.testing.assert_array_equal(read(path).iloc[:, 0], saved.model.predict(X))
        assert command("predict", "new.npz", data, "--proba", "--output", path).code == 0
        proba = read(path)
        np.testing.assert_allclose(proba, saved.model.predict_proba(X), rtol=1e-4)
        assert list(proba.columns) == [str(label) for label in saved.model.classes_]
    assert not list(iris.glob(".*"))


BAD_STREAMS = {
    "truncated.parquet": lambda whole: whole[:-200],
    "empty.parquet": lambda whole: b"",
    "corrupt.parquet": lambda whole: whole[: len(whole) // 3] + bytes(300) + whole[
        len(whole) // 3 + 300 :
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_nothing_is_overwritten_on_bad_data(name, iris, command):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((600, 4)), columns=load_iris().feature_names)
    frame["species"] = load_iris().target_names[rng.integers(0, 2, 600)]
    frame.to_parquet(iris / "whole.parquet", row_group_size=200, compression="snappy")
    (iris / name).write_bytes(BAD_STREAMS[name]((iris / "whole.parquet").read_bytes()))
    (iris / "kept").write_text("as it was")
    options = ["--target", "species", "--stream", "--checkpoint", "new.npz"]
    for arguments in (
        ("train", name, *options, "--output", "kept"),
        ("predict", "m.npz", name, "--output", "kept"),
        ("evaluate", "m.npz", name),
    ):
        code, _, errors = command(*arguments)
        assert code == 2
        assert errors.startswith(f"error: {name}: ")
        assert errors.count("\n") == 1
        assert ("row group" in errors) == name.startswith("corrupt")
        assert (iris / "kept").read_text() == "as it was"
        assert not (iris / "new.npz").exists()
    assert not list(iris.glob(".*"))
