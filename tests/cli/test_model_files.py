"""Model files: what is saved comes back; damaged ones are refused."""

import numpy as np
import pytest

from fastsoftmax.cli._model_files import SavedModel, load_model, save_model
from fastsoftmax.sources import TableColumns
from fastsoftmax.sources._columns import Column


def test_models_survive_the_round_trip(iris):
    saved = load_model(iris / "m.npz")
    columns = TableColumns(
        [
            Column("a, b", "number", missing=True, fill=-0.1),
            Column('c "\u00e9"', "category", ("x\x00", "[red]")),
        ]
    )
    made, spread = {"command": "train"}, np.arange(4.0)
    more = {"feature_names": columns.feature_names, "columns": columns, "spread": spread}
    save_model(iris / "n.npz", saved._replace(target=None, zero_based=False, made=made, **more))
    again = load_model(iris / "n.npz")
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        np.testing.assert_array_equal(getattr(again.model, name), getattr(saved.model, name))
    assert again.feature_names == columns.feature_names
    assert again.columns.columns == columns.columns
    assert (again.target, again.zero_based, again.made) == (None, False, made)
    assert again.spread.tolist() == spread.tolist()


@pytest.mark.parametrize(
    "labels", [[1, 2], [0.5, 1], [False, True], ["1", "2"], [2**63, 2**64 - 1]]
)
def test_classes_keep_their_type(labels, iris):
    model = load_model(iris / "m.npz").model
    model.classes_, model.coef_, model.intercept_ = np.array(labels), np.ones((2, 4)), np.ones(2)
    save_model(iris / "n.npz", SavedModel(model))
    again = load_model(iris / "n.npz").model.classes_
    assert (again.dtype, again.tolist()) == (np.array(labels).dtype, labels)


@pytest.mark.parametrize("version", [1, 2])
def test_models_of_earlier_versions(version, iris, command):
    since_3 = ("zero_based", "table", "spread", "made")
    with np.load(iris / "m.npz") as archive:
        old = {name: archive[name] for name in archive if name not in since_3}
    if version == 2:
        old["columns"], old["feature_names"] = (
            np.array(["v"]),
            np.array([f"v[{i}]" for i in "0123"]),
        )
        old["zero_based"] = np.array([], bool)
    np.savez(iris / "old.npz", **(old | {"version": np.array(version)}))
    saved = load_model(iris / "old.npz")
    assert (saved.columns.names, saved.zero_based) == (
        ["v"] if version == 2 else saved.feature_names,
        None,
    )
    assert saved.columns.feature_names == saved.feature_names
    assert command("info", "old.npz").code == 0
    result = command("coefficients", "old.npz")
    assert (result.code, "of an earlier version" in result.err) == (0, True)
    if version == 1:
        assert command("predict", "old.npz", "iris.csv") == command("predict", "m.npz", "iris.csv")


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
