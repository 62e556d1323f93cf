"""What tables of all formats have in common: columns that are learned, and made features of."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.reference import Array
from fastsoftmax.sources._chunk_source import ChunkSource, UntakenChunk
from fastsoftmax.sources._columns import Coded, Column, Learner, Missing, TableColumns
from fastsoftmax.sources._encoding import Encoder, Matched, Unseen


class TableOptions(NamedTuple):
    """The arguments of `open_source` that are about columns."""

    target: str | None = None
    features: list[str] | None = None
    drop: list[str] | None = None
    weight: str | None = None
    missing: Missing = "error"
    max_categories: int = 1000
    columns: TableColumns | None = None
    chunk_rows: int | None = None


class TableChunk(NamedTuple):
    """Rows of some columns as a file has them; ``where`` names those from one to before another.

    Columns of lists are several arrays.
    """

    where: Callable[[int, int], str]
    n_rows: int
    arrays: list[Array | Coded]
    labels: Array | None
    weight: Array | None


TableChunks = Generator[TableChunk, None, None]


class TableSource(ChunkSource):
    r"""Rows of a table, whose columns become features.

    `open_source` returns one for CSV, TSV and Parquet files.

    Attributes
    ----------
    columns : TableColumns or None
        How they do; None until that is known: given when the source was opened, or learned.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastsoftmax.sources import open_source
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "visits.csv"
    >>> _ = path.write_text("site,kind\n" + "hill,rose\nlake,lily\n" * 50)
    >>> rest, drawn = open_source(path, "kind", learn=False).split(0.2)
    >>> drawn.use_columns(rest.learn_columns())
    >>> drawn.feature_names
    ['site_hill', 'site_lake']
    """

    columns: TableColumns | None = None

    def __init__(
        self, path: Path, columns: Sequence[Column], options: TableOptions, files: list[Path]
    ) -> None:
        super().__init__(path, 0, None, files)
        self.target, self.weight = options.target, options.weight
        self._given, self._options = list(columns), options
        self._encoder = Encoder(TableColumns(()))
        self._own_dtype = np.dtype(np.float64)
        # Of labels that are read as texts, which are looked up once a chunk and not once a row.
        self._indices: dict[str, int] = {}

    @property
    def unseen(self) -> dict[str, Unseen]:
        """Columns with values that training did not have, in the rows of the last pass."""
        return self._encoder.unseen

    @property
    def n_bytes(self) -> int:
        """See `ChunkSource.n_bytes`."""
        if self.columns is None:
            return self.n_rows * len(self._given) * 2 * np.dtype(np.float64).itemsize
        return self.n_rows * self._bytes_per_row

    @property
    def _bytes_per_row(self) -> int:
        columns, itemsize = self._encoder.columns, np.dtype(np.float64).itemsize
        if columns.is_sparse:
            return columns.n_entries * (itemsize + np.dtype(np.int32).itemsize)
        return columns.n_features * itemsize

    def learn_columns(self) -> TableColumns:
        """Learn the values of columns from all rows of this source, in one pass if any is needed.

        Returns
        -------
        TableColumns
            What was learned, which is also the attribute ``columns``.

        Raises
        ------
        ValueError
            If a column has more values than are allowed, or none although its mean is wanted.
        """
        missing, most = self._options.missing, self._options.max_categories
        learner = Learner(self.path, self._given, missing, most)
        if learner.needed:
            for _, arrays, *_ in self._taken(self._untaken(learner.needed)):
                learner.add(arrays)
        self.use_columns(columns := learner.columns())
        return columns

    def use_columns(self, columns: TableColumns) -> None:
        """Have columns become features as they do in another source.

        Parameters
        ----------
        columns : TableColumns
            The attribute ``columns`` of that source.
        """
        self.columns, self._encoder = columns, Encoder(columns)
        self.n_features, self.feature_names = columns.n_features, columns.feature_names
        self.digest = ()

    def labels(self) -> Array:
        """Read the labels of all rows, and no features.

        Returns
        -------
        ndarray of shape (n_rows,)
            The labels themselves, not their codes.
        """
        chunks = self._taken(self._untaken((), labelled=True))
        codes = [self.encode_labels(where, labels) for where, _, labels, _ in chunks]
        labels: Array = self.classes[np.concatenate(codes)]
        return labels

    def _use_texts(self, texts: Sequence[str], classes: Array) -> None:
        """Take these for the distinct texts of the labels, and what they spell for the classes."""
        # What is matched with a model's classes is the text, which loses nothing.
        self._found, self._indices = np.array(texts, str), {x: i for i, x in enumerate(texts)}
        self.classes, self._codes = np.unique(classes, return_inverse=True)

    def _indices_of(self, labels: Coded) -> Array:
        """Return the index of each label among the texts found, -1 where it is not there."""
        indices = [*(self._indices.get(text, -1) for text in labels.texts), -1]
        return np.array(indices).take(labels.codes)

    def _index(self, where: str, labels: Array) -> Array | None:
        """Return the index of each label among those found, None if one is not there."""
        if not self._indices:
            return super()._index(where, labels)
        return None if labels.min(initial=0) < 0 else labels

    def _read_table(self, columns: Sequence[Column], labelled: bool) -> TableChunks:
        """Yield all rows of some columns, with or without their labels and weights."""
        raise NotImplementedError

    def _untaken(self, columns: Sequence[Column], labelled: bool = False) -> Iterator[UntakenChunk]:
        """Yield chunks that are arrays of these columns."""
        for where, n_rows, arrays, labels, _ in self._read_table(columns, labelled):
            take = functools.partial(_rows_of, arrays)
            yield UntakenChunk(where(0, n_rows), n_rows, take, labels)

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        encoder, columns = self._encoder, self._encoder.columns
        encoder.unseen = {}
        rows = self._chunk_rows(self._options.chunk_rows, self._bytes_per_row)
        dtype = self.dtype or self._own_dtype
        blocks = [_Blocks(columns.n_features, dtype)]
        if columns.is_sparse:
            kinds = np.dtype(np.int32), dtype
            blocks = [_Blocks(columns.n_entries, kind) for kind in kinds]
        with contextlib.closing(self._read_table(columns.columns, labelled)) as chunks:
            for where, n_rows, arrays, labels, weight in chunks:
                matched = encoder.match(arrays)
                for first in range(0, n_rows, rows):
                    part = slice(first, min(first + rows, n_rows))
                    # A chunk gets its block when it is taken: one that nobody takes must not use
                    # up a block, or the chunk that the caller still reads would be written over.
                    take = functools.partial(_take, matched, part, blocks)
                    of_rows = (None if x is None else x[part] for x in (labels, weight))
                    yield UntakenChunk(
                        where(part.start, part.stop), part.stop - first, take, *of_rows
                    )


class _Blocks:
    """Two blocks of rows that are filled in turn, with a row to spare."""

    def __init__(self, n_columns: int, dtype: np.dtype[Any]) -> None:
        self._blocks = [np.empty((0, n_columns), dtype)] * 2
        self._turns = itertools.cycle((0, 1))

    def next(self, n_rows: int) -> Array:
        """Return a block of so many rows and one more."""
        turn = next(self._turns)
        if len(block := self._blocks[turn]) < n_rows + 1:
            self._blocks[turn] = np.empty((n_rows + 1, block.shape[1]), block.dtype)
        return self._blocks[turn][: n_rows + 1]


def _take(matched: Matched, part: slice, blocks: list[_Blocks], numbers: Array | None) -> Any:
    """Return some or all rows of a part of a chunk as features."""
    rows = np.arange(part.stop - part.start) if numbers is None else numbers
    filled = [of_chunks.next(len(rows)) for of_chunks in blocks]
    if len(filled) > 1:
        return matched.sparse(part.start, rows, *filled)
    matched.dense(part.start, rows, filled[0])
    return filled[0][:-1]


def _rows_of(arrays: list[Array | Coded], numbers: Array | None) -> list[Array | Coded]:
    """Return some or all rows of columns."""
    if numbers is None:
        return arrays
    return [
        array._replace(codes=array.codes[numbers]) if isinstance(array, Coded) else array[numbers]
        for array in arrays
    ]
