"""The command line as its user meets it: a process with arguments, output and an exit status."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file, load_iris
from sklearn.metrics import log_loss

from fastsoftmax import cli
from fastsoftmax.cli import _model_files


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "fastsoftmax.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120"},
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


@pytest.fixture
def here(iris, monkeypatch, capsys):
    """The command line in this process: much faster."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastsoftmax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
            sys.exit(0)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    monkeypatch.chdir(iris)
    monkeypatch.setenv("COLUMNS", "120")
    return command


def test_train_digits(here):
    code, output, errors = here("train", "digits")
    assert code == 0, errors
    accuracy = float(output.split("held-out rows")[1].split("│")[1])
    assert accuracy >= 0.95
    assert "NumPy's reference" in output


def test_evaluate_and_predict(iris, here):
    code, output, errors = here("evaluate", "m.npz", "iris.csv", "--target", "species")
    assert code == 0, errors
    assert float(output.split("accuracy")[1].split("│")[1]) > 0.95
    code, output, errors = here("predict", "m.npz", "iris.csv")
    assert code == 0, errors
    lines = output.split()
    assert lines[0] == "species"
    truth = pd.read_csv(iris / "iris.csv")["species"]
    assert np.mean(truth == lines[1:]) > 0.95


def test_npz_and_columns_in_another_order(iris, here):
    code, _, errors = here("train", "iris.npz", "--dtype", "float64", "--no-intercept")
    assert code == 0, errors
    frame = pd.read_csv(iris / "iris.csv")
    frame[frame.columns[::-1]].to_csv(iris / "reversed.csv", index=False)
    assert here("predict", "m.npz", "reversed.csv") == here("predict", "m.npz", "iris.csv")


# ------------------------------------------------------------------------------ streams


