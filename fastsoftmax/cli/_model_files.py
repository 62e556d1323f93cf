"""The format of model files: .npz archives without pickle."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.cli._files import replacing
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.sources._archives import Header, read_arrays, read_headers

_FORMAT = "fastsoftmax-model"
_FORMAT_VERSION = 2
_ARRAYS = ("coef", "intercept", "classes", "n_iter", "feature_names", "target")
_SINCE_2 = ("columns", "zero_based")
# Model files are not compressed, but others may compress them: more is a trap.
_MOST_TIMES = 100


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
    header = read_arrays(path, ("format", "version"))
    if str(header.get("format")) != _FORMAT:
        raise ValueError(f"{path}: not a fastsoftmax model file")
    version = _as_count(path, header, "version", at_least=1)
    if version > _FORMAT_VERSION:
        raise ValueError(
            f"{path}: model format {version} is newer than this version of fastsoftmax reads "
            f"({_FORMAT_VERSION}); upgrade it"
        )
    stored = _ARRAYS if version < 2 else (*_ARRAYS, *_SINCE_2)
    _check_headers(path, read_headers(path, stored, _MOST_TIMES), stored)
    arrays = read_arrays(path, stored)
    coef, intercept, classes = arrays["coef"], arrays["intercept"], arrays["classes"]
    for name in ("coef", "intercept", "classes"):
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path}: damaged model file: NaN or infinite values in {name}")
    if len(np.unique(classes)) < len(classes):
        raise ValueError(f"{path}: damaged model file: a class occurs twice")
    names = [str(name) for name in arrays["feature_names"]]
    model = SoftmaxRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
    model.n_features_in_, model.n_iter_ = coef.shape[1], _as_count(path, arrays, "n_iter")
    columns = [str(name) for name in arrays.get("columns", names)]
    zero_based = next((bool(value) for value in arrays.get("zero_based", ())), None)
    target = str(arrays["target"]) or None
    return SavedModel(model, names or None, target, columns or None, zero_based)


def _check_headers(path: Path, headers: dict[str, Header], stored: tuple[str, ...]) -> None:
    """Refuse a model file whose arrays do not belong together, before they are read."""
    if missing := set(stored) - set(headers):
        raise ValueError(f"{path}: damaged model file: no {', '.join(sorted(missing))}")
    K, D = (*headers["coef"].shape, 0, 0)[:2]
    shapes = {"coef": (K, D), "intercept": (K,), "classes": (K,), "target": (), "n_iter": ()}
    if (
        K < 2
        or D < 1
        or any(headers[name].shape != shape for name, shape in shapes.items())
        or headers["feature_names"].shape not in ((0,), (D,))
    ):
        raise ValueError(f"{path}: damaged model file: shapes do not belong together")
    kinds = {"classes": "biufU", "feature_names": "U", "target": "U", "columns": "U"}
    kinds = {name: kind for name, kind in {**kinds, "zero_based": "b"}.items() if name in stored}
    dtypes = {name: header.dtype for name, header in headers.items()}
    if (
        dtypes["coef"] not in (np.float32, np.float64)
        or dtypes["intercept"] != dtypes["coef"]
        or any(dtypes[name].kind not in allowed for name, allowed in kinds.items())
    ):
        raise ValueError(f"{path}: damaged model file: wrong dtypes")


def _as_count(path: Path, arrays: dict[str, Any], name: str, at_least: int = 0) -> int:
    """Return an array that must hold a single integer."""
    value = arrays.get(name, np.empty(0))
    if value.shape != () or value.dtype.kind not in "iu" or value < at_least:
        raise ValueError(f"{path}: damaged model file: {name}: expected an integer >= {at_least}")
    return int(value)
