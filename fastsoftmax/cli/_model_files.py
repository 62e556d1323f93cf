"""The format of model files: .npz archives without pickle."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.cli._files import write_arrays
from fastsoftmax.cli._tables import columns_of_names
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.reference import Array
from fastsoftmax.sources import TableColumns
from fastsoftmax.sources._archives import Header, read_arrays, read_headers

_FORMAT = "fastsoftmax-model"
_FORMAT_VERSION = 3
_ARRAYS = ("coef", "intercept", "classes", "n_iter", "feature_names", "target")
# What each version has beside these.
_MORE = {1: (), 2: ("columns", "zero_based"), 3: ("zero_based", "table", "spread", "made")}
# Model files are not compressed, but others may compress them: more is a trap.
_MOST_TIMES = 100


class SavedModel(NamedTuple):
    """A fitted estimator, and what reading other files for it must follow.

    ``feature_names`` and ``target`` are the names that its features and its label column had, if
    any; ``columns`` says how the columns of a table became features. ``zero_based`` says how
    columns of svmlight files are counted, if it is known. The type of labels is that of
    ``model.classes_``. ``spread`` has the features' standard deviations in the training rows, and
    ``made`` says how the model was made.
    """

    model: SoftmaxRegression
    feature_names: list[str] | None = None
    target: str | None = None
    columns: TableColumns | None = None
    zero_based: bool | None = None
    spread: Array | None = None
    made: dict[str, str] | None = None


def save_model(path: Path, saved: SavedModel) -> None:
    """Write a model file, all of it or nothing; it replaces an existing file."""
    model, classes = saved.model, saved.model.classes_
    if classes.dtype.kind in "OT":  # strings out of pandas; anything else cannot be stored
        classes = np.array([str(label) for label in classes])
    names, columns = saved.feature_names or [], saved.columns
    if columns is None and names:
        columns = columns_of_names(names, names)
    arrays = {
        "format": _FORMAT,
        "version": _FORMAT_VERSION,
        "coef": model.coef_,
        "intercept": model.intercept_,
        "classes": classes,
        "n_iter": model.n_iter_,
        "feature_names": np.array(names, dtype=str),
        "target": saved.target or "",
        "zero_based": np.array([] if saved.zero_based is None else [saved.zero_based], bool),
        "table": "" if columns is None else columns.to_json(),
        "spread": np.empty(0) if saved.spread is None else saved.spread,
        "made": json.dumps(saved.made or {}),
    }
    write_arrays(path, arrays)


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
    stored = (*_ARRAYS, *_MORE[version])
    _check_headers(path, read_headers(path, stored, _MOST_TIMES), stored)
    arrays = read_arrays(path, stored)
    coef, intercept, classes = arrays["coef"], arrays["intercept"], arrays["classes"]
    for name in ("coef", "intercept", "classes", *(["spread"] if "spread" in arrays else [])):
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path}: damaged model file: NaN or infinite values in {name}")
    if len(np.unique(classes)) < len(classes):
        raise ValueError(f"{path}: damaged model file: a class occurs twice")
    names = [str(name) for name in arrays["feature_names"]]
    model = SoftmaxRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
    model.n_features_in_, model.n_iter_ = coef.shape[1], _as_count(path, arrays, "n_iter")
    zero_based = next((bool(value) for value in arrays.get("zero_based", ())), None)
    target, spread = str(arrays["target"]) or None, arrays.get("spread", np.empty(0))
    columns, made = _read_table(path, arrays, names)
    if columns is not None:
        names = columns.feature_names
    return SavedModel(
        model, names or None, target, columns, zero_based, spread if len(spread) else None, made
    )


def _read_table(
    path: Path, arrays: dict[str, Array], names: list[str]
) -> tuple[TableColumns | None, dict[str, str] | None]:
    """Return how columns become features, and how the model was made."""
    try:
        made = json.loads(str(arrays.get("made", "{}")))
        if not isinstance(made, dict) or not all(isinstance(made[name], str) for name in made):
            raise ValueError("made: expected texts")
        if "table" not in arrays:
            columns = columns_of_names([str(name) for name in arrays.get("columns", names)], names)
        else:
            columns = TableColumns.from_json(str(arrays["table"]) or "[]")
        if columns.n_features not in (0, arrays["coef"].shape[1]):
            raise ValueError("columns of another number of features")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged model file: {error}") from None
    return columns if columns.n_features else None, made or None


def _check_headers(path: Path, headers: dict[str, Header], stored: tuple[str, ...]) -> None:
    """Refuse a model file whose arrays do not belong together, before they are read."""
    if missing := set(stored) - set(headers):
        raise ValueError(f"{path}: damaged model file: no {', '.join(sorted(missing))}")
    K, D = (*headers["coef"].shape, 0, 0)[:2]
    shapes = {"coef": (K, D), "intercept": (K,), "classes": (K,), "target": (), "n_iter": ()}
    shapes |= {name: () for name in ("table", "made") if name in stored}
    if (
        K < 2
        or D < 1
        or any(headers[name].shape != shape for name, shape in shapes.items())
        or any(
            name in headers and headers[name].shape not in ((0,), (D,))
            for name in ("feature_names", "spread")
        )
    ):
        raise ValueError(f"{path}: damaged model file: shapes do not belong together")
    kinds = {"classes": "biufU", "feature_names": "U", "target": "U", "columns": "U"}
    kinds |= {"zero_based": "b", "table": "U", "spread": "f", "made": "U"}
    kinds = {name: kind for name, kind in kinds.items() if name in stored}
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
