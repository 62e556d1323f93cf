"""CSV and svmlight files as sources of chunks."""

import contextlib
import functools
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_svmlight_file

from fastsoftmax.reference import Array
from fastsoftmax.sources._chunk_source import ChunkSource, UntakenChunk
from fastsoftmax.sources._columns import ALLOW_MISSING, Coded, Column, select_columns
from fastsoftmax.sources._formats import open_bytes, reading
from fastsoftmax.sources._labels import typed
from fastsoftmax.sources._table_source import TableChunk, TableChunks, TableOptions, TableSource

# Text of a chunk of an svmlight file, unless its number of rows is given.
_SVMLIGHT_BYTES = 8 << 20
# svmlight's labels are read as decimals, which do not tell whole numbers beyond this apart.
_MAX_LABEL = 2**53
# pandas' name for a column without one, which its index and R's row names are.
_NAMELESS = re.compile(r"Unnamed: [0-9]+(_level_[0-9]+)?")


class CSVSource(TableSource):
    """A CSV file with a header, read by pandas; features become float64."""

    def __init__(self, path: Path, options: TableOptions, separator: str) -> None:
        self._separator, known = separator, options.columns
        present = _header(path, separator, [] if known is None else known.names)
        names = select_columns(
            path,
            present,
            target=options.target,
            weight=options.weight,
            features=options.features if known is None else known.names,
            drop=options.drop,
            left_out=_NAMELESS.fullmatch,
        )
        columns = [Column(name, "number") for name in names] if known is None else known.columns
        for column in columns:
            if column.kind == "list":
                raise ValueError(
                    f'{path}: column "{column.name}": expected lists of {column.width} values, as '
                    "Parquet files have"
                )
        super().__init__(path, columns, options, [path])
        self._is_checked, self._always_text = False, set[str]()
        # A chunk of numbers fills the usual size; text takes some times as much.
        self._frame_rows = self._chunk_rows(options.chunk_rows, 8 * len(present))
        if known is not None:
            self.use_columns(known)
        if known is None or self.target is not None:
            self._check()

    def _check(self) -> None:
        """Read the whole file once: all labels, and what the columns are."""
        labels: dict[str, None] = {}  # in the order of their first rows
        # A model's columns are of the kind that it says, whatever pandas would make of a chunk.
        known = () if self.columns is None else self.columns.columns
        # Columns that are text or truth values in any chunk; and beyond doubt text in each one.
        texts, always = set[str](), {column.name for column in self._given}
        # pandas finds lines too long only if it reads all columns.
        for frame in self._frames(None, known):
            if self.target is not None:
                labels |= dict.fromkeys(self._labels(frame).texts)
            if not known:
                kinds = frame.dtypes.map(lambda dtype: dtype.kind)
                found = {name for name in frame if kinds[name] not in "iuf"}
                plain = {name for name in found & always if _begins_with_text(frame[name])}
                texts, always = texts | found, plain
            self.n_rows += len(frame)
        self._is_checked = True
        if not known:
            self._always_text = always
            self._given = [
                column._replace(kind="category") if column.name in texts else column
                for column in self._given
            ]
        if self.target is None:
            return
        if self.n_rows == 0:
            raise ValueError(f"{self.path}: no rows")
        self._use_texts(list(labels), typed(list(labels)))

    def _frames(self, names: list[Any] | None, columns: Sequence[Column]) -> Iterator[pd.DataFrame]:
        """Yield a frame of each chunk with the columns of these names, or with all."""
        # Labels stay strings until all are known: only then is it clear whether they are numbers.
        dtype: Any = {} if self.target is None else {self.target: str}
        # pandas' own categories take two thirds of the time, but where all of a chunk's are numbers
        # it makes numbers of them: "01" and "1" would be the same.
        dtype |= {
            column.name: "category" if column.name in self._always_text else str
            for column in columns
            if column.kind == "category"
        }
        options: Any = {"usecols": names, "dtype": dtype, "chunksize": self._frame_rows}
        # By default a chunk is parsed in pieces, and a column may be numbers in one of them only.
        options |= {"sep": self._separator, "index_col": False, "low_memory": False}
        with (
            reading(self.path, "a CSV file"),
            _opened(self.path) as file,
            pd.read_csv(file, **options) as reader,
        ):
            yield from (frame for frame in reader if len(frame))

    def _labels(self, frame: pd.DataFrame) -> Coded:
        """Return the labels as codes of strings, and refuse missing ones."""
        labels = _coded(frame[self.target])
        missing = frame.index[labels.codes < 0]
        if len(missing):
            raise ValueError(f"{self.path}: row {missing[0] + 1}: missing label")
        return labels

    def _read_table(self, columns: Sequence[Column], labelled: bool) -> TableChunks:
        others = [name for name in (self.target, self.weight) if labelled and name is not None]
        names = [*(column.name for column in columns), *others] if self._is_checked else None
        for frame in self._frames(names, columns):
            where = functools.partial(_where, self.path, int(frame.index[0]))
            arrays = [self._array_of(frame, column) for column in columns]
            labels = self._indices_of(self._labels(frame)) if labelled and self.target else None
            weight = self._numbers_of(frame, self.weight) if labelled and self.weight else None
            yield TableChunk(where, len(frame), arrays, labels, weight)

    def _array_of(self, frame: pd.DataFrame, column: Column) -> Array | Coded:
        """Return a column of features."""
        if column.kind == "category":
            codes, texts = _coded(frame[column.name])
            return Coded.of(codes, texts)
        learning = self.columns is None and self._options.missing != "error"
        return self._numbers_of(frame, column.name, learning or column.fill is not None)

    def _numbers_of(self, frame: pd.DataFrame, name: str, may_miss: bool = False) -> Array:
        """Return a column of numbers, and refuse what is no finite number."""
        column = frame[name]
        numeric = column.dtype.kind in "fiub"
        values: Array = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        wrong = np.isinf(values) if may_miss else ~np.isfinite(values)
        if not numeric:
            wrong = np.isnan(values) & column.notna().to_numpy()
        if wrong.any() or not (numeric or column.isna().all()):
            first = int(np.argmax(wrong))
            row = f"in row {frame.index[first] + 1}"
            what = f"missing or infinite value {row}"
            if not numeric:
                what = f'expected numbers, got "{column.iloc[first]}" {row}'
            elif np.isnan(values[first]):
                what += f": {ALLOW_MISSING}"
            raise ValueError(f'{self.path}: column "{name}": {what}')
        return values


