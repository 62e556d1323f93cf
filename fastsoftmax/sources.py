"""Data sets on disk, larger than memory, as sources of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate
from fastsoftmax._chunk_source import ChunkSource, rows_per_chunk

Array = npt.NDArray[Any]

__all__ = ["ChunkSource", "open_source"]

_SVMLIGHT = (".svm", ".svmlight", ".libsvm")


def open_source(
    path: str | Path,
    target: str | None = None,
    features: list[str] | None = None,
    chunk_rows: int | None = None,
) -> ChunkSource:
    r"""Open a data set for `fastsoftmax.SoftmaxObjective.from_chunks`.

    The labels are read once here, for ``classes``; of the features only two chunks are in memory at
    a time.

    Parameters
    ----------
    path : str or Path
        A .parquet file or a directory of them; a .csv file; an svmlight file (.svm, .svmlight,
        .libsvm); X.npy beside y.npy, or a directory with X.npy and y.npy or with pairs X_*.npy and
        y_*.npy.
    target : str, optional
        Column of the labels, in Parquet and CSV files.
    features : list of str, optional
        Columns to read as features, in this order; by default all but the target.
    chunk_rows : int, optional
        Rows of a chunk at most; by default what fills 32 MiB.

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
    if path.suffix in (".parquet", ".pq") or (path.is_dir() and any(path.rglob("*.parquet"))):
        from fastsoftmax._parquet_source import ParquetSource

        return ParquetSource(path, target, features, chunk_rows)
    if path.suffix == ".csv":
        from fastsoftmax._text_sources import CSVSource

        return CSVSource(path, target, features, chunk_rows)
    if target is not None or features is not None:
        raise ValueError(f"{path}: target and features are for files whose columns have names")
    if path.suffix in _SVMLIGHT:
        from fastsoftmax._text_sources import SvmlightSource

        return SvmlightSource(path, chunk_rows)
    if path.suffix == ".npy" or path.is_dir():
        return NpySource(path, chunk_rows)
    raise ValueError(
        f"{path}: expected .parquet, .csv, .npy, {', '.join(_SVMLIGHT)} or a directory of .parquet "
        f'or .npy files, got "{path.suffix}"'
    )


class NpySource(ChunkSource):
    """Pairs of .npy files, mapped into memory piece by piece."""

    def __init__(self, path: Path, chunk_rows: int | None) -> None:
        self._pairs = _find_pairs(path)
        first = _map(self._pairs[0][0])
        for X_file, y_file in self._pairs:
            X, y = _map(X_file), _map(y_file)
            if X.ndim != 2 or X.shape[1] != first.shape[1] or X.dtype != first.dtype:
                raise ValueError(
                    f"{X_file}: expected {first.dtype} of shape (N, {first.shape[-1]}), got "
                    f"{X.dtype} {X.shape}"
                )
            if y.shape != (len(X),):
                raise ValueError(f"{y_file}: expected shape ({len(X)},), got {y.shape}")
        try:
            _validate.compute_dtype(first.dtype, "X")
        except TypeError as error:
            raise ValueError(f"{self._pairs[0][0]}: {error}") from None
        super().__init__(path, first.shape[1], None)
        self._rows = rows_per_chunk(chunk_rows, max(first.shape[1], 1) * first.itemsize)
        self._find_classes((str(y_file), _map(y_file)) for _, y_file in self._pairs)

    def _read(self) -> Iterator[tuple[str, Any, Array]]:
        for X_file, y_file in self._pairs:
            for start in range(0, len(_map(X_file)), self._rows):
                # Mapped anew each time: pages of a mapping that lived on would count as memory.
                rows = slice(start, start + self._rows)
                X, y = _map(X_file)[rows], _map(y_file)[rows]
                X[:: max(4096 // max(X.strides[0], 1), 1)].sum()  # read from disk now, not later
                yield f"{X_file}: rows {start} to {start + len(X) - 1}", X, np.array(y)


def _find_pairs(path: Path) -> list[tuple[Path, Path]]:
    if path.is_dir():
        files = sorted([*path.glob("X.npy"), *path.glob("X_*.npy")])
    else:
        files = [path]
    if not files:
        raise ValueError(f"{path}: expected .parquet files, or X.npy or X_*.npy, found none")
    pairs = [(file, file.with_name("y" + file.name[1:])) for file in files]
    for X_file, y_file in pairs:
        if not X_file.name.startswith("X"):
            raise ValueError(f"{X_file}: expected a name that starts with X, beside one with y")
        if not y_file.is_file():
            raise ValueError(f"{X_file}: no labels: expected them in {y_file.name} beside it")
    return pairs


def _map(file: Path) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file}: not a readable .npy file: {error}") from None
    return array
