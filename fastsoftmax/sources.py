"""Data sets on disk, larger than memory, as sources of chunks."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate
from fastsoftmax._chunk_source import ChunkSource, Rows, rows_per_chunk, taking

Array = npt.NDArray[Any]

__all__ = ["ArraySource", "ChunkSource", "Chunks", "open_source"]

_SVMLIGHT = (".svm", ".svmlight", ".libsvm")
# What NumPy raises over a file that is not a whole .npz archive (a TypeError over a .npy file).
_NOT_AN_ARCHIVE = (ValueError, TypeError, OSError, EOFError, KeyError, AttributeError,
                   zipfile.BadZipFile, zlib.error)  # fmt: skip


class Chunks(NamedTuple):
    """Rows that a function gives chunk by chunk, with what an estimator must know of them.

    Attributes
    ----------
    function : callable
        ``function()`` gives a fresh iterator over chunks (X, codes) or (X, codes, sample_weight);
        see `fastsoftmax.SoftmaxObjective.from_chunks`.
    n_features : int
        D.
    classes : sequence
        The labels, sorted; a code is an index into them.
    feature_names : list of str, optional
        Names of the columns of X.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.linear_model import SoftmaxRegression
    >>> from fastsoftmax.sources import Chunks
    >>> X = np.random.default_rng(0).standard_normal((1000, 3))
    >>> codes = (X[:, 0] > 0).astype(int)
    >>> def read():
    ...     for start in range(0, 1000, 300):
    ...         yield X[start : start + 300], codes[start : start + 300]
    >>> model = SoftmaxRegression().fit(Chunks(read, 3, ["down", "up"]))
    >>> model.predict([[1.0, 0.0, 0.0]]).tolist()
    ['up']
    """

    function: Callable[[], Iterable[Any]]
    n_features: int
    classes: Any
    feature_names: list[str] | None = None

    def __call__(self) -> Iterable[Any]:
        """Give a fresh iterator of chunks."""
        return self.function()


def open_source(
    path: str | Path,
    target: str | None = None,
    features: list[str] | None = None,
    chunk_rows: int | None = None,
    *,
    labelled: bool = True,
) -> ChunkSource:
    r"""Open a data set for `SoftmaxRegression.fit` or `SoftmaxObjective.from_chunks`.

    The labels are read once here, for ``classes``; of the features two chunks are in memory at a
    time, and what it takes to decode the next (of a .npz file all).

    Parameters
    ----------
    path : str or Path
        A .parquet or .pq file, or a directory of .parquet files; a .csv file; an svmlight file
        (.svm, .svmlight, .libsvm); X.npy beside y.npy, or a directory with X.npy and y.npy or with
        pairs X_*.npy and y_*.npy; a .npz file with X and y.
    target : str, optional
        Column of the labels, in Parquet and CSV files.
    features : list of str, optional
        Columns to read as features, in this order; by default all but the target.
    chunk_rows : int, optional
        Rows of a chunk at most; by default what fills 16 MiB.
    labelled : bool, default True
        Whether there are labels. A source without them gives ``features()`` only.

    Returns
    -------
    ChunkSource
        With ``n_rows``, ``n_features``, ``feature_names`` and ``classes``.

    Raises
    ------
    ValueError
        Where a file is not what it claims to be, here or while it is streamed. The message names
        the file, and the row group, rows or lines.
    ImportError
        Without pyarrow, for Parquet.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastsoftmax import SoftmaxObjective
    >>> from fastsoftmax.sources import open_source
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> _ = path.write_text("length,width,kind\n1.5,2,rose\n3,0.5,lily\n2.5,1,lily\n")
    >>> source = open_source(path, target="kind")
    >>> source.n_rows, source.feature_names, source.classes.tolist()
    (3, ['length', 'width'], ['lily', 'rose'])
    >>> obj = SoftmaxObjective.from_chunks(
    ...     source, n_features=source.n_features, n_classes=len(source.classes)
    ... )
    >>> round(obj.value(obj.x0), 4)
    0.6931
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory")
    if has_columns(path):
        if labelled and target is None:
            raise ValueError(f"{path}: no labels: name their column with target")
        target = target if labelled else None
        if path.suffix == ".csv":
            from fastsoftmax._text_sources import CSVSource

            return CSVSource(path, target, features, chunk_rows)
        from fastsoftmax._parquet_source import ParquetSource

        return ParquetSource(path, target, features, chunk_rows)
    if not path.is_dir() and path.suffix not in (*_SVMLIGHT, ".npz", ".npy"):
        raise ValueError(
            f"{path}: expected .parquet, .csv, .npy, .npz, {', '.join(_SVMLIGHT)} or a directory "
            f'of .parquet or .npy files, got "{path.suffix}"'
        )
    if target is not None or features is not None:
        raise ValueError(f"{path}: target and features are for files whose columns have names")
    if path.suffix in _SVMLIGHT:
        from fastsoftmax._text_sources import SvmlightSource

        return SvmlightSource(path, chunk_rows)
    if path.suffix == ".npz":
        return _open_npz(path, chunk_rows, labelled)
    return NpySource(path, chunk_rows, labelled)


def has_columns(path: Path) -> bool:
    """Whether it is a data set whose columns have names, to be read by them."""
    if path.is_dir():
        return any(path.rglob("*.parquet"))
    return path.suffix in (".parquet", ".pq", ".csv")


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


def _open_npz(path: Path, chunk_rows: int | None, labelled: bool) -> ArraySource:
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
        _validate.compute_dtype(X.dtype, "X")
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
