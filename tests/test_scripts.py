"""Scripts by someone else give the same answers when one import is changed."""

import importlib.util
import sys
import warnings

import numpy as np
import pytest
from script_sources import FOLDER, SCRIPTS, sources

# The argument that makes it small; and what it leaves behind, with the relative tolerance that its
# precision, or its solver's, allows: ten digits of float64 after 200 steps, what minimize was asked
# for, scikit-learn's tol=1e-4, and AdamW's 40 steps in float32.
EXPECTED = {
    "spiral_numpy": (100, {"W": 1e-10, "loss": 1e-12, "accuracy": 0}),
    "digits_minimize": (1, {"W": 1e-3, "loss": 1e-9}),
    "text_pipeline": (20, {"best": 0, "score": 1e-2, "probabilities": 1e-2, "accuracy": 1e-2}),
    "torch_probe": (1, {"final_loss": 1e-3, "accuracy": 5e-3}),
}


def run(source, name, argument, monkeypatch):
    """Run a script; return its variables."""
    monkeypatch.setattr(sys, "argv", [name, str(argument)])
    variables = {"__name__": "__main__"}
    with warnings.catch_warnings():  # those of other people's scripts are theirs
        warnings.simplefilter("ignore")
        exec(compile(source, str(FOLDER / name), "exec"), variables)
    return variables


def test_every_script_has_its_tolerances():
    assert list(EXPECTED.keys() ^ set(SCRIPTS)) == []


@pytest.mark.parametrize("name", EXPECTED)
def test_same_answers_with_one_import_changed(name, monkeypatch):
    if name == "torch_probe":
        torch = pytest.importorskip("torch", reason="needs PyTorch")
        if not hasattr(torch.nn.functional, "linear_cross_entropy"):
            pytest.skip("this PyTorch has no linear_cross_entropy to compare with")
        if importlib.util.find_spec("fastsoftmax.torch") is None:
            pytest.skip("this fastsoftmax has no module torch")
    argument, expected = EXPECTED[name]
    theirs, ours = (run(source, name, argument, monkeypatch) for source in sources(name))
    for variable, tolerance in expected.items():
        found, want = ours[variable], theirs[variable]
        if isinstance(want, dict):
            assert found == want
        else:
            scale = np.abs(want).max()
            np.testing.assert_allclose(found, want, rtol=0, atol=tolerance * scale)
