"""The command predict."""

import numpy as np
import pandas as pd


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
