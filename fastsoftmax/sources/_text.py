"""CSV and svmlight files as sources of chunks."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_svmlight_file

from fastsoftmax.sources._chunk_source import Array, ChunkSource, UntakenChunk, select_columns

# Text of a chunk of an svmlight file, unless its number of rows is given.
_SVMLIGHT_BYTES = 8 << 20


class CSVSource(ChunkSource):
    """A CSV file with a header, read by pandas; features become float64."""

    def __init__(
        self, path: Path, target: str | None, features: list[str] | None, chunk_rows: int | None
    ) -> None:
        with _naming(path):
            present = [str(name) for name in pd.read_csv(path, nrows=0).columns]
        names = select_columns(path, present, target, features)
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
        self.classes, codes = np.unique(_numbers_or_strings(labels), return_inverse=True)
        self._codes = dict(zip(labels, codes.tolist(), strict=True))

    def _frames(self, columns: list[Any] | None) -> Iterator[pd.DataFrame]:
        """Yield a frame of each chunk with these columns, or with all."""
        # Labels stay strings until all are known: only then is it clear whether they are numbers.
        dtype: Any = None if self.target is None else {self.target: str}
        options: Any = {"usecols": columns, "dtype": dtype, "chunksize": self._rows}
        with _naming(self.path), pd.read_csv(self.path, **options) as reader:
            yield from (frame for frame in reader if len(frame))

    def _labels(self, frame: pd.DataFrame) -> Any:
        """Return the labels as strings, and refuse missing ones."""
        missing = frame.index[frame[self.target].isna()]
        if len(missing):
            raise ValueError(f"{self.path}: row {missing[0] + 1}: missing label")
        return frame[self.target]

    def _encode(self, where: str, labels: Array) -> Array:
        codes = [self._codes.get(label, -1) for label in labels]
        if min(codes, default=0) < 0:
            raise ValueError(f"{where}: labels that were not there when the source was opened")
        return np.array(codes, np.int64)

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        names = self.feature_names or []
        for frame in self._frames([*names, self.target] if labelled else None):
            where = f"{self.path}: rows {frame.index[0] + 1} to {frame.index[-1] + 1}"
            X = np.stack([self._numbers(frame, name) for name in names]).T
            labels = self._labels(frame).to_numpy() if labelled else None
            yield UntakenChunk.of_matrix(where, X, labels)

    def _numbers(self, frame: pd.DataFrame, name: str) -> Array:
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


class SvmlightSource(ChunkSource):
    """An svmlight / libsvm file, read by scikit-learn some lines at a time; X is CSR in float64.

    Columns are counted from 0 if there is a column 0, and from 1 otherwise.
    """

    has_open_width = True

    def __init__(self, path: Path, chunk_rows: int | None) -> None:
        super().__init__(path, 0, None)
        self._rows = None if chunk_rows is None else self._chunk_rows(chunk_rows, 1)
        self._smallest, self._largest = np.iinfo(np.int64).max, -1
        self._find_classes(self._measured())
        if self._largest < 0:
            raise ValueError(f"{path}: no features")
        self._from_zero = bool(self._smallest == 0)  # scikit-learn tests for True by identity
        self.n_features = int(self._largest) + int(self._from_zero)

    @property
    def n_bytes(self) -> int:
        """See `ChunkSource.n_bytes`: the entries stored take about as much as their text."""
        return self.path.stat().st_size

    def _measured(self) -> Iterator[tuple[str, Array]]:
        """Yield all labels, and find the smallest and the largest number of a column meanwhile."""
        for where, X, y in self._parsed(zero_based=True):
            self._smallest = min(self._smallest, X.indices.min(initial=self._smallest))
            self._largest = max(self._largest, X.indices.max(initial=-1))
            yield where, y

    def _read(self, labelled: bool) -> Iterator[UntakenChunk]:
        for chunk in self._parsed(n_features=self.n_features, zero_based=self._from_zero):
            yield UntakenChunk.of_matrix(*chunk)

    def _parsed(self, **options: Any) -> Iterator[tuple[str, Any, Array]]:
        """Yield where the lines of each chunk are, their X and their y."""
        first = 1
        with self.path.open("rb") as file:
            while lines := (
                file.readlines(_SVMLIGHT_BYTES)
                if self._rows is None
                else list(itertools.islice(file, self._rows))
            ):
                yield self._parse(first, lines, options)
                first += len(lines)

    def _parse(self, first: int, lines: list[bytes], options: Any) -> tuple[str, Any, Array]:
        """Parse lines, of which ``first`` is the first one's number; see `_parsed`."""
        last = first + len(lines) - 1
        where = f"{self.path}: " + (f"lines {first} to {last}" if last > first else f"line {first}")
        try:
            return where, *load_svmlight_file(io.BytesIO(b"".join(lines)), **options)
        except ValueError as error:
            if last > first:  # halve the lines until the one that is wrong is found
                half = len(lines) // 2
                self._parse(first, lines[:half], options)
                self._parse(first + half, lines[half:], options)
            raise ValueError(f"{where}: not svmlight: {error}") from None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in pandas' errors."""
    try:
        yield
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file: {str(error).strip()}") from None


def _numbers_or_strings(labels: list[str]) -> Array:
    """Return labels as integers if all are, else as finite floats if all are, else as strings."""
    for kind in (np.int64, np.float64):
        try:
            values = np.array([kind(label) for label in labels])
        except ValueError:
            continue
        if np.isfinite(values).all():
            return values
    return np.array(labels, dtype=str)