def _begins_with_text(column: Any) -> bool:
    """Whether the first value that is not missing is neither a number nor a truth value."""
    row = column.first_valid_index()
    first = None if row is None else column[row]
    if not isinstance(first, str) or first.strip().lower() in ("true", "false"):
        return False
    try:
        float(first)
    except ValueError:
        return True
    return False


def _coded(column: Any) -> Coded:
    """Return a column of strings as codes."""
    if column.dtype == "category":
        return Coded(column.cat.codes.to_numpy(), column.cat.categories.tolist())
    codes, texts = pd.factorize(column)
    return Coded(codes, texts.tolist())


def _where(path: Path, start: int, first: int, stop: int) -> str:
    """Name the rows of a chunk that begins at row ``start``, counted from 0, of a file."""
    return f"{path}: rows {start + first + 1} to {start + stop}"


def _opened(path: Path) -> Any:
    """Open a CSV file for pandas, which reads archives of one file by itself."""
    zipped = path.suffix.lower() == ".zip"
    return contextlib.nullcontext(path) if zipped else open_bytes(path, "rb")


def _header(path: Path, separator: str, known: list[str]) -> list[str]:
    """Return the names of the columns as pandas has them, and refuse rows of more values.

    Names that are ``known`` may have any characters.
    """
    options: Any = {"sep": separator, "header": None, "dtype": str, "keep_default_na": False}
    with reading(path, "a CSV file"), _opened(path) as file:
        names = pd.read_csv(file, nrows=1, **options).iloc[0]
    if len(names) == 1 and names[0] not in known:
        _check_separator(path, names[0], separator)
    wide = False
    with reading(path, "a CSV file"), _opened(path) as file:
        try:
            pd.read_csv(file, nrows=2, **options)
        except pd.errors.ParserError as error:
            if not (wide := "Expected" in str(error)):
                raise
    if wide:  # pandas would take the first column for an index, or leave the last one out
        raise ValueError(
            f"{path}: row 1 has more values than the header has names ({len(names)}): name all "
            "columns, also that of row names"
        )
    return [name or f"Unnamed: {i}" for i, name in enumerate(names)]


