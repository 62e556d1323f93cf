"""Chunks of NumPy's files, and of arrays in memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation import validate
from fastsoftmax.sources._chunk_source import ChunkSource, Rows, rows_per_chunk, taking

Array = npt.NDArray[Any]

# What NumPy raises over a file that is not a whole .npz archive (a TypeError over a .npy file).
_NOT_AN_ARCHIVE = (ValueError, TypeError, OSError, EOFError, KeyError, AttributeError,
                   zipfile.BadZipFile, zlib.error)  # fmt: skip


class NpySource(ChunkSource):
    """Pairs of .npy files, mapped into memory piece by piece."""

    def __init__(self, path: Path, chunk_rows: int | None, labelled: bool) -> None:
        self._pairs = _find_pairs(path, labelled)
        first = _map(self._pairs[0][0])
        for X_file, y_file in self._pairs:
            X = _map(X_file)
            if X.ndim != 2 or X.shape[1] != first.shape[1] or X.dtype != first.dtype:
                raise ValueError(
                    f"{X_file}: expected {first.dtype} of shape (N, {first.shape[-1]}), got "
                    f"{X.dtype} {X.shape}"
                )
            if y_file is not None and (shape := _map(y_file).shape) != (len(X),):
                raise ValueError(f"{y_file}: expected shape ({len(X)},), got {shape}")
        _check_numbers(self._pairs[0][0], first)
        files = [file for pair in self._pairs for file in pair if file is not None]
        super().__init__(path, first.shape[1], None, files)
        self._rows = rows_per_chunk(chunk_rows, max(first.shape[1], 1) * first.itemsize)
        if labelled:
            self._find_classes((str(y_file), _map(y_file)) for _, y_file in self._pairs if y_file)

    def _read(self, labelled: bool) -> Iterator[Rows]:
        for X_file, y_file in self._pairs:
            for start in range(0, len(_map(X_file)), self._rows):
                # Mapped anew each time: pages of a mapping that lived on would count as memory.
                rows = slice(start, start + self._rows)
                X = _map(X_file)[rows]
                X[:: max(4096 // max(X.strides[0], 1), 1)].sum()  # read from disk now, not later
                y = np.array(_map(y_file)[rows]) if labelled and y_file is not None else None
                where = f"{X_file}: rows {start} to {start + len(X) - 1}"
                yield Rows(where, len(X), taking(X), y)


class ArraySource(ChunkSource):
    """Rows in memory: X (N, D), dense or CSR, and labels y (N,) or None."""

    def __init__(
        self,
        path: Path,
        X: Any,
        y: Array | None,
        *,
        feature_names: list[str] | None = None,
        files: list[Path] | None = None,
        chunk_rows: int | None = None,
    ) -> None:
        super().__init__(path, X.shape[1], feature_names, files or [])
        self.X, self.y = X, y
        self._rows = rows_per_chunk(chunk_rows, max(self.n_features, 1) * X.dtype.itemsize)
        if y is not None:
            self._find_classes([(str(path), y)])

    def _read(self, labelled: bool) -> Iterator[Rows]:
        for start in range(0, self.X.shape[0], self._rows):
            X = self.X[start : start + self._rows]
            y = self.y[start : start + self._rows] if labelled and self.y is not None else None
            where = f"{self.path}: rows {start} to {start + X.shape[0] - 1}"
            yield Rows(where, X.shape[0], taking(X), y)


def open_npz(path: Path, chunk_rows: int | None, labelled: bool) -> ArraySource:
    """Read the arrays X and y of a .npz file."""
    arrays = read_arrays(path)
    if "X" not in arrays:
        raise ValueError(f"{path}: expected an array X, got {sorted(arrays) or 'no arrays'}")
    X, y = arrays["X"], arrays.get("y") if labelled else None
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{path}: X: expected shape (N, D), neither of them 0, got {X.shape}")
    _check_numbers(path, X)
    if labelled and y is None:
        raise ValueError(f"{path}: no labels: expected them in an array y")
    if y is not None and y.shape != (len(X),):
        raise ValueError(f"{path}: y: expected shape ({len(X)},), got {y.shape}")
    return ArraySource(path, X, y, files=[path], chunk_rows=chunk_rows)


def _find_pairs(path: Path, labelled: bool) -> list[tuple[Path, Path | None]]:
    if path.is_dir():
        files = sorted([*path.glob("X.npy"), *path.glob("X_*.npy")])
    else:
        files = [path]
    if not files:
        raise ValueError(f"{path}: expected .parquet files, or X.npy or X_*.npy, found none")
    if not labelled:
        return [(file, None) for file in files]
    pairs: list[tuple[Path, Path | None]] = []
    for file in files:
        if not file.name.startswith("X"):
            raise ValueError(f"{file}: expected a name that starts with X, beside one with y")
        labels = file.with_name("y" + file.name[1:])
        if not labels.is_file():
            raise ValueError(f"{file}: no labels: expected them in {labels.name} beside it")
        pairs.append((file, labels))
    return pairs


def _check_numbers(file: Path, X: Array) -> None:
    try:
        validate.compute_dtype(X.dtype, "X")
    except TypeError as error:
        raise ValueError(f"{file}: {error}") from None


def read_arrays(path: Path) -> dict[str, Array]:
    """Read a .npz file, without pickle."""
    try:
        # Opened here: NumPy leaves a file open that is no archive.
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # else NumPy would take it for a pickle
                raise ValueError("no whole zip archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except _NOT_AN_ARCHIVE as error:
        raise ValueError(f"{path}: not a readable .npz file: {error}") from None


def _map(file: Path) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file}: not a readable .npy file: {error}") from None
    return array