@pytest.fixture(scope="module")
def formats(iris):
    """The same rows in every format, in several chunks each."""
    frame = pd.read_csv(iris / "iris.csv")
    X, y = frame.drop(columns="species").to_numpy(), load_iris().target
    frame.to_parquet(iris / "iris.parquet", row_group_size=40)
    np.save(iris / "X.npy", X)
    np.save(iris / "y.npy", y)
    np.savez(iris / "Xy.npz", X=X, y=y)
    dump_svmlight_file(X, y, str(iris / "iris.svm"), zero_based=True)
    return {
        "csv": ("iris.csv", "species"),
        "parquet": ("iris.parquet", "species"),
        "npy": ("X.npy", None),
        "npz": ("Xy.npz", None),
        "svmlight": ("iris.svm", None),
    }


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "npz", "svmlight"])
def test_streams_of_all_formats(kind, formats, iris, here, monkeypatch):
    monkeypatch.setattr("fastsoftmax.sources._chunk_source._CHUNK_BYTES", 0)
    monkeypatch.setattr("fastsoftmax.sources._text._SVMLIGHT_BYTES", 1000)
    monkeypatch.setattr("fastsoftmax.sources._chunk_source._MIN_ROWS", 32)
    data, target = formats[kind]
    options = ["--target", target] if target else []
    model = f"{kind}.npz"
    code, output, errors = here("train", data, *options, "--stream", "--output", model)
    assert code == 0, errors
    assert float(output.split("held-out rows")[1].split("│")[1]) > 0.9
    code, output, errors = here("evaluate", model, data, *options)
    assert code == 0, errors
    saved = _model_files.load_model(iris / model)
    X = pd.read_csv(iris / "iris.csv").drop(columns="species").to_numpy().astype(np.float32)
    truth = pd.read_csv(iris / "iris.csv")["species"] if target else load_iris().target
    accuracy = saved.model.score(X, truth)
    loss = log_loss(truth, saved.model.predict_proba(X))
    assert f"{accuracy:.4f}" in output
    assert f"{loss:.4f}" in output
    for extension, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        path = iris / f"p.{extension}"
        assert here("predict", model, data, "--output", path)[0] == 0
        np.testing.assert_array_equal(read(path).iloc[:, 0], saved.model.predict(X))
        assert here("predict", model, data, "--proba", "--output", path)[0] == 0
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
def test_nothing_is_overwritten_on_bad_data(name, formats, iris, here):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((600, 4)), columns=load_iris().feature_names)
    frame["species"] = rng.integers(0, 2, 600)
    frame.to_parquet(iris / "whole.parquet", row_group_size=200, compression="snappy")
    (iris / name).write_bytes(BAD_STREAMS[name]((iris / "whole.parquet").read_bytes()))
    (iris / "kept").write_text("as it was")
    options = ["--target", "species", "--stream", "--checkpoint", "new.npz"]
    for arguments in (
        ("train", name, *options, "--output", "kept"),
        ("predict", "m.npz", name, "--output", "kept"),
        ("evaluate", "m.npz", name),
    ):
        code, _, errors = here(*arguments)
        assert code == 2
        assert errors.startswith(f"error: {name}: ")
        assert errors.count("\n") == 1
        assert ("row group" in errors) == name.startswith("corrupt")
        assert (iris / "kept").read_text() == "as it was"
        assert not (iris / "new.npz").exists()
    assert not list(iris.glob(".*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "m.npz", "iris.csv", "--output", "iris.csv"),
        ("predict", "m.npz", "iris.csv", "--output", "m.npz"),
        ("train", "iris.csv", "--target", "species", "--output", "iris.csv"),
        ("train", "iris.csv", "--target", "species", "--resume", "--checkpoint", "iris.csv"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_nothing_that_is_read_is_written_over(arguments, iris, here):
    before = (iris / arguments[-1]).read_bytes()
    code, _, errors = here(*arguments)
    assert code == 2
    assert "expected another file than those read" in errors
    assert (iris / arguments[-1]).read_bytes() == before


def test_no_command_shows_help_and_no_empty_error(here):
    assert "error" not in here()[2]


def test_data_a_model_does_not_fit(iris, here):
    np.savez(iris / "wide.npz", X=np.ones((5, 7)), y=np.arange(5))
    np.savez(iris / "strange.npz", X=np.ones((2, 4)), y=np.array([0, 7]))
    code, _, errors = here("predict", "m.npz", "wide.npz")
    assert (code, errors) == (2, "error: wide.npz: expected 4 features, got 7\n")
    code, output, _ = here("evaluate", "m.npz", "strange.npz")
    assert code == 0
    assert "inf" in output


def test_info_and_warmup(here):
    code, output, errors = here("info")
    assert code == 0, errors
    for word in ("CPU", "lanes", "threads", "threading layer", "cache directory"):
        assert word in output
    code, output, errors = here("warmup")
    assert code == 0, errors
    assert "ready" in output


BAD_FILES = {
    "empty.csv": "",
    "header.csv": "a,b,species\n",
    "text.csv": "a,b,species\n1,x,s\n2,y,t\n",
    "hole.csv": "a,b,species\n1,2,s\n,3,t\n1,1,s\n",
    "label.csv": "a,b,species\n1,2,\n1,3,t\n1,1,s\n",
    "one.csv": "a,b,species\n1,2,s\n1,3,s\n1,1,s\n",
    "large.csv": "a,b,species\n1,2,s\n1e300,3,t\n1,1,s\n",
    "fake.npz": "no archive at all",
    "data.xyz": "1",
}
ERRORS = [
    (("train", "missing.csv"), "missing.csv: no such file"),
    (("train", "data.xyz"), r"data.xyz: expected .parquet, .csv"),
    (("train", "data.xyz", "--target", "species"), r"data.xyz: expected .parquet, .csv"),
    (("predict", "data.xyz", "iris.csv"), "data.xyz: not a readable .npz file: no whole zip"),
    (("train", "large.csv", "--target", "species"), 'column "a": NaN or infinite in float32'),
    (("evaluate", "m.npz", "iris.csv", "--target", "petal width (cm)"), "or a feature, not both"),
    (("train", "iris.csv"), "no labels"),
    (("train", "iris.csv", "--target", "kind"), 'no column "kind"'),
    (("train", "empty.csv", "--target", "species"), "empty.csv: not a CSV file"),
    (("train", "header.csv", "--target", "species"), "header.csv: no rows"),
    (("train", "text.csv", "--target", "species"), 'column "b": expected numbers'),
    (
        ("train", "hole.csv", "--target", "species"),
        'column "a": missing or infinite value in row 2',
    ),
    (("train", "label.csv", "--target", "species"), "label.csv: row 1: missing label"),
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


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_are_one_line_and_status_2(arguments, message, iris, here):
    for name, content in BAD_FILES.items():
        (iris / name).write_text(content)
    code, _, errors = here(*arguments)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_errors_reach_the_shell(tmp_path):
    result = run("train", "missing.csv", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: missing.csv: no such file or directory\n"
    assert result.stdout == ""


def test_missing_extra_is_named():
    code = "import sys; sys.modules['typer'] = None; from fastsoftmax import cli; cli.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert 'pip install "fastsoftmax[train]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failed_write_leaves_the_old_model(iris, monkeypatch):
    saved = _model_files.load_model(iris / "m.npz")
    before = (iris / "m.npz").read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        _model_files.save_model(iris / "m.npz", saved.model)
    assert (iris / "m.npz").read_bytes() == before
    assert not list(iris.glob(".m.npz*"))


def test_models_survive_the_round_trip(iris, tmp_path):
    saved = _model_files.load_model(iris / "m.npz")
    assert saved.feature_names == list(load_iris().feature_names)
    assert saved.target == "species"
    _model_files.save_model(tmp_path / "n.npz", saved.model, feature_names=saved.feature_names)
    again = _model_files.load_model(tmp_path / "n.npz")
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
        _model_files.load_model(tmp_path / "bad.npz")
