"""What all sources of chunks share: labels made codes, values checked, chunk sizes."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.dataset import stack

Array = npt.NDArray[Any]

# Two chunks are alive at a time, beside what a reader needs to decode one.
_CHUNK_BYTES = 16 << 20
# Chunks are a multiple of this: of whole blocks, for any kernel, so that none spans two chunks.
_MIN_ROWS = 1024
_MAX_TABLE = 1 << 16


class Rows(NamedTuple):
    """Some rows as a reader finds them: where (for errors), how many, and how to get at them.

    ``take(None)`` gives the features of all of them, ``take(numbers)`` of some; labels are raw,
    or None where none were asked for.
    """

    where: str
    n_rows: int
    take: Callable[[Array | None], Any]
    labels: Array | None


def taking(X: Any) -> Callable[[Array | None], Any]:
    """`Rows.take` of an array or CSR matrix."""
    return lambda numbers: X if numbers is None else X[numbers]


class _Share(NamedTuple):
    """The rows on one side of a random split: each row's side follows from its number alone."""

    seed: int
    threshold: int  # of 2^64
    held_out: bool

    def of(self, first: int, n_rows: int) -> Array:
        """Which of ``n_rows`` rows belong to it, ``first`` being the number of the first."""
        draws = np.random.PCG64(self.seed).advance(first).random_raw(n_rows)
        return np.asarray((draws < self.threshold) == self.held_out)


