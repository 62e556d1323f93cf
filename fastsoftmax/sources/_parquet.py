"""Parquet files as sources of chunks."""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._evaluation.stream import read_ahead
from fastsoftmax.reference import Array
from fastsoftmax.sources._columns import (
    ALLOW_MISSING,
    Coded,
    Column,
    TableColumns,
    drop_hint,
    refuse_dates,
    select_columns,
)
from fastsoftmax.sources._formats import files_of, named_format
from fastsoftmax.sources._table_source import TableChunk, TableChunks, TableOptions, TableSource

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset
    import pyarrow.parquet as pq

    from fastsoftmax.sources import _arrow as arrow
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

    def batches(
        self, names: list[str], n_rows: int, texts: Sequence[str] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Decode columns; yield the number of each batch's first row, and about ``n_rows`` rows.

        Of ``texts`` the codes are wanted, which the file has as well.
        """
        # pyarrow's own threads decode, a task for each column and batch. Threads of ours with some
        # columns each took 2.28 s instead of 2.36 for a whole pass, which was not worth their code.
        # Decoding alone took them 1.2 s of both cores; pyarrow's took 1.6 for batches of 20,000
        # rows, 1.3 for large ones. `pyarrow.dataset` would hold many batches in its queues.
        first = 0
        stored = [name for name in names if name not in self.constants]
        buffer = min(_BUFFER_BYTES, max(_BUFFERS_BYTES // max(len(stored), 1), 4096))
        options: Any = {"pre_buffer": False, "buffer_size": buffer}
        # A pass over (1M, 6) columns of texts took 0.61 s, of their codes 0.10.
        options["read_dictionary"] = [name for name in texts if self._is_text(name)]
        try:
            with pq.ParquetFile(self.path, metadata=self.footer, **options) as file:
                for batch in file.iter_batches(n_rows, columns=stored, use_threads=True):
                    for column in batch.columns:
                        if pa.types.is_dictionary(column.type):
                            # pyarrow has taken damaged codes as they are.
                            column.validate(full=True)
                    for name in names:
                        if name in self.constants:
                            column = pa.repeat(self.constants[name], len(batch))
                            batch = batch.append_column(name, column)
                    yield first, batch.select(names)
                    first += len(batch)
        except (pa.ArrowException, OSError, ValueError) as error:
            where = self.where(first, min(first + n_rows, self.footer.num_rows))
            raise ValueError(f"{where}: not readable: {error}") from None

    def _is_text(self, name: str) -> bool:
        """Whether a column is stored as texts."""
        return (
            name not in self.constants
            and arrow.label_kind(self.schema.field(name).type) == "string"
        )


class ParquetSource(TableSource):
    """A Parquet file, or a directory of them in the order of their names.

    A thread has batches decoded ahead.
    """

    def __init__(self, path: Path, options: TableOptions, any_name: bool) -> None:
        self._files, known = _open_all(path, any_name), options.columns
        schema = self._files[0].schema
        names = select_columns(
            path,
            schema.names,
            target=options.target,
            weight=options.weight,
            features=options.features if known is None else known.names,
            drop=options.drop,
            left_out=_index_columns(self._files[0].path, schema),
        )
        others = [name for name in (options.target, options.weight) if name is not None]
        for file in self._files[1:]:
            _check_schema(file, schema, names, others)
        found = self._columns_of(self._files[0].path, schema, names)
        columns = found if known is None else _as_known(path, schema, found, known.columns)
        super().__init__(path, columns, options, [file.path for file in self._files])
        self._schema, self._own_dtype = schema, arrow.common_dtype(schema, columns)
        if known is not None:
            self.use_columns(known)
        if self.target is not None:
            self._find_labels(self.target)

    def _find_labels(self, target: str) -> None:
        """Read all labels, and set ``n_rows`` and ``classes``."""
        columns = (
            (file.where(first, first + len(batch)), batch.column(0))
            for file in self._files
            for first, batch in file.batches([target], _LABEL_ROWS, [target])
        )
        if arrow.label_kind(self._files[0].schema.field(target).type) != "string":
            self._find_classes((where, arrow.to_numpy(column)) for where, column in columns)
            return
        texts: dict[str, None] = {}
        for where, column in columns:
            n_missing, some = Coded(*arrow.to_codes(column)).occurring()
            if n_missing:
                raise ValueError(f"{where}: missing labels")
            texts |= dict.fromkeys(some)
            self.n_rows += len(column)
        if not texts:
            raise ValueError(f"{self.path}: no rows")
        self._use_texts(list(texts), np.array(list(texts), str))

    def use_columns(self, columns: TableColumns) -> None:
        """See `TableSource.use_columns`; where a mean is filled in, integers become decimals."""
        super().use_columns(columns)
        self._own_dtype = arrow.common_dtype(self._schema, columns.columns)

    def _columns_of(self, path: Path, schema: Any, names: list[str]) -> list[Column]:
        """Return what the columns of these names are."""
        kinds = {name: schema.field(name).type for name in names}
        refuse_dates(path, [name for name, kind in kinds.items() if pa.types.is_temporal(kind)])
        columns = []
        for name, kind in kinds.items():
            if arrow.is_number(kind.value_type if arrow.is_list(kind) else kind):
                column = Column(name, "list" if arrow.is_list(kind) else "number")
                columns.append(column._replace(width=self._width(kind, name)))
            elif arrow.is_category(kind):
                columns.append(Column(name, "category"))
            else:
                raise ValueError(
                    f'{path}: column "{name}": expected numbers, text or truth values, got {kind}: '
                    f"{drop_hint([name])}"
                )
        return columns

    def _width(self, kind: Any, name: str) -> int:
        """Return how many values the lists of a column have, 1 if it is no column of lists."""
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        if not arrow.is_list(kind):
            return 1
        firsts = (batch.column(0) for file in self._files for _, batch in file.batches([name], 1))
        lengths = (pc.list_value_length(column)[0].as_py() for column in firsts)
        return next((length for length in lengths if length is not None), 0)

    def _read_table(self, columns: Sequence[Column], labelled: bool) -> TableChunks:
        try:
            yield from self._decode(columns, labelled)
        finally:
            # The batches are gone by now. Else 0.1 GB would stay with pyarrow until the next pass.
            pa.default_memory_pool().release_unused()

    def _decode(self, columns: Sequence[Column], labelled: bool) -> TableChunks:
        """Yield the rows of all files."""
        row_bytes = sum(c.width for c in columns) * self._own_dtype.itemsize
        # Large batches are decoded faster, but small chunks are put side by side faster.
        most = self._options.chunk_rows
        n_rows = max(
            most or self._chunk_rows(None, row_bytes), 2 * self._chunk_rows(None, row_bytes)
        )
        names = [column.name for column in columns]
        texts = [column.name for column in columns if column.kind == "category"]
        texts += [self.target] if self.target is not None else []
        others = [name for name in (self.target, self.weight) if labelled and name is not None]
        decoded = (
            (file, first, batch)
            for file in self._files
            for first, batch in file.batches([*names, *others], n_rows, texts)
        )
        with contextlib.closing(read_ahead(decoded, _AHEAD)) as batches:
            for file, first, batch in batches:
                where = functools.partial(_where, file, first)
                arrays = self._arrays(file, first, batch, columns)
                named = dict(zip(others, batch.columns[len(names) :], strict=True))
                labels = self._labels(named[self.target]) if labelled and self.target else None
                weight = arrow.to_weights(where(0, len(batch)), self.weight, named)
                yield TableChunk(where, len(batch), arrays, labels, weight)

    def _labels(self, column: Any) -> Array:
        """Return the labels of a batch, or the indices of those that are texts."""
        if not self._indices:
            return arrow.to_numpy(column)
        return self._indices_of(Coded(*arrow.to_codes(column)))

    def _arrays(
        self, file: _File, first: int, batch: Any, columns: Sequence[Column]
    ) -> list[Array | Coded]:
        """Return columns of a batch, and refuse missing numbers where they may not be."""
        arrays: list[Array | Coded] = []
        learning = self.columns is None and self._options.missing != "error"
        for column, values in zip(columns, batch.columns, strict=False):
            if column.kind == "category":
                arrays.append(Coded.of(*arrow.to_codes(values)))
                continue
            if values.null_count and column.fill is None and not learning:
                row = first + int(np.flatnonzero(values.is_null())[0])
                raise ValueError(
                    f'{file.where(row, row + 1)}: column "{column.name}": missing values: '
                    f"{ALLOW_MISSING}"
                )
            if column.kind == "number":
                arrays.append(arrow.to_numpy(values))
                continue
            where = f'{file.where(first, first + len(batch))}: column "{column.name}"'
            arrays.extend(arrow.list_arrays(where, values, column.width))
        return arrays


def _where(file: _File, start: int, first: int, stop: int) -> str:
    """Name the rows of a batch that begins at row ``start`` of a file."""
    return file.where(start + first, start + stop)


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


def _check_schema(file: _File, expected: Any, columns: list[str], others: list[str]) -> None:
    """Refuse a file whose columns differ from those of the first one."""
    path, schema = file.path, file.schema
    for name in [*columns, *others]:
        if schema.names.count(name) != 1:
            what = "more than one" if name in schema.names else "no"
            raise ValueError(f'{path}: {what} column "{name}", which other files have')
        want, got = expected.field(name).type, schema.field(name).type
        loose = name in others or (arrow.is_category(want) and arrow.is_category(got))
        same = arrow.label_kind(want) == arrow.label_kind(got) if loose else want == got
        if not same:
            raise ValueError(f'{path}: column "{name}": expected {want} as before, got {got}')


def _as_known(
    path: Path, schema: Any, found: list[Column], known: Sequence[Column]
) -> Sequence[Column]:
    """Refuse columns that a model's cannot be: numbers can be read as texts, but not as lists."""
    for got, want in zip(found, known, strict=True):
        kind = schema.field(want.name).type
        expected = {"number": "numbers", "category": "text"}.get(
            want.kind, f"lists of {want.width} values"
        )
        fits = got.kind == want.kind and got.width == want.width
        fits |= want.kind == "category" and got.kind == "number"
        fits |= want.kind == "number" and pa.types.is_boolean(kind)
        if not fits:
            width = f" ({got.width} values)" if got.kind == "list" else ""
            raise ValueError(
                f'{path}: column "{want.name}": expected {expected} as in training, got {kind}'
                f"{width}"
            )
    return known
