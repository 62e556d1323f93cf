"""The command line in this process, and data sets in a directory of the test's own."""

import shutil
import sys
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from fastsoftmax import cli
from fastsoftmax.cli._model_files import SavedModel, save_model
from fastsoftmax.linear_model import SoftmaxRegression


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process, which takes a fraction of a process of its own."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastsoftmax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Result(stop.value.code, captured.out, captured.err)

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")  # of a terminal it does not know rich says 80 columns
    return run


@pytest.fixture(scope="session")
def iris_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("iris")
    bunch = load_iris(as_frame=True)
    frame = bunch.data.copy()
    frame["species"] = bunch.target_names[bunch.target]
    frame.to_csv(directory / "iris.csv", index=False)
    np.savez(directory / "iris.npz", X=bunch.data.to_numpy(), y=bunch.target.to_numpy())
    model = SoftmaxRegression().fit(bunch.data.to_numpy(np.float32), frame["species"].to_numpy())
    save_model(directory / "m.npz", SavedModel(model, bunch.feature_names, "species"))
    return directory


@pytest.fixture
def iris(iris_files, tmp_path, monkeypatch):
    """The working directory, with iris.csv, iris.npz and a model of the former, m.npz."""
    shutil.copytree(iris_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The working directory, with some of the digits in X.npy and y.npy."""
    X, y = load_digits(return_X_y=True)
    np.save(tmp_path / "X.npy", X[:600, 10:30])
    np.save(tmp_path / "y.npy", y[:600])
    monkeypatch.chdir(tmp_path)
    return tmp_path
