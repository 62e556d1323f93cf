"""The format of model files: .npz archives without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastsoftmax.cli._files import replacing
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.sources._arrays import read_arrays

_FORMAT = "fastsoftmax-model"
_FORMAT_VERSION = 2


class SavedModel(NamedTuple):
    """A fitted estimator, and what reading other files for it must follow.

    ``feature_names`` and ``target`` are the names that its features and its label column had, if
    any; ``columns`` those of the columns of features, which may be columns of lists. ``zero_based``
    says how columns of svmlight files are counted, if it is known. The type of labels is that of
    ``model.classes_``.
    """

    model: SoftmaxRegression
    feature_names: list[str] | None = None
    target: str | None = None
    columns: list[str] | None = None
    zero_based: bool | None = None


def save_model(path: Path, saved: SavedModel) -> None:
    """Write a model file, all of it or nothing; it replaces an existing file."""
    model, classes = saved.model, saved.model.classes_
    if classes.dtype.kind in "OT":  # strings out of pandas; anything else cannot be stored
        classes = np.array([str(label) for label in classes])
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            format=np.array(_FORMAT),
            version=np.array(_FORMAT_VERSION),
            coef=model.coef_,
            intercept=model.intercept_,
            classes=classes,
            n_iter=np.array(model.n_iter_),
            feature_names=np.array(saved.feature_names or [], dtype=str),
            target=np.array(saved.target or ""),
            columns=np.array(saved.columns or saved.feature_names or [], dtype=str),
            zero_based=np.array([] if saved.zero_based is None else [saved.zero_based], bool),
        )


def load_model(path: Path) -> SavedModel:
    """Read a model file; a ValueError says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    arrays = read_arrays(path)
    if str(arrays.get("format")) != _FORMAT:
        raise ValueError(f"{path}: not a fastsoftmax model file")
    if int(arrays["version"]) > _FORMAT_VERSION:
        raise ValueError(
            f"{path}: model format {int(arrays['version'])} is newer than this version of "
            f"fastsoftmax reads ({_FORMAT_VERSION}); upgrade it"
        )
    missing = {"coef", "intercept", "classes", "n_iter", "feature_names", "target"} - set(arrays)
    if missing:
        raise ValueError(f"{path}: damaged model file: no {', '.join(sorted(missing))}")
    coef, intercept, classes = arrays["coef"], arrays["intercept"], arrays["classes"]
    names = [str(name) for name in arrays["feature_names"]]
    if (
        coef.ndim != 2
        or not intercept.shape == classes.shape == coef.shape[:1]
        or len(names) not in (0, coef.shape[1])
    ):
        raise ValueError(f"{path}: damaged model file: shapes do not belong together")
    model = SoftmaxRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
    model.n_features_in_, model.n_iter_ = coef.shape[1], int(arrays["n_iter"])
    # Version 1 had neither of these.
    columns = [str(name) for name in arrays.get("columns", names)]
    zero_based = next((bool(value) for value in arrays.get("zero_based", ())), None)
    target = str(arrays["target"]) or None
    return SavedModel(model, names or None, target, columns or None, zero_based)
