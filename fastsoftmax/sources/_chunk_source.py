"""The base class of sources: chunk sizes, codes of labels, checks of values, random splits."""

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import stack
from fastsoftmax.reference import Array
from fastsoftmax.sources import _labels
from fastsoftmax.sources._columns import ALLOW_MISSING

# Two chunks are alive at a time, beside what a reader needs to decode one.
_CHUNK_BYTES = 16 << 20
# The rows of a chunk are a multiple of this, so that any kernel's blocks lie whole in one chunk.
_MIN_ROWS = 1024


class UntakenChunk(NamedTuple):
    """A chunk as a reader yields it, before its rows are taken.

    ``where`` names the file and the rows in error messages. ``take(None)`` returns the features of
    all ``n_rows`` rows, ``take(numbers)`` those of the rows with these numbers in the chunk. Labels
    are as the file has them, or None where the reader was asked for none; ``weight`` has the rows'
    weights, if there are any.
    """

    where: str
    n_rows: int
    take: Callable[[Array | None], Any]
    labels: Array | None
    weight: Array | None = None

    @classmethod
    def of_matrix(
        cls, where: str, X: Any, labels: Array | None, weight: Array | None = None
    ) -> Self:
        """Return a chunk whose features are an array or a CSR matrix already."""
        return cls(where, X.shape[0], lambda rows: X if rows is None else X[rows], labels, weight)


