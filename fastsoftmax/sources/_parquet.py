"""Chunks of Parquet files."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.stream import read_ahead
from fastsoftmax.sources._chunk_source import ChunkSource, Rows, rows_per_chunk, select_columns
from fastsoftmax.sources._table_rows import Columns

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError('reading Parquet needs pip install "fastsoftmax[parquet]"') from error

Array = npt.NDArray[Any]

# A column is read through a buffer of this size. At (2M, 50) in float32 this took 0.13 s of both
# cores; a memory map 0.16, whose pages count as memory until it ends; pyarrow's default reads
# whole row groups ahead, 200 MB each.
_BUFFER_BYTES = 64 << 10
_BUFFERS_BYTES = 64 << 20  # all of them
# Batches that each thread decodes ahead. A third one gained nothing.
_AHEAD = 2
# Threads that decode a batch have some columns each, at least so many. pyarrow's own have a task
# for each column and batch: decoding alone, in seconds of both cores, they took 1.6 instead of 1.2
# for batches of 20,000 rows, 1.3 for large ones; a whole pass 2.36 instead of 2.28.
_COLUMNS_OF_A_THREAD = 4
# Rows whose labels are read at a time, when they are read alone.
_LABEL_ROWS = 1 << 18


class _Span(NamedTuple):
    """Row groups that are read together."""

    file: Path
    metadata: Any
    groups: list[int]
    n_rows: int

    def where(self, first: int, stop: int) -> str:
        """File and row groups of some of these rows, for errors."""
        sizes = [self.metadata.row_group(group).num_rows for group in self.groups]
        ends = np.cumsum(sizes)
        low, high = np.searchsorted(ends, [first, max(stop - 1, first)], side="right")
        low, high = (self.groups[min(i, len(ends) - 1)] for i in (low, high))
        name = f"row group {low}" if low == high else f"row groups {low} to {high}"
        return f"{self.file}: {name}"

    @property
    def everywhere(self) -> str:
        """File and row groups of all of these rows."""
        return self.where(0, self.n_rows)


class ParquetSource(ChunkSource):
    """A Parquet file, or a directory of them in the order of their names.

    Row groups are decoded one after the other, small ones together and large ones in batches, by
    threads that have some of the columns each; meanwhile the columns of the batch before are put
    side by side in one of two blocks. `pyarrow.dataset` would hold many batches in its queues.
    """

    def __init__(
        self, path: Path, target: str | None, features: list[str] | None, chunk_rows: int | None
    ) -> None:
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        footers = [(file, _footer(file)) for file in files]
        present = list(footers[0][1].schema.to_arrow_schema().names)
        names = select_columns(path, present, target, features)
        super().__init__(path, len(names), names, files)
        self.target = target
        self._dtype = _common_dtype(files[0], footers[0][1], names)
        for file, metadata in footers[1:]:
            self._check_schema(file, metadata, footers[0][1])
        bytes_a_row = len(names) * self._dtype.itemsize
        self._rows = rows_per_chunk(chunk_rows, bytes_a_row)
        # Decoding larger batches is faster, and interleaving smaller chunks.
        self._decoded_rows = max(self._rows, 2 * rows_per_chunk(None, bytes_a_row))
        self._spans = [
            span for file, footer in footers for span in _spans(file, footer, self._decoded_rows)
        ]
        if target is not None:
            self._find_classes(
                (span.everywhere, _to_numpy(batch.column(0)))
                for span in self._spans
                for batch in _decoded(span, [target], _LABEL_ROWS)
            )

    def _check_schema(self, file: Path, metadata: Any, first: Any) -> None:
        expected, schema = first.schema.to_arrow_schema(), metadata.schema.to_arrow_schema()
        for name in self._columns_with(self.target):
            if name not in schema.names:
                raise ValueError(f'{file}: no column "{name}", which other files have')
            want, got = expected.field(name).type, schema.field(name).type
            if want != got:
                raise ValueError(f'{file}: column "{name}": expected {want} as before, got {got}')

    def _columns_with(self, target: str | None) -> list[str]:
        return [*(self.feature_names or []), *([] if target is None else [target])]

    def _read(self, labelled: bool) -> Iterator[Rows]:
        try:
            yield from self._decode(labelled)
        finally:
            # Or 0.1 GB of it waits for the next pass beside whatever is done until then.
            pa.default_memory_pool().release_unused()

    def _decode(self, labelled: bool) -> Iterator[Rows]:
        rows = min(self._rows, max((span.n_rows for span in self._spans), default=0))
        dtype = self.dtype or self._dtype
        # In turn, as they are taken: a chunk nobody takes must not use up one that is being read.
        blocks = itertools.cycle(np.empty((2, rows + 1, self.n_features), dtype))
        with contextlib.ExitStack() as streams:
            parts = [
                streams.enter_context(contextlib.closing(read_ahead(self._batches(names), _AHEAD)))
                for names in _parts(self._columns_with(self.target if labelled else None))
            ]
            for batches in zip(*parts, strict=True):
                span, first, _ = batches[0]
                arrays = [column for _, _, batch in batches for column in batch.columns]
                columns = Columns(self._features(span, first, arrays), dtype)
                labels = _to_numpy(arrays[-1]) if labelled else None
                for start in range(0, len(arrays[0]), rows):
                    stop = min(start + rows, len(arrays[0]))
                    yield Rows(
                        span.where(first + start, first + stop),
                        stop - start,
                        functools.partial(_take, columns, blocks, start, stop),
                        None if labels is None else labels[start:stop],
                    )

    def _batches(self, names: list[str]) -> Iterator[tuple[_Span, int, Any]]:
        """Give runs of rows of these columns, and the number of the first one in its span."""
        for span in self._spans:
            first = 0
            for batch in _decoded(span, names, self._decoded_rows):
                yield span, first, batch
                first += len(batch)

    def _features(self, span: _Span, first: int, columns: list[Any]) -> list[Array]:
        """Features of a batch, ``first`` being its first row in the span."""
        columns = columns[: self.n_features]
        for name, column in zip(self.feature_names or [], columns, strict=True):
            if column.null_count:
                row = first + int(np.flatnonzero(column.is_null())[0])
                raise ValueError(f'{span.where(row, row + 1)}: column "{name}": missing values')
        return [_to_numpy(column) for column in columns]


def _take(
    columns: Columns, blocks: Iterator[Array], start: int, stop: int, numbers: Array | None
) -> Array:
    """Write rows into the next block: those from ``start`` to ``stop``, or some of them."""
    block, n_rows = next(blocks), stop - start
    places = np.arange(n_rows)
    if numbers is not None:
        # Leaving rows out while writing costs more than giving them all one place at the end.
        places = np.full(n_rows, len(block) - 1)
        n_rows = len(numbers)
        places[numbers] = np.arange(n_rows)
    columns.interleave(start, places, block)
    return block[:n_rows]


def _footer(file: Path) -> Any:
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file}: not a readable Parquet file: {error}") from None


def _spans(file: Path, metadata: Any, chunk_rows: int) -> Iterator[_Span]:
    """Cut a file into runs of row groups of at most ``chunk_rows`` rows, or single larger ones."""
    groups: list[int] = []
    n_rows = 0
    for i in range(metadata.num_row_groups):
        more = metadata.row_group(i).num_rows
        if groups and n_rows + more > chunk_rows:
            yield _Span(file, metadata, groups, n_rows)
            groups, n_rows = [], 0
        groups, n_rows = [*groups, i], n_rows + more
    if n_rows:
        yield _Span(file, metadata, groups, n_rows)


def _parts(names: list[str]) -> list[list[str]]:
    """Cut columns into those of each thread that decodes."""
    n = max(min(pa.cpu_count(), len(names) // _COLUMNS_OF_A_THREAD), 1)
    edges = [i * len(names) // n for i in range(n + 1)]
    return [names[a:b] for a, b in itertools.pairwise(edges)]


def _decoded(span: _Span, names: list[str], batch_rows: int) -> Iterator[Any]:
    """Batches of these columns, in this order, of about ``batch_rows`` rows."""
    share = _BUFFERS_BYTES // (len(names) * pa.cpu_count())
    buffer = min(_BUFFER_BYTES, max(share, 4096))
    options: Any = {"pre_buffer": False, "buffer_size": buffer}
    try:
        with pq.ParquetFile(span.file, metadata=span.metadata, **options) as file:
            if span.n_rows <= batch_rows:
                table = file.read_row_groups(span.groups, columns=names, use_threads=False)
                yield from table.select(names).combine_chunks().to_batches()
                return
            for batch in file.iter_batches(batch_rows, span.groups, names, use_threads=False):
                yield batch.select(names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{span.everywhere}: not readable: {error}") from None


def _to_numpy(column: Any) -> Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column, pa.ChunkedArray):
        array: Array = column.to_numpy()
        return array
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _common_dtype(file: Path, metadata: Any, names: list[str]) -> np.dtype[Any]:
    """Return the dtype of all columns if they have one, or the one that is computed in."""
    schema = metadata.schema.to_arrow_schema()
    dtypes: set[np.dtype[Any]] = set()
    for name in names:
        kind = schema.field(name).type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        ):
            raise ValueError(f'{file}: column "{name}": expected numbers, got {kind}')
        dtypes.add(np.dtype(kind.to_pandas_dtype()))
    if len(dtypes) == 1:
        return dtypes.pop()
    return max((validate.compute_dtype(d, "X") for d in dtypes), key=lambda d: d.itemsize)
