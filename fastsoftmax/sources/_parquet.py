"""Parquet files as sources of chunks."""

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.stream import read_ahead
from fastsoftmax.reference import Array
from fastsoftmax.sources._chunk_source import ChunkSource, UntakenChunk, select_columns
from fastsoftmax.sources._formats import files_of, named_format
from fastsoftmax.sources._table_rows import Columns

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset
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
# pandas' name for an index without one, where its metadata have got lost.
_INDEX = re.compile("__index_level_[0-9]+__")


class _File(NamedTuple):
    """A Parquet file, its footer, and its schema with the constants that belong to it.

    ``ends`` has for each row group the number of the row after its last. ``constants`` are the
    columns whose one value stands in the names of the folders (hive partitions).
    """

    path: Path
    footer: Any
    schema: Any
    ends: Array
    constants: dict[str, Any]

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
        stored = [name for name in names if name not in self.constants]
        buffer = min(_BUFFER_BYTES, max(_BUFFERS_BYTES // max(len(stored), 1), 4096))
        options: Any = {"pre_buffer": False, "buffer_size": buffer}
        try:
            with pq.ParquetFile(self.path, metadata=self.footer, **options) as file:
                for batch in file.iter_batches(n_rows, columns=stored, use_threads=True):
                    for name in names:
                        if name in self.constants:
                            column = pa.repeat(self.constants[name], len(batch))
                            batch = batch.append_column(name, column)
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
        self,
        path: Path,
        target: str | None,
        features: list[str] | None,
        chunk_rows: int | None,
        any_name: bool,
    ) -> None:
        self._files = _open_all(path, any_name)
        schema = self._files[0].schema
        index = _index_columns(self._files[0].path, schema)
        columns = select_columns(path, schema.names, target, features, index)
        for file in self._files[1:]:
            _check_schema(file, schema, columns, target)
        self._widths = {name: self._width(schema, name) for name in columns}
        names = [
            name if width is None else f"{name}[{i}]"
            for name, width in self._widths.items()
            for i in range(1 if width is None else width)
        ]
        super().__init__(path, len(names), names, [file.path for file in self._files])
        self.columns, self.target = columns, target
        self._dtype = _common_dtype(self._files[0].path, schema, columns)
        self._rows = self._chunk_rows(chunk_rows, self._dtype.itemsize)
        # Large batches are decoded faster, but small chunks are put side by side faster.
        self._batch_rows = max(self._rows, 2 * self._chunk_rows(None, self._dtype.itemsize))
        if target is not None:
            self._find_classes(
                (file.where(first, first + len(batch)), _to_numpy(batch.column(0)))
                for file in self._files
                for first, batch in file.batches([target], _LABEL_ROWS)
            )

    def _width(self, schema: Any, name: str) -> int | None:
        """Return how many values the lists of a column have, None if it is no column of lists."""
        kind = schema.field(name).type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        if not _is_list(kind):
            return None
        firsts = (batch.column(0) for file in self._files for _, batch in file.batches([name], 1))
        lengths = (pc.list_value_length(column)[0].as_py() for column in firsts)
        return next((length for length in lengths if length is not None), 0)

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
        names = [*self._widths, *([self.target] if labelled and self.target else [])]
        decoded = (
            (file, first, batch)
            for file in self._files
            for first, batch in file.batches(names, self._batch_rows)
        )
        with contextlib.closing(read_ahead(decoded, _AHEAD)) as batches:
            for file, first, batch in batches:
                columns = Columns(self._features(file, first, batch), dtype)
                labels = _to_numpy(batch.column(len(self._widths))) if labelled else None
                for start in range(0, len(batch), rows):
                    part = range(start, min(start + rows, len(batch)))
                    where = file.where(first + part.start, first + part.stop)
                    take = functools.partial(_take, columns, blocks, part)
                    of_part = None if labels is None else labels[part.start : part.stop]
                    yield UntakenChunk(where, len(part), take, of_part)

    def _features(self, file: _File, first: int, batch: Any) -> list[Array]:
        """Return the columns of features of a batch, and refuse missing values."""
        arrays: list[Array] = []
        for (name, width), column in zip(self._widths.items(), batch.columns, strict=False):
            if column.null_count:
                row = first + int(np.flatnonzero(column.is_null())[0])
                raise ValueError(f'{file.where(row, row + 1)}: column "{name}": missing values')
            if width is None:
                arrays.append(_to_numpy(column))
                continue
            where = f'{file.where(first, first + len(batch))}: column "{name}"'
            values = column.flatten()
            if values.null_count:
                raise ValueError(f"{where}: missing values")
            lengths = pc.list_value_length(column).to_numpy()
            if (lengths != width).any():
                other = lengths[lengths != width][0]
                raise ValueError(f"{where}: expected lists of {width} values, got one of {other}")
            arrays.extend(_to_numpy(values).reshape(-1, width).T)
        return arrays


def _take(columns: Columns, blocks: Iterator[Array], rows: range, numbers: Array | None) -> Array:
    """Write these rows of the columns, or some of them, into the next block."""
    block, n_rows = next(blocks), len(rows)
    places = np.arange(n_rows)
    if numbers is not None:
        # Leaving rows out while writing costs more than giving them all one place at the end.
        n_rows = len(numbers)
        places[:] = len(block) - 1
        places[numbers] = np.arange(n_rows)
    columns.interleave(rows.start, places, block)
    return block[:n_rows]


def _open_all(path: Path, any_name: bool) -> list[_File]:
    """Read the footers of a file, or of all files of a folder and the constants it names."""
    if not path.is_dir():
        return [_open(path, {})]
    paths = files_of(path)
    if not paths:
        raise ValueError(f"{path}: expected Parquet files, found none")
    others = [file for file in paths if named_format(file) != "parquet"]
    if others and not any_name:
        raise ValueError(
            f"{path}: expected Parquet files only, got {others[0].relative_to(path)}: remove it, "
            'begin its name with "_" to have it ignored, or give the format "parquet" to all files'
        )
    if not any("=" in part for file in paths for part in file.relative_to(path).parts[:-1]):
        return [_open(file, {}) for file in paths]
    try:
        dataset = pyarrow.dataset.dataset(
            [str(file) for file in paths],
            format="parquet",
            partitioning="hive",
            partition_base_dir=str(path),
        )
        values = [
            pyarrow.dataset.get_partition_keys(fragment.partition_expression)
            for fragment in dataset.get_fragments()
        ]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a folder of Parquet files: {error}") from None
    types = {name: dataset.schema.field(name).type for keys in values for name in keys}
    return [
        _open(file, {name: pa.scalar(keys.get(name), kind) for name, kind in types.items()})
        for file, keys in zip(paths, values, strict=True)
    ]


def _open(path: Path, constants: dict[str, Any]) -> _File:
    """Read the footer of a file."""
    try:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from None
    for name, value in constants.items():
        schema = schema.append(pa.field(name, value.type))
    sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    return _File(path, footer, schema, np.cumsum(sizes), constants)


def _index_columns(path: Path, schema: Any) -> Callable[[str], bool]:
    """Return a function that tells columns that pandas wrote of an index."""
    try:
        columns = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        index = {column for column in columns if isinstance(column, str)}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{path}: damaged metadata of pandas") from None
    return lambda name: name in index or _INDEX.fullmatch(name) is not None


def _check_schema(file: _File, expected: Any, columns: list[str], target: str | None) -> None:
    """Refuse a file whose columns differ from those of the first one."""
    path, schema = file.path, file.schema
    for name in columns if target is None else [*columns, target]:
        if schema.names.count(name) != 1:
            what = "more than one" if name in schema.names else "no"
            raise ValueError(f'{path}: {what} column "{name}", which other files have')
        want, got = expected.field(name).type, schema.field(name).type
        same = _label_kind(want) == _label_kind(got) if name == target else want == got
        if not same:
            raise ValueError(f'{path}: column "{name}": expected {want} as before, got {got}')


def _label_kind(kind: Any) -> str:
    """Return what labels of a type are, whatever their size and encoding."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for name in ("integer", "floating", "string", "large_string"):
        if getattr(pa.types, f"is_{name}")(kind):
            return name.removeprefix("large_")
    return "string" if str(kind) == "string_view" else str(kind)


def _is_list(kind: Any) -> bool:
    """Whether a column's values are lists."""
    types = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_such(kind) for is_such in types)


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
        kind = kind.value_type if _is_list(kind) else kind
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        if not any(is_such(kind) for is_such in numeric):
            raise ValueError(
                f'{path}: column "{name}": expected numbers, got {schema.field(name).type}: '
                "choose other columns as features"
            )
        dtypes.add(np.dtype(kind.to_pandas_dtype()))
    if len(dtypes) == 1:
        return dtypes.pop()
    return max((validate.compute_dtype(d, "X") for d in dtypes), key=lambda d: d.itemsize)