class ChunkSource:
    """Rows on disk; calling it gives a fresh iterator of chunks (X, codes of the labels).

    Values are checked to be finite in the first complete pass only, labels in every one.
    ``has_open_width`` is True where the files do not tell how many features there are, only the
    last one that occurs.

    Attributes
    ----------
    path : Path
        Where the rows are.
    n_rows, n_features : int
        N and D; N is 0 for a source opened without labels.
    feature_names : list of str or None
        Names of the columns of X, where they have some.
    target : str or None
        Name of the label column, where it has one.
    classes : ndarray of shape (n_classes,)
        The label values found, sorted; a code is an index into them.
    digest : tuple of int
        Checksums of features and labels, known after the first complete pass.
    """

    has_open_width = False

    def __init__(
        self,
        path: Path,
        n_features: int,
        feature_names: list[str] | None,
        files: list[Path] | None = None,
    ) -> None:
        self.path, self.n_features, self.feature_names = path, n_features, feature_names
        self.n_rows = 0
        self.target: str | None = None
        self.classes: Array = np.empty(0)
        self.digest: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] | None = None  # that of the chunks, where the files have another
        self._share: _Share | None = None
        self._stamps = {file: _stamp(file) for file in ([path] if files is None else files)}

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return list(self._stamps)

    @property
    def n_bytes(self) -> int:
        """Memory that all rows would take, about."""
        return self.n_rows * self.n_features * np.dtype(np.float64).itemsize

    def __call__(self) -> Iterator[tuple[Any, Array]]:
        """Stream the chunks; two in turn may share their memory with later ones."""
        sums = (0, 0)
        for where, X, labels in self._pass(labelled=True):
            codes = self._encode(where, labels)
            if not self.digest:
                _check_finite(where, X, self.feature_names)
                sums = checksum(X, sums[0]), zlib.crc32(codes.astype(np.int64).data, sums[1])
            yield X, codes
        self.digest = self.digest or sums

    def features(self) -> Iterator[Any]:
        """Stream the features alone, checked to be finite."""
        for where, X, _ in self._pass(labelled=False):
            _check_finite(where, X, self.feature_names)
            yield X

    def load(self) -> tuple[Any, Array]:
        """Read all rows into memory: X, dense in C order or CSR, and the labels."""
        matrices, codes = zip(*((X.copy(), codes) for X, codes in self()), strict=True)
        return stack(matrices), self.classes[np.concatenate(codes)]

    def split(self, fraction: float, seed: int = 0) -> tuple[ChunkSource, ChunkSource]:
        """Return sources of disjoint random rows, the second of about ``fraction`` of them.

        Nothing is stored: on which side a row is follows from its number and the seed.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
        step = 1 << 20
        sides = []
        for held_out in (False, True):
            share, side = _Share(seed, int(fraction * 2**64), held_out), copy.copy(self)
            side._share, side.digest = share, ()
            sizes = (
                int(np.count_nonzero(share.of(row, min(step, self.n_rows - row))))
                for row in range(0, self.n_rows, step)
            )
            side.n_rows = sum(sizes)
            if side.n_rows == 0:
                raise ValueError(f"{self.path}: {self.n_rows} rows are too few to split")
            sides.append(side)
        return sides[0], sides[1]

    def _pass(self, labelled: bool) -> Iterator[tuple[str, Any, Any]]:
        """One pass over the rows of this share: where a chunk is from, X and the labels."""
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise ValueError(f"{file}: changed since it was opened")
        stop = 0
        for where, n_rows, take, labels in self._read(labelled):
            numbers = None
            stop += n_rows
            if self._share is not None:
                numbers = np.flatnonzero(self._share.of(stop - n_rows, n_rows))
                labels = None if labels is None else labels[numbers]
            if n_rows == 0 or (numbers is not None and len(numbers) == 0):
                continue
            X = take(numbers)
            if self.dtype is not None:
                with np.errstate(over="ignore"):  # infinite: found out
                    X = X.astype(self.dtype, copy=False)
            yield where, X, labels

    def _read(self, labelled: bool) -> Iterator[Rows]:
        """One pass over all rows, with or without their labels."""
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
        span = int(classes[-1]) - int(classes[0]) + 1 if classes.dtype.kind in "iu" else _MAX_TABLE
        if span < _MAX_TABLE:
            within = len(labels) == 0 or (
                labels.min() >= classes[0] and labels.max() <= classes[-1]
            )
            codes = labels.astype(np.int64) - int(classes[0]) if within else np.array([-1])
            if within and span > len(classes):
                # A table is ten times as fast as a search.
                table = np.full(span, -1)
                table[classes - classes[0]] = np.arange(len(classes))
                codes = table[codes]
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
        return max(_CHUNK_BYTES // bytes_a_row // _MIN_ROWS, 1) * _MIN_ROWS
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    return int(chunk_rows)


def select_columns(
    path: Path, present: list[str], target: str | None, features: list[str] | None
) -> list[str]:
    """Check the label column, if there is to be one, and return the feature columns."""
    if target is not None and target not in present:
        raise ValueError(f'{path}: no column "{target}"; there are {listed(present)}')
    names = [name for name in present if name != target] if features is None else list(features)
    if target in names:
        raise ValueError(f'{path}: column "{target}": expected labels or a feature, not both')
    missing = [name for name in names if name not in present]
    if missing or not names:
        raise ValueError(f"{path}: missing feature columns: {listed(missing) or 'all of them'}")
    return names


def listed(names: list[str]) -> str:
    """Return the first few names."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _stamp(file: Path) -> tuple[int, int]:
    """Return what a file that nobody touched keeps."""
    try:
        status = file.stat()
    except OSError as error:
        raise ValueError(f"{file}: not readable: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def checksum(X: Any, start: int) -> int:
    """CRC-32 of the features and of ``start``: a tenth of the time of reading them."""
    if not hasattr(X, "tocsr"):
        return zlib.crc32(np.ascontiguousarray(X).data, start)
    for part in (np.diff(X.indptr), X.indices, X.data):
        start = zlib.crc32(np.ascontiguousarray(part).data, start)
    return start


def _check_finite(where: str, X: Any, names: list[str] | None) -> None:
    values = X.data if hasattr(X, "tocsr") else X
    # A sum of float64 is finite only if all its terms are (or it overflows: looked at again).
    if values.dtype.kind != "f" or np.isfinite(values.sum(dtype=np.float64)):
        return
    if np.isfinite(values).all():
        return
    if values.ndim == 1:
        raise ValueError(f"{where}: NaN or infinite values in {values.dtype}")
    row, column = np.argwhere(~np.isfinite(values))[0]
    name = f'column "{names[column]}"' if names else f"column {column}"
    raise ValueError(f"{where}: {name}: NaN or infinite in {values.dtype} in row {row} of it")
