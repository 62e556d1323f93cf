"""Data sets and model files on disk."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from fastsoftmax.linear_model import SoftmaxRegression

Array = npt.NDArray[Any]

__all__ = ["Dataset", "load_dataset", "load_digits", "load_model", "save_model"]

_FORMAT = "fastsoftmax-model"
_FORMAT_VERSION = 1


class Dataset(NamedTuple):
    """Features (N, D), labels (N,) or None, and the columns' names or None."""

    X: Array
    y: Array | None
    feature_names: list[str] | None
    target: str | None


def load_digits() -> Dataset:
    """scikit-learn's bundled data set of 1797 real handwritten digits, 8x8 pixels."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    return Dataset(bunch.data, bunch.target, list(bunch.feature_names), "digit")


def load_dataset(
    path: str | Path, target: str | None = None, features: list[str] | None = None
) -> Dataset:
    """Read a .csv file, or a .npz file with the arrays X and y.

    Parameters
    ----------
    path : str or Path
        The file.
    target : str, optional
        Column of the labels in a .csv file; without it there are no labels.
    features : list of str, optional
        Columns to read as features, in this order; by default all but the target.

    Raises
    ------
    ValueError
        Where the file is not what it claims to be, a column is missing, not numeric or has missing
        values. The message names file and column.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix == ".npz":
        return _load_npz(path)
    if path.suffix == ".csv":
        return _load_csv(path, target, features)
    raise ValueError(f'{path}: expected a .csv or .npz file, got "{path.suffix}"')


def _load_npz(path: Path) -> Dataset:
    arrays = _read_arrays(path)
    if "X" not in arrays:
        raise ValueError(f"{path}: expected an array X, got {sorted(arrays) or 'no arrays'}")
    X, y = arrays["X"], arrays.get("y")
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise ValueError(f"{path}: X: expected numbers (N, D), got {X.dtype} {X.shape}")
    if y is not None and y.shape != (len(X),):
        raise ValueError(f"{path}: y: expected shape ({len(X)},), got {y.shape}")
    return Dataset(X, y, None, None)


def _load_csv(path: Path, target: str | None, features: list[str] | None) -> Dataset:
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file: {str(error).strip()}") from None
    if len(frame) == 0:
        raise ValueError(f"{path}: no rows")
    if target is not None and target not in frame:
        raise ValueError(f'{path}: no column "{target}"; there are {_listed(frame.columns)}')
    names = features or [str(name) for name in frame.columns if name != target]
    missing = [name for name in names if name not in frame]
    if missing or not names:
        raise ValueError(f"{path}: missing feature columns: {_listed(missing) or 'all of them'}")
    X = np.column_stack([_numeric_column(path, frame, name) for name in names])
    if target is None:
        return Dataset(X, None, names, None)
    if frame[target].isna().any():
        raise ValueError(f'{path}: column "{target}": missing values among the labels')
    return Dataset(X, frame[target].to_numpy(), names, target)


def _numeric_column(path: Path, frame: pd.DataFrame, name: str) -> Array:
    column = frame[name]
    if column.dtype.kind not in "fiub":
        raise ValueError(f'{path}: column "{name}": expected numbers, got {column.dtype}')
    values: Array = column.to_numpy(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f'{path}: column "{name}": missing or infinite value in row {row + 1}')
    return values


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz file: {error}") from None


def save_model(
    path: str | Path,
    model: SoftmaxRegression,
    *,
    feature_names: list[str] | None = None,
    target: str | None = None,
) -> None:
    """Write a fitted model as a .npz file without pickle, all of it or nothing.

    Parameters
    ----------
    path : str or Path
        Where to; an existing file is replaced at the last moment.
    model : SoftmaxRegression
        A fitted estimator.
    feature_names : list of str, optional
        Names of the features, for files with columns.
    target : str, optional
        Name of the label column.
    """
    path = Path(path)
    classes = model.classes_
    if classes.dtype.kind == "O":  # strings out of pandas; anything else cannot be stored
        classes = np.array([str(label) for label in classes])
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(
                file,
                format=np.array(_FORMAT),
                version=np.array(_FORMAT_VERSION),
                coef=model.coef_,
                intercept=model.intercept_,
                classes=classes,
                n_iter=np.array(model.n_iter_),
                feature_names=np.array(feature_names or [], dtype=str),
                target=np.array(target or ""),
            )
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class SavedModel(NamedTuple):
    """A fitted estimator and the names it was trained with."""

    model: SoftmaxRegression
    feature_names: list[str] | None
    target: str | None


def load_model(path: str | Path) -> SavedModel:
    """Read what `save_model` wrote.

    Raises
    ------
    ValueError
        Where the file is missing, not such a file, damaged, or of a newer format.
    """
    from fastsoftmax.linear_model import SoftmaxRegression

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    arrays = _read_arrays(path)
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
        or intercept.shape != (len(coef),)
        or classes.shape != (len(coef),)
        or len(names) not in (0, coef.shape[1])
    ):
        raise ValueError(f"{path}: damaged model file: shapes do not belong together")
    model = SoftmaxRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
    model.n_features_in_, model.n_iter_ = coef.shape[1], int(arrays["n_iter"])
    return SavedModel(model, names or None, str(arrays["target"]) or None)
