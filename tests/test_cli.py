"""The command line as its user meets it: a process with arguments, output and an exit status."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from fastsoftmax import io


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "fastsoftmax.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "120", "HOME": str(cwd or "/tmp")},
    )


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """A directory with iris.csv, iris.npz and a model trained on the former."""
    directory = tmp_path_factory.mktemp("iris")
    bunch = load_iris(as_frame=True)
    frame = bunch.data.copy()
    frame["species"] = bunch.target_names[bunch.target]
    frame.to_csv(directory / "iris.csv", index=False)
    np.savez(directory / "iris.npz", X=bunch.data.to_numpy(), y=bunch.target.to_numpy())
    result = run("train", "iris.csv", "--target", "species", "--output", "m.npz", cwd=directory)
    assert result.returncode == 0, result.stderr
    return directory


def test_train_digits():
    result = run("train", "digits")
    assert result.returncode == 0, result.stderr
    accuracy = float(result.stdout.split("held-out rows")[1].split("│")[1])
    assert accuracy >= 0.95
    assert "NumPy's reference" in result.stdout


def test_evaluate_and_predict(iris):
    result = run("evaluate", "m.npz", "iris.csv", "--target", "species", cwd=iris)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split("accuracy")[1].split("│")[1]) > 0.95
    result = run("predict", "m.npz", "iris.csv", cwd=iris)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.split()
    assert lines[0] == "species"
    truth = pd.read_csv(iris / "iris.csv")["species"]
    assert np.mean(truth == lines[1:]) > 0.95
    result = run("predict", "m.npz", "iris.csv", "--proba", "--output", "p.csv", cwd=iris)
    assert result.returncode == 0, result.stderr
    proba = pd.read_csv(iris / "p.csv")
    assert list(proba.columns) == ["setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)


def test_npz_and_columns_in_another_order(iris):
    result = run("train", "iris.npz", "--dtype", "float64", "--no-intercept", cwd=iris)
    assert result.returncode == 0, result.stderr
    frame = pd.read_csv(iris / "iris.csv")
    frame[frame.columns[::-1]].to_csv(iris / "reversed.csv", index=False)
    straight = run("predict", "m.npz", "iris.csv", cwd=iris).stdout
    assert run("predict", "m.npz", "reversed.csv", cwd=iris).stdout == straight


def test_info_and_warmup():
    result = run("info")
    assert result.returncode == 0, result.stderr
    for word in ("CPU", "lanes", "threads", "threading layer", "cache directory"):
        assert word in result.stdout
    result = run("warmup")
    assert result.returncode == 0, result.stderr
    assert "ready" in result.stdout


BAD_FILES = {
    "empty.csv": "",
    "header.csv": "a,b,species\n",
    "text.csv": "a,b,species\n1,x,s\n2,y,t\n",
    "hole.csv": "a,b,species\n1,2,s\n,3,t\n1,1,s\n",
    "label.csv": "a,b,species\n1,2,\n1,3,t\n1,1,s\n",
    "one.csv": "a,b,species\n1,2,s\n1,3,s\n1,1,s\n",
    "fake.npz": "no archive at all",
    "data.xyz": "1",
}
ERRORS = [
    (("train", "missing.csv"), "missing.csv: no such file"),
    (("train", "data.xyz"), r"data.xyz: expected a .csv or .npz file"),
    (("train", "iris.csv"), "no labels"),
    (("train", "iris.csv", "--target", "kind"), 'no column "kind"'),
    (("train", "empty.csv", "--target", "species"), "empty.csv: not a CSV file"),
    (("train", "header.csv", "--target", "species"), "header.csv: no rows"),
    (("train", "text.csv", "--target", "species"), 'column "b": expected numbers'),
    (
        ("train", "hole.csv", "--target", "species"),
        'column "a": missing or infinite value in row 2',
    ),
    (("train", "label.csv", "--target", "species"), 'column "species": missing values'),
    (("train", "one.csv", "--target", "species"), "at least two classes"),
    (("train", "fake.npz"), "fake.npz: not a readable .npz file"),
    (("train", "digits", "--l2", "-1"), "l2: expected"),
    (("train", "digits", "--dtype", "float16"), "--dtype"),
    (("train", "digits", "--output", "nowhere/m.npz"), "no such directory"),
    (("train",), "data"),
    (("predict", "iris.npz", "iris.csv"), "not a fastsoftmax model file"),
    (("predict", "m.npz", "text.csv"), "missing feature columns"),
    (("evaluate", "m.npz", "missing.npz"), "missing.npz: no such file"),
    (("dance",), "dance"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=lambda v: " ".join(v)[:40])
def test_errors_are_one_line_and_status_2(arguments, message, iris):
    for name, content in BAD_FILES.items():
        (iris / name).write_text(content)
    result = run(*arguments, cwd=iris)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_missing_extra_is_named():
    code = "import sys; sys.modules['typer'] = None; from fastsoftmax import cli; cli.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert 'pip install "fastsoftmax[train]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failed_write_leaves_the_old_model(iris, monkeypatch):
    saved = io.load_model(iris / "m.npz")
    before = (iris / "m.npz").read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        io.save_model(iris / "m.npz", saved.model)
    assert (iris / "m.npz").read_bytes() == before
    assert not list(iris.glob(".m.npz*"))


def test_models_survive_the_round_trip(iris, tmp_path):
    saved = io.load_model(iris / "m.npz")
    assert saved.feature_names == list(load_iris().feature_names)
    assert saved.target == "species"
    io.save_model(tmp_path / "n.npz", saved.model, feature_names=saved.feature_names)
    again = io.load_model(tmp_path / "n.npz")
    np.testing.assert_array_equal(again.model.coef_, saved.model.coef_)
    assert again.target is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": np.array(99)}, "newer than this version"),
        ({"coef": np.zeros((2, 4))}, "damaged model file: shapes"),
        ({"coef": None}, "damaged model file: no coef"),
        ({"format": np.array("other")}, "not a fastsoftmax model file"),
    ],
)
def test_damaged_models(change, message, iris, tmp_path):
    with np.load(iris / "m.npz") as archive:
        arrays = {**archive, **change}
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        io.load_model(tmp_path / "bad.npz")
