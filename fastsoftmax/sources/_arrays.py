"""NumPy's files, and arrays in memory, as sources of chunks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastsoftmax._evaluation import validate
from fastsoftmax.reference import Array
from fastsoftmax.sources._archives import Header, list_arrays, map_array, read_arrays, read_headers
from fastsoftmax.sources._chunk_source import ChunkSource, UntakenChunk


class NpySource(ChunkSource):
    """Pairs of .npy files, of which the rows of a chunk are mapped into memory at a time."""

    def __init__(self, path: Path, chunk_rows: int | None, labelled: bool) -> None:
        self._pairs = _find_pairs(path, labelled)
        first = map_array(self._pairs[0][0])
        for X_file, y_file in self._pairs:
            X, y = map_array(X_file), None if y_file is None else map_array(y_file)
            _check(str(X_file), X, str(y_file), y)
            if X.shape[1] != first.shape[1] or X.dtype != first.dtype:
                raise ValueError(
                    f"{X_file}: expected {first.dtype} of shape (N, {first.shape[1]}), got "
                    f"{X.dtype} {X.shape}"
                )
        files = [file for pair in self._pairs for file in pair if file is not None]
        super().__init__(path, first.shape[1], None, files)
        self._rows = self._chunk_rows(chunk_rows, first.shape[1] * first.itemsize)
        if labelled:
            self._find_classes(
                (str(y_file), map_array(y_file)) for _, y_file in self._pairs if y_file
            )

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        for X_file, y_file in self._pairs:
            for start in range(0, len(map_array(X_file)), self._rows):
                # Mapped anew each time: pages of a mapping that lived on would count as memory.
                y = map_array(y_file) if labelled and y_file is not None else None
                chunk = _chunk(X_file, map_array(X_file), y, start, self._rows)
                X = chunk.take(None)
                X[:: max(4096 // max(X.strides[0], 1), 1)].sum()  # read each page from disk now
                yield chunk


class ArraySource(ChunkSource):
    """Rows in memory as a source; see `ChunkSource` for what it can do, and for an example.

    Parameters
    ----------
    path : Path
        Where the rows come from; it begins the error messages.
    X : ndarray or CSR matrix of shape (n_rows, n_features)
        The features, kept as the attribute ``X``.
    y : ndarray of shape (n_rows,) or None
        The labels, kept as the attribute ``y``.
    sample_weight : ndarray of shape (n_rows,), optional
        Weights of the rows, kept as the attribute ``sample_weight``.
    feature_names : list of str, optional
        Names of the columns of X.
    files : list of Path, optional
        The files that the rows were read from, which must not change.
    chunk_rows : int, optional
        Rows of a chunk at most; by default what fills 16 MiB.

    Raises
    ------
    ValueError
        If labels are missing, or there are no rows.
    """

    def __init__(
        self,
        path: Path,
        X: Any,
        y: Array | None,
        sample_weight: Array | None = None,
        *,
        feature_names: list[str] | None = None,
        files: list[Path] | None = None,
        chunk_rows: int | None = None,
    ) -> None:
        super().__init__(path, X.shape[1], feature_names, files or [])
        self.X, self.y, self.sample_weight = X, y, sample_weight
        self._rows = self._chunk_rows(chunk_rows, X.shape[1] * X.dtype.itemsize)
        if y is not None:
            self._find_classes([(str(path), y)])

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        for start in range(0, self.X.shape[0], self._rows):
            chunk = _chunk(self.path, self.X, self.y if labelled else None, start, self._rows)
            if labelled and self.sample_weight is not None:
                chunk = chunk._replace(weight=self.sample_weight[start : start + chunk.n_rows])
            yield chunk


def open_npz(path: Path, chunk_rows: int | None, labelled: bool) -> ArraySource:
    """Read the arrays X and y of a .npz file."""
    names = ("X", "y") if labelled else ("X",)
    headers = read_headers(path, names)
    if "X" not in headers:
        raise ValueError(f"{path}: expected an array X, got {list_arrays(path) or 'no arrays'}")
    if labelled and "y" not in headers:
        raise ValueError(f"{path}: no labels: expected them in an array y")
    _check(f"{path}: X", headers["X"], f"{path}: y", headers.get("y"))
    arrays = read_arrays(path, names)
    X, y = arrays["X"], arrays.get("y")
    return ArraySource(path, X, y, files=[path], chunk_rows=chunk_rows)


def _find_pairs(path: Path, labelled: bool) -> list[tuple[Path, Path | None]]:
    """Return the files of features and, where there are to be labels, those of labels."""
    files = sorted([*path.glob("X.npy"), *path.glob("X_*.npy")]) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: expected .parquet files, or X.npy or X_*.npy, found none")
    pairs: list[tuple[Path, Path | None]] = []
    for file in files:
        labels = file.with_name("y" + file.name[1:]) if labelled else None
        if labels is not None and not file.name.startswith("X"):
            raise ValueError(f"{file}: expected a name that starts with X, beside one with y")
        if labels is not None and not labels.is_file():
            raise ValueError(f"{file}: no labels: expected them in {labels.name} beside it")
        pairs.append((file, labels))
    return pairs


def _check(X_name: str, X: Array | Header, y_name: str, y: Array | Header | None) -> None:
    """Refuse features that are no matrix of numbers, and labels that are not as many."""
    if len(X.shape) != 2 or X.shape[1] == 0:
        raise ValueError(f"{X_name}: expected shape (N, D), D not 0, got {X.shape}")
    try:
        validate.compute_dtype(X.dtype, X_name)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if y is not None and y.shape != X.shape[:1]:
        raise ValueError(f"{y_name}: expected shape ({X.shape[0]},), got {y.shape}")


def _chunk(name: Path, X: Any, y: Array | None, start: int, n_rows: int) -> UntakenChunk:
    """Return the chunk of at most ``n_rows`` rows of these arrays that begins at ``start``."""
    rows = slice(start, min(start + n_rows, X.shape[0]))
    where = f"{name}: rows {start} to {rows.stop - 1}"
    return UntakenChunk.of_matrix(where, X[rows], None if y is None else y[rows])
