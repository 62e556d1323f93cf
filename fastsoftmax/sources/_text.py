"""CSV and svmlight files as sources of chunks."""

import contextlib
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_svmlight_file

from fastsoftmax.reference import Array
from fastsoftmax.sources._chunk_source import ChunkSource, UntakenChunk, select_columns
from fastsoftmax.sources._formats import open_bytes, reading
from fastsoftmax.sources._labels import typed

# Text of a chunk of an svmlight file, unless its number of rows is given.
_SVMLIGHT_BYTES = 8 << 20
# svmlight's labels are read as decimals, which do not tell whole numbers beyond this apart.
_MAX_LABEL = 2**53
# pandas' name for a column without one, which its index and R's row names are.
_NAMELESS = re.compile(r"Unnamed: [0-9]+(_level_[0-9]+)?")


class CSVSource(ChunkSource):
    """A CSV file with a header, read by pandas; features become float64."""

    def __init__(
        self,
        path: Path,
        target: str | None,
        features: list[str] | None,
        chunk_rows: int | None,
        separator: str,
    ) -> None:
        self._separator = separator
        names = select_columns(
            path, _header(path, separator), target, features, _NAMELESS.fullmatch
        )
        super().__init__(path, len(names), names)
        self.target, self._rows = target, self._chunk_rows(chunk_rows, 8)
        if target is None:
            return
        labels: list[str] = []
        for frame in self._frames(None):  # pandas finds lines too long only if it reads all columns
            labels.extend(set(self._labels(frame)) - set(labels))
            self.n_rows += len(frame)
        if self.n_rows == 0:
            raise ValueError(f"{path}: no rows")
        # What is matched with a model's classes is the text, which loses nothing.
        self._found = np.array(labels, dtype=str)
        self._indices = {label: i for i, label in enumerate(labels)}
        self.classes, self._codes = np.unique(typed(labels), return_inverse=True)

    def _frames(self, columns: list[Any] | None) -> Iterator[pd.DataFrame]:
        """Yield a frame of each chunk with these columns, or with all."""
        # Labels stay strings until all are known: only then is it clear whether they are numbers.
        dtype: Any = None if self.target is None else {self.target: str}
        options: Any = {"usecols": columns, "dtype": dtype, "chunksize": self._rows}
        options |= {"sep": self._separator, "index_col": False}
        with (
            reading(self.path, "a CSV file"),
            _opened(self.path) as file,
            pd.read_csv(file, **options) as reader,
        ):
            yield from (frame for frame in reader if len(frame))

    def _labels(self, frame: pd.DataFrame) -> Any:
        """Return the labels as strings, and refuse missing ones."""
        missing = frame.index[frame[self.target].isna()]
        if len(missing):
            raise ValueError(f"{self.path}: row {missing[0] + 1}: missing label")
        return frame[self.target]

    def _index(self, where: str, labels: Array) -> Array | None:
        """Return the indices of labels among the classes, or None where one is no class."""
        indices = [self._indices.get(label, -1) for label in labels]
        return None if min(indices, default=0) < 0 else np.array(indices, np.int64)

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        names = self.feature_names or []
        for frame in self._frames([*names, self.target] if labelled else None):
            where = f"{self.path}: rows {frame.index[0] + 1} to {frame.index[-1] + 1}"
            X = np.stack([self._numbers_of(frame, name) for name in names]).T
            labels = self._labels(frame).to_numpy() if labelled else None
            yield UntakenChunk.of_matrix(where, X, labels)

    def _numbers_of(self, frame: pd.DataFrame, name: str) -> Array:
        """Return a column of features, and refuse what is no finite number."""
        column = frame[name]
        numeric = column.dtype.kind in "fiub"
        values: Array = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        wrong = frame.index[~np.isfinite(values)]
        if len(wrong) or not numeric:
            what = "missing or infinite value" if numeric else "expected numbers, got others"
            row = f" in row {wrong[0] + 1}" if len(wrong) else ""
            raise ValueError(f'{self.path}: column "{name}": {what}{row}')
        return values


def _opened(path: Path) -> Any:
    """Open a CSV file for pandas, which reads archives of one file by itself."""
    zipped = path.suffix.lower() == ".zip"
    return contextlib.nullcontext(path) if zipped else open_bytes(path, "rb")


def _header(path: Path, separator: str) -> list[str]:
    """Return the names of the columns as pandas has them, and refuse rows of more values."""
    options: Any = {"sep": separator, "header": None, "dtype": str, "keep_default_na": False}
    with reading(path, "a CSV file"), _opened(path) as file:
        names = pd.read_csv(file, nrows=1, **options).iloc[0]
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