def _check_separator(path: Path, name: str, separator: str) -> None:
    """Refuse a header of one name that looks like several with another separator."""
    names = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
    formats = {",": "csv", "\t": "tsv"}
    for other in names:
        if other in name:
            hint = f"write it with {names[separator]}, and numbers as 1234.5"
            if other in formats:
                hint = f'give the format "{formats[other]}" (--format {formats[other]})'
            raise ValueError(
                f"{path}: expected columns separated by {names[separator]}, got a header with "
                f"{names[other]}: {hint}"
            )


class SvmlightSource(ChunkSource):
    """An svmlight / libsvm file, read by scikit-learn some lines at a time; X is CSR in float64."""

    def __init__(
        self, path: Path, chunk_rows: int | None, zero_based: bool | None, n_features: int | None
    ) -> None:
        super().__init__(path, 0, None)
        self._rows = None if chunk_rows is None else self._chunk_rows(chunk_rows, 1)
        self._smallest, self._largest, self._text_bytes = np.iinfo(np.int64).max, -1, 0
        self._find_classes(self._measured())
        if self._largest < 0 and n_features is None:
            raise ValueError(f"{path}: no features")
        if zero_based is False and self._smallest == 0:
            raise ValueError(f"{path}: expected columns counted from 1, got a column 0")
        # scikit-learn tests for True by identity.
        self.zero_based = bool(self._smallest == 0) if zero_based is None else bool(zero_based)
        self.n_features = int(self._largest) + int(self.zero_based)
        if n_features is not None and self.n_features < n_features:
            if zero_based is None and not self.zero_based:
                raise ValueError(
                    f"{path}: columns {self._smallest} to {self._largest} of {n_features} may be "
                    "counted from 0 or from 1: say which by zero_based (--zero-based, --one-based)"
                )
            self.n_features = n_features

    @property
    def n_bytes(self) -> int:
        """See `ChunkSource.n_bytes`: the entries stored take about as much as their text."""
        return self._text_bytes

    def _measured(self) -> Iterator[tuple[str, Array]]:
        """Yield all labels, and find the smallest and the largest number of a column meanwhile."""
        for where, X, y in self._parsed(zero_based=True):
            if X.nnz:
                self._smallest = min(self._smallest, int(X.indices.min()))
                self._largest = max(self._largest, int(X.indices.max()))
            if np.abs(y).max(initial=0) > _MAX_LABEL:
                raise ValueError(f"{where}: expected labels of at most {_MAX_LABEL} in svmlight")
            yield where, y

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        for chunk in self._parsed(n_features=self.n_features, zero_based=self.zero_based):
            yield UntakenChunk.of_matrix(*chunk)

    def _parsed(self, **options: Any) -> Iterator[tuple[str, Any, Array]]:
        """Yield where the lines of each chunk are, their X and their y."""
        first, n_bytes = 1, 0
        for lines in self._lines():
            yield self._parse(first, lines, options)
            first += len(lines)
            n_bytes += sum(map(len, lines))
        self._text_bytes = n_bytes

    def _lines(self) -> Iterator[list[bytes]]:
        """Yield the lines of each chunk."""
        with reading(self.path, "svmlight"), open_bytes(self.path, "rb") as file:
            while lines := (
                file.readlines(_SVMLIGHT_BYTES)
                if self._rows is None
                else list(itertools.islice(file, self._rows))
            ):
                yield lines

    def _parse(self, first: int, lines: list[bytes], options: Any) -> tuple[str, Any, Array]:
        """Parse lines, of which ``first`` is the first one's number; see `_parsed`."""
        last = first + len(lines) - 1
        where = f"{self.path}: " + (f"lines {first} to {last}" if last > first else f"line {first}")
        text = b"".join(lines)
        try:
            # Python's int() and float(), which scikit-learn calls, take 1_0 for 10.
            if b"_" in text and any(b"_" in line.split(b"#")[0] for line in lines):
                raise ValueError("expected numbers, got an underscore")
            return where, *load_svmlight_file(io.BytesIO(text), **options)
        except (ValueError, OverflowError) as error:
            if last > first:  # halve the lines until the one that is wrong is found
                half = len(lines) // 2
                self._parse(first, lines[:half], options)
                self._parse(first + half, lines[half:], options)
            raise ValueError(f"{where}: not svmlight: {error}") from None
