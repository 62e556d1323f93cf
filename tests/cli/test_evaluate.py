"""The command evaluate: labels and columns are read as the model has them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file

from fastsoftmax.cli._model_files import load_model


def measured(output, name):
    return float(output.split(name)[1].split("│")[1])


def test_accuracy(iris, command):
    code, output, errors = command("evaluate", "m.npz", "iris.csv", "--target", "species")
    assert code == 0, errors
    assert measured(output, "accuracy") > 0.95


def separable(labels):
    """Rows that tell their labels, in no order."""
    codes = np.random.default_rng(0).integers(0, len(labels), 600)
    X = np.random.default_rng(1).standard_normal((600, 3)) + 8 * np.eye(3)[codes]
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=pd.Series(labels).take(codes).values)


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


TYPES = [
    (["1", "2", "other"], ["1", "2"]),
    (["1", "2", "other"], [1, 2]),
    (["1", "2", "other"], [1.0, 2.0]),
    ([1, 2, 3], ["1", "2"]),
    ([1, 2, 3], [1.0, 2.0]),
    ([0, 1], [False, True]),
    ([False, True], [0, 1]),
    ([False, True], ["False", "True"]),
    (["false", "true"], [False, True]),
    ([0.5, 1.0, 2.0], ["0.5", "1"]),
    ([0.5, 1.0, 2.0], [0.5, 1.0]),
    ([1.0, 2.0, 3.0], [1, 2]),
    (np.array([0.1, 0.2], np.float32), [0.1, 0.2]),
    (["01", "1", "x"], ["01", "1"]),
    (np.array([-100, 50, 100], np.int8), [-100, 50, 100]),
    (np.array([5, 2**64 - 1], np.uint64), ["5", str(2**64 - 1)]),
]


@pytest.mark.parametrize(
    "suffixes", [(a, b) for a in ("csv", "parquet") for b in ("csv", "parquet")]
)
@pytest.mark.parametrize(("labels", "others"), TYPES, ids=str)
def test_labels_of_another_type(labels, others, suffixes, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    first, second = (f"{name}.{suffix}" for name, suffix in zip("ab", suffixes, strict=True))
    frame = separable(labels)
    write(frame, tmp_path / first)
    code, output, errors = command("train", first, "--target", "y", "--output", "m.npz", "--stream")
    assert code == 0, errors
    some = frame[frame["y"].isin(labels[: len(others)])]
    names = dict(zip(labels[: len(others)], others, strict=True))
    write(
        some.assign(y=pd.Series([names[y] for y in some["y"]], index=some.index)), tmp_path / second
    )
    code, output, errors = command("evaluate", "m.npz", second)
    assert (code, errors) == (0, "")
    assert measured(output, "accuracy") > 0.99
    assert measured(output, "log-loss") < 0.1


def test_labels_that_are_no_classes(iris, command):
    np.savez(iris / "strange.npz", X=np.ones((2, 4)), y=np.array([0, 7]))
    code, _, errors = command("evaluate", "m.npz", "strange.npz")
    assert code == 2
    assert (
        "expected labels that are text (setosa, versicolor, virginica), got integers (0, 7)"
        in errors
    )
    frame = pd.read_csv(iris / "iris.csv")
    frame.loc[:9, "species"] = "rose"
    frame.to_csv(iris / "roses.csv", index=False)
    code, output, errors = command("evaluate", "m.npz", "roses.csv")
    assert code == 0
    assert "inf" in output
    assert "text (setosa, versicolor, virginica): text (rose)" in " ".join(errors.split())


def test_columns_of_svmlight_files_are_counted_as_in_training(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    codes = np.random.default_rng(0).integers(0, 3, 900)
    X = np.eye(6)[codes] + np.eye(6)[codes + 2] + 0.5
    for name, zero_based in (("zero", True), ("one", False)):
        dump_svmlight_file(X, codes, f"{name}.svm", zero_based=zero_based)
        code, _, errors = command("train", f"{name}.svm", "--output", f"{name}.npz")
        assert code == 0, errors
        assert load_model(tmp_path / f"{name}.npz").zero_based == zero_based
        # Neither the first nor the last column occurs here.
        inner = X.copy()
        inner[:, [0, 5]] = 0
        dump_svmlight_file(inner, codes, f"{name}.t", zero_based=zero_based)
        code, output, errors = command("evaluate", f"{name}.npz", f"{name}.t")
        assert (code, errors) == (0, "")
        model = load_model(tmp_path / f"{name}.npz").model
        want = model.score(inner.astype(np.float32), codes)
        assert measured(output, "accuracy") == pytest.approx(want, abs=1e-4)
    code, _, errors = command("evaluate", "one.npz", "zero.svm")
    assert (code, "expected columns counted from 1, got a column 0" in errors) == (2, True)
    assert command("evaluate", "one.npz", "zero.svm", "--zero-based").code == 0
    code, _, errors = command("evaluate", "zero.npz", "one.svm")
    assert (code, "expected 6 features, got 7" in errors) == (2, True)
    # A model of version 1 does not say, and only the file of inner columns is ambiguous.
    with np.load("one.npz") as archive:
        old = {name: archive[name] for name in archive if name not in ("zero_based", "columns")}
    np.savez("old.npz", **(old | {"version": np.array(1)}))
    assert command("evaluate", "old.npz", "one.svm").code == 0
    code, _, errors = command("evaluate", "old.npz", "one.t")
    assert (code, "may be counted from 0 or from 1" in errors) == (2, True)
    assert command("evaluate", "old.npz", "one.t", "--one-based").code == 0


def test_formats_that_names_do_not_tell(iris, command):
    (iris / "iris.csv").rename(iris / "iris.data")
    code, _, errors = command("evaluate", "m.npz", "iris.data")
    assert (code, "give the format" in errors) == (2, True)
    assert command("evaluate", "m.npz", "iris.data", "--format", "csv").code == 0
