"""What all sources of chunks share: labels made codes, values checked, chunk sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Two chunks are alive at a time, beside what a reader needs to decode one.
_CHUNK_BYTES = 32 << 20
_MAX_TABLE = 1 << 16


class ChunkSource:
    """Rows on disk; calling it gives a fresh iterator of chunks (X, codes of the labels).

    Values are checked to be finite in the first complete pass only, labels in every one.

    Attributes
    ----------
    path : Path
        Where the rows are.
    n_rows, n_features : int
        N and D.
    feature_names : list of str or None
        Names of the columns of X, where they have some.
    classes : ndarray of shape (n_classes,)
        The label values found, sorted; a code is an index into them.
    """

    def __init__(self, path: Path, n_features: int, feature_names: list[str] | None) -> None:
        self.path, self.n_features, self.feature_names = path, n_features, feature_names
        self.n_rows = 0
        self.classes: Array = np.empty(0)
        self._checked = False

    def __call__(self) -> Iterator[tuple[Any, Array]]:
        """Stream the chunks; two in turn may share their memory with later ones."""
        for where, X, labels in self._read():
            if not self._checked:
                _check_finite(where, X, self.feature_names)
            yield X, self._encode(where, labels)
        self._checked = True

    def _read(self) -> Iterator[tuple[str, Any, Array]]:
        """One pass: where a chunk is from (for errors), X and the labels as they are."""
        raise NotImplementedError

    def _find_classes(self, labels: Iterable[tuple[str, Array]]) -> None:
        """Set the number of rows and the classes from all labels and where they are from."""
        found: Array | None = None
        for where, part in labels:
            part = as_labels(where, part)
            self.n_rows += len(part)
            values = np.unique(part)
            found = values if found is None else np.unique(np.concatenate([found, values]))
        if found is None or self.n_rows == 0:
            raise ValueError(f"{self.path}: no rows")
        if found.dtype.kind == "f" and (found == np.round(found)).all():
            found = found.astype(np.int64)
        self.classes = found

    def _encode(self, where: str, labels: Array) -> Array:
        labels, classes = as_labels(where, labels), self.classes
        if labels.dtype.kind == "f" and classes.dtype.kind == "i":
            labels = labels.astype(np.int64)
        if classes.dtype.kind in "iu" and int(classes[-1]) - int(classes[0]) < _MAX_TABLE:
            # A table is ten times as fast as a search.
            table = np.full(int(classes[-1]) - int(classes[0]) + 1, -1)
            table[classes - classes[0]] = np.arange(len(classes))
            within = len(labels) == 0 or (
                labels.min() >= classes[0] and labels.max() <= classes[-1]
            )
            codes = table[labels.astype(np.int64) - int(classes[0])] if within else np.array([-1])
            known = codes.min(initial=0) >= 0
        else:
            codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
            known = bool((classes[codes] == labels).all())
        if not known:
            raise ValueError(f"{where}: labels that were not there when the source was opened")
        return codes


def as_labels(where: str, labels: Array) -> Array:
    """Numbers or strings, none of them missing."""
    if labels.dtype.kind == "O":
        if any(label is None or label != label for label in labels):
            raise ValueError(f"{where}: missing labels")
        return labels.astype(str)
    if labels.dtype.kind not in "iubfUT":
        raise ValueError(
            f"{where}: expected labels that are numbers or strings, got {labels.dtype}"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{where}: missing or infinite labels")
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def rows_per_chunk(chunk_rows: int | None, bytes_a_row: int) -> int:
    """Rows of a chunk: as asked for, or as many as fill the usual size."""
    if chunk_rows is None:
        return max(_CHUNK_BYTES // bytes_a_row, 1024)
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    return int(chunk_rows)


def select_columns(
    path: Path, present: list[str], target: str | None, features: list[str] | None
) -> list[str]:
    """Check the label column and return the feature columns."""
    if target is None:
        raise ValueError(f"{path}: no labels: name their column with target")
    if target not in present:
        raise ValueError(f'{path}: no column "{target}"; there are {listed(present)}')
    names = [name for name in present if name != target] if features is None else list(features)
    missing = [name for name in names if name not in present]
    if missing or not names:
        raise ValueError(f"{path}: missing feature columns: {listed(missing) or 'all of them'}")
    return names


def listed(names: list[str]) -> str:
    """Return the first few names."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _check_finite(where: str, X: Any, names: list[str] | None) -> None:
    values = X.data if hasattr(X, "tocsr") else X
    # A sum of float64 is finite only if all its terms are (or it overflows: looked at again).
    if values.dtype.kind != "f" or np.isfinite(values.sum(dtype=np.float64)):
        return
    if np.isfinite(values).all():
        return
    if values.ndim == 1:
        raise ValueError(f"{where}: NaN or infinite values")
    row, column = np.argwhere(~np.isfinite(values))[0]
    name = f'column "{names[column]}"' if names else f"column {column}"
    raise ValueError(f"{where}: {name}: NaN or infinite value in row {row} of it")
