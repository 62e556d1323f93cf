"""Model files, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastsoftmax.sources import ArraySource
from fastsoftmax.sources._arrays import read_arrays

if TYPE_CHECKING:
    from fastsoftmax.linear_model import SoftmaxRegression

__all__ = [
    "check_apart",
    "check_writable",
    "load_digits",
    "load_model",
    "replacing",
    "save_model",
]

_FORMAT = "fastsoftmax-model"
_FORMAT_VERSION = 1


def load_digits() -> ArraySource:
    """scikit-learn's bundled data set of 1797 real handwritten digits, 8x8 pixels."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    names = list(bunch.feature_names)
    source = ArraySource(Path("digits"), bunch.data, bunch.target, feature_names=names)
    source.target = "digit"
    return source


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside this one to write to; the file takes its name when it is complete.

    On an error, and on one of the disk's, what was there before stays. A process that is killed
    leaves the other file behind, for the next one to replace.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Find out before the work whether its result can be written."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a directory")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such directory: {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the directory is not writable")


def check_apart(path: Path, read: Iterable[Path]) -> None:
    """Refuse to write over a file that is read."""
    if path.exists() and any(path.samefile(file) for file in read):
        raise ValueError(f"{path}: expected another file than those read")


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
    with replacing(path) as temporary, temporary.open("wb") as file:
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
        or intercept.shape != (len(coef),)
        or classes.shape != (len(coef),)
        or len(names) not in (0, coef.shape[1])
    ):
        raise ValueError(f"{path}: damaged model file: shapes do not belong together")
    model = SoftmaxRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
    model.n_features_in_, model.n_iter_ = coef.shape[1], int(arrays["n_iter"])
    return SavedModel(model, names or None, str(arrays["target"]) or None)
