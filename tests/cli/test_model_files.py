"""Model files: what is saved comes back; damaged ones are refused."""

import numpy as np
import pytest

from fastsoftmax.cli._model_files import SavedModel, load_model, save_model


def test_models_survive_the_round_trip(iris):
    saved = load_model(iris / "m.npz")
    save_model(iris / "n.npz", saved._replace(target=None, columns=["a", "b"], zero_based=False))
    again = load_model(iris / "n.npz")
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        np.testing.assert_array_equal(getattr(again.model, name), getattr(saved.model, name))
    assert again.feature_names == saved.feature_names
    assert (again.target, again.columns, again.zero_based) == (None, ["a", "b"], False)


@pytest.mark.parametrize(
    "labels", [[1, 2], [0.5, 1], [False, True], ["1", "2"], [2**63, 2**64 - 1]]
)
def test_classes_keep_their_type(labels, iris):
    model = load_model(iris / "m.npz").model
    model.classes_, model.coef_, model.intercept_ = np.array(labels), np.ones((2, 4)), np.ones(2)
    save_model(iris / "n.npz", SavedModel(model))
    again = load_model(iris / "n.npz").model.classes_
    assert (again.dtype, again.tolist()) == (np.array(labels).dtype, labels)


def test_a_model_of_version_1(iris):
    with np.load(iris / "m.npz") as archive:
        old = {name: archive[name] for name in archive if name not in ("columns", "zero_based")}
    np.savez(iris / "old.npz", **(old | {"version": np.array(1)}))
    saved = load_model(iris / "old.npz")
    assert (saved.columns, saved.zero_based) == (saved.feature_names, None)


def test_a_failed_write_leaves_the_old_model(iris, monkeypatch):
    saved = load_model(iris / "m.npz")
    before = (iris / "m.npz").read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_model(iris / "m.npz", saved)
    assert (iris / "m.npz").read_bytes() == before
    assert not list(iris.glob(".*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": np.array(99)}, "newer than this version"),
        ({"coef": np.zeros((2, 4))}, "damaged model file: shapes"),
        ({"coef": None}, "damaged model file: no coef"),
        ({"format": np.array("other")}, "not a fastsoftmax model file"),
    ],
)
def test_damaged_models(change, message, iris):
    with np.load(iris / "m.npz") as archive:
        arrays = {**archive, **change}
    np.savez(iris / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        load_model(iris / "bad.npz")