class ChunkSource:
    """Labelled rows, usually on disk, that are streamed in chunks.

    `open_source` returns one. Each call of it begins a new pass over the rows.

    Attributes
    ----------
    path : Path
        The file or directory of the rows.
    n_rows : int
        Number of rows; 0 if the source was opened without labels.
    n_features : int
        Number of columns of X.
    feature_names : list of str or None
        Names of the columns of X, if the file has names.
    target, weight : str or None
        Names of the columns of the labels and of the weights of rows, if there are any.
    classes : ndarray of shape (n_classes,)
        The distinct labels, sorted, unless `use_classes` was called; a code is an index into them.
    zero_based : bool or None
        Whether the columns of an svmlight file are counted from 0; None for other files.
    dtype : dtype or None
        Set it to have chunks converted to it; None leaves them the dtype of the file.
    digest : tuple of int
        Checksums of the features and of the codes; empty until the first pass is complete.

    Raises
    ------
    ValueError
        In any pass, if a file is damaged, or has changed since it was opened.

    Examples
    --------
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from fastsoftmax.sources import ArraySource
    >>> X, y = np.arange(10.0).reshape(5, 2), np.array(["no", "yes", "yes", "no", "yes"])
    >>> source = ArraySource(Path("memory"), X, y, chunk_rows=3)
    >>> [(X.shape, codes.tolist()) for X, codes in source()]
    [((3, 2), [0, 1, 1]), ((2, 2), [0, 1])]
    >>> rest, drawn = source.split(0.4, seed=1)
    >>> rest.n_rows, drawn.load()[1].tolist()
    (3, ['yes', 'yes'])
    """

    zero_based: bool | None = None

    def __init__(
        self, path: Path, n_features: int, names: list[str] | None, files: list[Path] | None = None
    ) -> None:
        self.path, self.n_features, self.feature_names = path, n_features, names
        self.n_rows = 0
        self.target: str | None = None
        self.weight: str | None = None
        self.classes: Array = np.empty(0)
        self.digest: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] | None = None
        self._found: Array = np.empty(0)  # the distinct labels as the file has them, sorted
        self._codes: Array | None = None  # of each of them, where it is not its index
        # Of each split its seed, threshold and side; or the rows that were chosen, all of them.
        self._sides: list[tuple[Any, int, bool] | Array] = []
        self._total = 0  # number of rows of which these are one side
        self._stamps = {file: _stamp(file) for file in ([path] if files is None else files)}

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return list(self._stamps)

    @property
    def n_bytes(self) -> int:
        """About how much memory all rows would take."""
        return self.n_rows * self.n_features * np.dtype(np.float64).itemsize

    def __call__(self) -> Iterator[Any]:
        """Stream all rows and the codes of their labels, and their weights if there are any.

        Features are checked to be finite until the first pass is complete, labels in every pass.

        Yields
        ------
        X : ndarray or CSR matrix of shape (rows of the chunk, n_features)
            Valid until the next chunk but one is asked for, which may be written over it.
        codes : ndarray of shape (rows of the chunk,)
            Indices into ``classes``.
        sample_weight : ndarray of shape (rows of the chunk,)
            Only where the source has weights.
        """
        sums = (0, 0)
        for where, X, labels, weight in self._pass(labelled=True):
            codes = self.encode_labels(where, labels)
            rest = () if weight is None else (weight,)
            if not self.digest:
                _check_finite(where, X, self.feature_names)
                if weight is not None and not weight.min() >= 0:
                    column = f'column "{self.weight}": ' if self.weight else ""
                    raise ValueError(f"{where}: {column}expected weights >= 0, got {weight.min()}")
                of_rows = zlib.crc32(codes.astype(np.int64).data, sums[1])
                for array in rest:
                    of_rows = zlib.crc32(np.ascontiguousarray(array).data, of_rows)
                sums = _checksum(X, sums[0]), of_rows
            yield X, codes, *rest
        self.digest = self.digest or sums

    def encode_labels(self, where: str, labels: Array) -> Array:
        """Return the codes of labels as the file has them."""
        codes = self._index(where, labels)
        if codes is None:
            raise ValueError(f"{where}: labels that were not there when the source was opened")
        return codes if self._codes is None else self._codes[codes]

    def features(self) -> Iterator[Any]:
        """Stream the features of all rows, without their labels.

        Yields
        ------
        X : ndarray or CSR matrix of shape (rows of the chunk, n_features)
            Checked to be finite; valid until the next chunk but one is asked for.
        """
        for where, X, *_ in self._pass(labelled=False):
            _check_finite(where, X, self.feature_names)
            yield X

    def load(self) -> Any:
        """Read all rows into memory.

        Returns
        -------
        X : ndarray in C order, or CSR matrix, of shape (n_rows, n_features)
            The features.
        y : ndarray of shape (n_rows,)
            The labels themselves, not their codes.
        sample_weight : ndarray of shape (n_rows,)
            Only where the source has weights.
        """
        if self._codes is not None and (self._codes < 0).any():
            raise ValueError(f"{self.path}: labels that are not among the classes")
        chunks = ((X.copy(), *rest) for X, *rest in self())
        matrices, codes, *weights = zip(*chunks, strict=True)
        y = self.classes[np.concatenate(codes)]
        return stack(matrices), y, *(np.concatenate(weight) for weight in weights)

    def use_classes(self, classes: Any) -> Array:
        """Have codes be indices into these classes, for example those of a model.

        Labels are read in the type of the classes: the number 1 is the text "1" where classes are
        text, True is 1 where they are numbers, and so on.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            The classes, in any order; they become the attribute ``classes``.

        Returns
        -------
        ndarray
            The labels of the file that are not among them, whose code is -1.

        Raises
        ------
        ValueError
            If no label is among the classes, or if two classes are one as labels of this file.
        """
        classes = _labels.as_labels("classes", np.asarray(classes))
        with validate.naming(str(self.path)):
            codes = _labels.match_labels(self._found, classes)
            if (codes < 0).all():
                wanted, got = _labels.describe(classes), _labels.describe(self._found)
                raise ValueError(f"expected labels that are {wanted}, got {got}")
        self.classes, self._codes = classes, codes
        return self._found[codes < 0]

    def split(self, fraction: float, seed: int = 0) -> tuple[Self, Self]:
        """Split the rows at random; nothing is stored for it.

        Parameters
        ----------
        fraction : float
            Fraction of the rows that the second source has, between 0 and 1. It is met only
            approximately, because each row is drawn by itself.
        seed : int, default 0
            Seed of the draws: the same seed gives the same rows.

        Returns
        -------
        rest, drawn : ChunkSource
            Sources of disjoint rows that together are all rows.

        Raises
        ------
        ValueError
            If ``fraction`` is not between 0 and 1, or one of the sources would have no rows.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
        step, total = 1 << 20, self._total or self.n_rows
        # A side is split by other draws than those that made it.
        key = [seed, len(self._sides)] if self._sides else seed
        sources = copy.copy(self), copy.copy(self)
        for source, drawn in zip(sources, (False, True), strict=True):
            source.digest, source._total = (), total
            source._sides = [*self._sides, (key, int(fraction * 2**64), drawn)]
            source.n_rows = sum(
                len(source._numbers(first, min(step, total - first)))
                for first in range(0, total, step)
            )
            if source.n_rows == 0:
                raise ValueError(f"{self.path}: {self.n_rows} rows are too few to split")
        return sources

    def choose(self, rows: Array) -> Self:
        """Return a source of some rows.

        Parameters
        ----------
        rows : ndarray of int
            Their numbers, in any order; the rows keep theirs.

        Returns
        -------
        ChunkSource
            The source of these rows.
        """
        source, chosen = copy.copy(self), np.zeros(self.n_rows, bool)
        if self._sides:
            raise ValueError("expected a source that was not split")
        chosen[rows] = True
        source.digest, source._total, source._sides = (), self.n_rows, [chosen]
        source.n_rows = int(chosen.sum())
        return source

    def _pass(self, labelled: bool) -> Iterator[tuple[str, Any, Any, Any]]:
        """Yield where each chunk comes from, its X, labels and weights, on this side of a split."""
        for where, X, labels, weight in self._taken(self._read(labelled)):
            if self.dtype is not None:
                with np.errstate(over="ignore"):  # what overflows is found to be infinite later
                    X = X.astype(self.dtype, copy=False)
            yield where, X, labels, weight

    def _taken(self, chunks: Iterable[UntakenChunk]) -> Iterator[tuple[str, Any, Any, Any]]:
        """Take the rows of chunks that are on this side of a split."""
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise ValueError(f"{file}: changed since it was opened")
        first = 0
        for where, n_rows, take, *rest in chunks:
            numbers = None
            if self._sides:
                numbers = self._numbers(first, n_rows)
                rest = [None if array is None else array[numbers] for array in rest]
            first += n_rows
            if (n_rows if numbers is None else len(numbers)) > 0:
                yield where, take(numbers), *rest

    def _numbers(self, first: int, n_rows: int) -> Array:
        """Return which of the rows from ``first`` on are on this side of all splits."""
        # A seed and a row's number alone decide; the probability is threshold / 2^64.
        kept = np.ones(n_rows, bool)
        for side in self._sides:
            if isinstance(side, np.ndarray):
                kept &= side[first : first + n_rows]
                continue
            seed, threshold, drawn = side
            numbers = np.random.PCG64(seed).advance(first).random_raw(n_rows)
            kept &= (numbers < threshold) == drawn
        return np.flatnonzero(kept)

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        """Yield all rows of the files, with or without their labels."""
        raise NotImplementedError

    def _chunk_rows(self, chunk_rows: int | None, bytes_per_row: int) -> int:
        """Return ``chunk_rows``, or where that is None as many rows as fill the usual size."""
        if chunk_rows is None:
            return max(_CHUNK_BYTES // max(bytes_per_row, 1) // _MIN_ROWS, 1) * _MIN_ROWS
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
        return int(chunk_rows)

    def _find_classes(self, chunks: Iterable[tuple[str, Array]]) -> None:
        """Set ``n_rows`` and ``classes`` from all labels; each chunk says where they come from."""
        found: Array | None = None
        for where, labels in chunks:
            labels = _labels.as_labels(where, labels)
            self.n_rows += len(labels)
            if len(labels):
                labels = np.unique(labels)
                found = labels if found is None else _labels.merge_labels(where, found, labels)
        if found is None:
            raise ValueError(f"{self.path}: no rows")
        self.classes = self._found = _labels.whole_as_integers(found)

    def _index(self, where: str, labels: Array) -> Array | None:
        """Return the index of each label among those found, None if one is not there."""
        return _labels.index_among(_labels.as_labels(where, labels), self._found)


def _stamp(file: Path) -> tuple[int, int]:
    """Return the size and the time of the last change of a file."""
    try:
        status = file.stat()
    except OSError as error:
        raise ValueError(f"{file}: not readable: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _checksum(X: Any, start: int) -> int:
    """Continue a CRC-32 with these features, in a tenth of the time that reading them takes."""
    arrays = (np.diff(X.indptr), X.indices, X.data) if hasattr(X, "tocsr") else (X,)
    for array in arrays:
        start = zlib.crc32(np.ascontiguousarray(array).data, start)
    return start


def _check_finite(where: str, X: Any, names: list[str] | None) -> None:
    """Refuse features that are NaN or infinite, and name the first."""
    values = X.data if hasattr(X, "tocsr") else X
    # A finite sum in float64 has finite terms only. Where it is not, it may have overflowed.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = values.dtype.kind != "f" or np.isfinite(values.sum(dtype=np.float64))
    if finite or np.isfinite(values).all():
        return
    place = tuple(np.argwhere(~np.isfinite(values))[0])
    value = values[place]
    if len(place) == 1 and not names:  # of svmlight files, whose columns are counted from 0 or 1
        raise ValueError(f"{where}: NaN or infinite values in {values.dtype}")
    if len(place) == 1:  # an entry of a CSR matrix
        place = int(np.searchsorted(X.indptr, place[0], side="right")) - 1, X.indices[place]
    row, column = place
    name = f'column "{names[column]}"' if names else f"column {column}"
    hint = f": {ALLOW_MISSING}" if names and np.isnan(value) else ""
    raise ValueError(
        f"{where}: {name}: NaN or infinite in {values.dtype}, in row {row} of the chunk{hint}"
    )
