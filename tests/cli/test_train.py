"""The command train: what it says, what it writes, and which arguments it refuses."""

import pytest
from sklearn.datasets import load_iris

from fastsoftmax.cli._model_files import load_model


def test_more_features_than_memory_holds_are_refused(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"{i % 2} 1:{i} 2000000000:1\n" for i in range(9))
    (tmp_path / "a.svm").write_text(lines)
    monkeypatch.setattr("fastsoftmax.cli._train.physical_memory", lambda: 64 * 2.0**30)
    result = command("train", "a.svm", "--output", "m.npz")
    assert result.code == 2
    assert "a.svm: 2,000,000,000 features and 2 classes are too many" in result.err


def test_digits(command):
    code, output, errors = command("train", "digits")
    assert code == 0, errors
    accuracy = float(output.split("held-out rows")[1].split("│")[1])
    assert accuracy >= 0.95
    assert "NumPy" not in output
    assert "scikit-learn" not in output


def test_the_model_knows_its_columns(iris, command):
    code, output, errors = command(
        "train", "iris.csv", "--target", "species", "--output", "new.npz"
    )
    assert code == 0, errors
    assert "model written to new.npz" in output
    saved = load_model(iris / "new.npz")
    assert saved.feature_names == list(load_iris().feature_names)
    assert saved.target == "species"


def test_float64_without_intercept(iris, command):
    options = ["--dtype", "float64", "--no-intercept", "--output", "new.npz"]
    code, _, errors = command("train", "iris.npz", *options)
    assert code == 0, errors
    model = load_model(iris / "new.npz").model
    assert model.coef_.dtype == "float64"
    assert not model.intercept_.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected --checkpoint FILE as well"),
        (["--checkpoint", "no/c.npz"], "no/c.npz: no such directory: no"),
        (["--checkpoint", "a.npz", "--output", "a.npz"], "expected different files"),
        (["--checkpoint", "X.npy"], "X.npy: exists"),
        (["--checkpoint", "X.npy", "--resume"], "X.npy: expected another file than those read"),
        (["--checkpoint", "notes.txt", "--resume"], "notes.txt: not a "),
        (["--test-size", "1.5"], "--test-size: expected a number between 0 and 1, got 1.5"),
    ],
)
def test_wrong_arguments(arguments, message, digits, command):
    (digits / "notes.txt").write_text("no checkpoint")
    code, _, errors = command("train", "X.npy", *arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_columns_that_are_chosen(iris, command):
    names = load_iris().feature_names[2:0:-1]
    code, _, errors = command(
        "train", "iris.csv", "--target", "species", "--features", ",".join(names), "--output",
        "new.npz"
    )  # fmt: skip
    assert (code, errors) == (0, "")
    saved = load_model(iris / "new.npz")
    assert (saved.feature_names, saved.columns.names) == (names, names)
    assert command("evaluate", "new.npz", "iris.csv").code == 0


def test_decimals_that_are_no_classes(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{i},{i / 7}\n" for i in range(50)))
    code, _, errors = command("train", "a.csv", "--target", "y")
    assert code == 2
    assert errors == "error: a.csv: y: expected classes, got 50 different decimals in 50 rows\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [(MemoryError(), "not enough memory"), (MemoryError("of 9 TiB"), "not enough memory: of 9 TiB"),
     (OverflowError("too large"), "too large")],
)  # fmt: skip
def test_too_large_is_one_line(error, message, iris, command, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("fastsoftmax.cli._train.open_source", fail)
    assert command("train", "iris.csv", "--target", "species")[::2] == (2, f"error: {message}\n")
