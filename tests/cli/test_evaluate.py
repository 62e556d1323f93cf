"""The command evaluate."""

import numpy as np


def test_accuracy(iris, command):
    code, output, errors = command("evaluate", "m.npz", "iris.csv", "--target", "species")
    assert code == 0, errors
    assert float(output.split("accuracy")[1].split("│")[1]) > 0.95


def test_classes_the_model_does_not_know(iris, command):
    np.savez(iris / "strange.npz", X=np.ones((2, 4)), y=np.array([0, 7]))
    code, output, _ = command("evaluate", "m.npz", "strange.npz")
    assert code == 0
    assert "inf" in output
