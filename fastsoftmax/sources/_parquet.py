"""Parquet files as sources of chunks."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.stream import read_ahead
from fastsoftmax.sources._chunk_source import Array, ChunkSource, UntakenChunk, select_columns
from fastsoftmax.sources._table_rows import Columns

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError('reading Parquet needs pip install "fastsoftmax[parquet]"') from error

# A column is read through a buffer of this size. At (2M, 50) in float32 this took 0.13 s of both
# cores. A memory map took 0.16 s, and its pages count as memory of the process until it is closed.
# pyarrow's default reads whole row groups ahead, of 200 MB each.
_BUFFER_BYTES = 64 << 10
# The buffers of all columns together take no more than this, where there are many columns.
_BUFFERS_BYTES = 64 << 20
# Batches that are decoded ahead: at (5M, 50, 10) in float32 on two cores a pass took 0.40 s with 1,
# 0.37 s with 2, and 0.35 s with 3, which is not worth the 32 MiB of a third batch.
_AHEAD = 2
# Rows whose labels are read at a time, when they are read alone.
_LABEL_ROWS = 1 << 18


class _File(NamedTuple):
    """A Parquet file, its footer, and for each row group the number of the row after its last."""

    path: Path
    footer: Any
    ends: Array

    def where(self, first: int, stop: int) -> str:
        """Name the file and the row groups of the rows from ``first`` to before ``stop``."""
        rows = [first, max(stop - 1, first)]
        low, high = np.searchsorted(self.ends[:-1], rows, side="right")
        groups = f"row group {low}" if low == high else f"row groups {low} to {high}"
        return f"{self.path}: {groups}"

    def batches(self, names: list[str], n_rows: int) -> Iterator[tuple[int, Any]]:
        """Decode columns; yield the number of each batch's first row, and about ``n_rows`` rows."""
        # pyarrow's own threads decode, a task for each column and batch. Threads of ours with some
        # columns each took 2.28 s instead of 2.36 for a whole pass, which was not worth their code.
        # Decoding alone took them 1.2 s of both cores; pyarrow's took 1.6 for batches of 20,000
        # rows, 1.3 for large ones. `pyarrow.dataset` would hold many batches in its queues.
        first = 0
        buffer = min(_BUFFER_BYTES, max(_BUFFERS_BYTES // len(names), 4096))
        options: Any = {"pre_buffer": False, "buffer_size": buffer}
        try:
            with pq.ParquetFile(self.path, metadata=self.footer, **options) as file:
                for batch in file.iter_batches(n_rows, columns=names, use_threads=True):
                    yield first, batch.select(names)
                    first += len(batch)
        except (pa.ArrowException, OSError, ValueError) as error:
            where = self.where(first, min(first + n_rows, self.footer.num_rows))
            raise ValueError(f"{where}: not readable: {error}") from None


class ParquetSource(ChunkSource):
    """A Parquet file, or a directory of them in the order of their names.

    A thread has batches decoded ahead, and meanwhile the columns of the batch before are put side
    by side in one of two blocks of rows.
    """

    def __init__(
        self, path: Path, target: str | None, features: list[str] | None, chunk_rows: int | None
    ) -> None:
        paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        self._files = [_open(file) for file in paths]
        schema, *others = (file.footer.schema.to_arrow_schema() for file in self._files)
        names = select_columns(path, schema.names, target, features)
        super().__init__(path, len(names), names, paths)
        self.target = target
        self._dtype = _common_dtype(paths[0], schema, names)
        self._names = names
        for file, other in zip(paths[1:], others, strict=True):
            _check_schema(file, other, schema, names if target is None else [*names, target])
        self._rows = self._chunk_rows(chunk_rows, self._dtype.itemsize)
        # Large batches are decoded faster, but small chunks are put side by side faster.
        self._batch_rows = max(self._rows, 2 * self._chunk_rows(None, self._dtype.itemsize))
        if target is not None:
            self._find_classes(
                (file.where(first, first + len(batch)), _to_numpy(batch.column(0)))
                for file in self._files
                for first, batch in file.batches([target], _LABEL_ROWS)
            )

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        try:
            yield from self._decode(labelled)
        finally:
            # The batches are gone by now. Else 0.1 GB would stay with pyarrow until the next pass.
            pa.default_memory_pool().release_unused()

    def _decode(self, labelled: bool) -> Iterator[UntakenChunk]:
        """Yield the rows of all files."""
        rows = min(self._rows, max(file.footer.num_rows for file in self._files))
        dtype = self.dtype or self._dtype
        # A chunk gets its block when it is taken: one that nobody takes must not use up a block,
        # or the chunk that the caller still reads would be written over.
        blocks = itertools.cycle(np.empty((2, rows + 1, self.n_features), dtype))
        names = [*self._names, self.target] if labelled and self.target else self._names
        decoded = (
            (file, first, batch)
            for file in self._files
            for first, batch in file.batches(names, self._batch_rows)
        )
        with contextlib.closing(read_ahead(decoded, _AHEAD)) as batches:
            for file, first, batch in batches:
                columns = Columns(self._features(file, first, batch), dtype)
                labels = _to_numpy(batch.column(self.n_features)) if labelled else None
                for start in range(0, len(batch), rows):
                    stop = min(start + rows, len(batch))
                    yield UntakenChunk(
                        file.where(first + start, first + stop),
                        stop - start,
                        functools.partial(_take, columns, blocks, start, stop),
                        None if labels is None else labels[start:stop],
                    )

    def _features(self, file: _File, first: int, batch: Any) -> list[Array]:
        """Return the columns of features of a batch, and refuse missing values."""
        columns = batch.columns[: self.n_features]
        for name, column in zip(self._names, columns, strict=True):
            if column.null_count:
                row = first + int(np.flatnonzero(column.is_null())[0])
                raise ValueError(f'{file.where(row, row + 1)}: column "{name}": missing values')
        return [_to_numpy(column) for column in columns]


def _take(
    columns: Columns, blocks: Iterator[Array], start: int, stop: int, numbers: Array | None
) -> Array:
    """Write the rows from ``start`` to ``stop``, or some of them, into the next block."""
    block, n_rows = next(blocks), stop - start
    places = np.arange(n_rows)
    if numbers is not None:
        # Leaving rows out while writing costs more than giving them all one place at the end.
        n_rows = len(numbers)
        places[:] = len(block) - 1
        places[numbers] = np.arange(n_rows)
    columns.interleave(start, places, block)
    return block[:n_rows]


def _open(path: Path) -> _File:
    """Read the footer of a file."""
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from None
    sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    return _File(path, footer, np.cumsum(sizes))


def _check_schema(path: Path, schema: Any, expected: Any, names: list[str]) -> None:
    """Refuse a file whose columns differ from those of the first one."""
    for name in names:
        if name not in schema.names:
            raise ValueError(f'{path}: no column "{name}", which other files have')
        want, got = expected.field(name).type, schema.field(name).type
        if want != got:
            raise ValueError(f'{path}: column "{name}": expected {want} as before, got {got}')


def _to_numpy(column: Any) -> Array:
    """Return a column of a batch as an array, without a copy where its memory allows it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _common_dtype(path: Path, schema: Any, names: list[str]) -> np.dtype[Any]:
    """Return the dtype of all columns if they have one, or the one that is computed in."""
    dtypes: set[np.dtype[Any]] = set()
    for name in names:
        kind = schema.field(name).type
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        if not any(is_such(kind) for is_such in numeric):
            raise ValueError(f'{path}: column "{name}": expected numbers, got {kind}')
        dtypes.add(np.dtype(kind.to_pandas_dtype()))
    if len(dtypes) == 1:
        return dtypes.pop()
    return max((validate.compute_dtype(d, "X") for d in dtypes), key=lambda d: d.itemsize)
