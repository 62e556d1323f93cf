"""Chunks of CSV and svmlight files."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.datasets import load_svmlight_file

from fastsoftmax.sources._chunk_source import (
    ChunkSource,
    Rows,
    rows_per_chunk,
    select_columns,
    taking,
)

Array = npt.NDArray[Any]

_SVMLIGHT_BYTES = 8 << 20


class CSVSource(ChunkSource):
    """A CSV file with a header, by pandas; features become float64."""

    def __init__(
        self, path: Path, target: str | None, features: list[str] | None, chunk_rows: int | None
    ) -> None:
        with _named(path):
            present = [str(name) for name in pd.read_csv(path, nrows=0).columns]
        names = select_columns(path, present, target, features)
        super().__init__(path, len(names), names)
        self.target, self._rows = target, rows_per_chunk(chunk_rows, 8 * len(names))
        if target is None:
            return
        labels: list[str] = []
        for frame in self._parts(None):  # of all columns, or lines too long go unnoticed
            labels.extend(set(self._label_strings(frame)) - set(labels))
            self.n_rows += len(frame)
        if self.n_rows == 0:
            raise ValueError(f"{path}: no rows")
        values = _numbers_or_strings(labels)
        self.classes, codes = np.unique(values, return_inverse=True)
        self._codes = dict(zip(labels, codes.tolist(), strict=True))

    def _parts(self, columns: list[Any] | None) -> Iterator[pd.DataFrame]:
        # Labels stay strings until all are known: their type may change on the way.
        dtype: Any = None if self.target is None else {self.target: str}
        options: Any = {"usecols": columns, "dtype": dtype, "chunksize": self._rows}
        with _named(self.path), pd.read_csv(self.path, **options) as reader:
            yield from (frame for frame in reader if len(frame))

    def _label_strings(self, frame: pd.DataFrame) -> Any:
        missing = frame.index[frame[self.target].isna()]
        if len(missing):
            raise ValueError(f"{self.path}: row {missing[0] + 1}: missing label")
        return frame[self.target]

    def _encode(self, where: str, labels: Array) -> Array:
        codes = [self._codes.get(label, -1) for label in labels]
        if min(codes, default=0) < 0:
            raise ValueError(f"{where}: labels that were not there when the source was opened")
        return np.array(codes, np.int64)

    def _read(self, labelled: bool) -> Iterator[Rows]:
        names = self.feature_names or []
        for frame in self._parts([*names, self.target] if labelled else None):
            where = f"{self.path}: rows {frame.index[0] + 1} to {frame.index[-1] + 1}"
            X = np.empty((len(frame), len(names)), order="F")
            for i, name in enumerate(names):
                X[:, i] = self._numbers(frame, name)
            labels = self._label_strings(frame).to_numpy() if labelled else None
            yield Rows(where, len(frame), taking(X), labels)

    def _numbers(self, frame: pd.DataFrame, name: str) -> Array:
        column = frame[name]
        if column.dtype.kind not in "fiub":
            wrong = frame.index[pd.to_numeric(column, errors="coerce").isna()]
            row = f" in row {wrong[0] + 1}" if len(wrong) else ""
            raise ValueError(f'{self.path}: column "{name}": expected numbers, got others{row}')
        values: Array = column.to_numpy(np.float64)
        if not np.isfinite(values).all():
            row = frame.index[np.flatnonzero(~np.isfinite(values))[0]] + 1
            raise ValueError(
                f'{self.path}: column "{name}": missing or infinite value in row {row}'
            )
        return values


class SvmlightSource(ChunkSource):
    """An svmlight / libsvm file, by scikit-learn, some lines at a time; X is CSR in float64.

    Columns are counted from 0 if there is a column 0, and from 1 otherwise.
    """

    has_open_width = True

    def __init__(self, path: Path, chunk_rows: int | None) -> None:
        super().__init__(path, 0, None)
        if chunk_rows is not None:
            rows_per_chunk(chunk_rows, 1)
        self._rows = chunk_rows
        self._smallest, self._largest = np.iinfo(np.int64).max, -1
        self._find_classes(self._measured())
        if self._largest < 0:
            raise ValueError(f"{path}: no features")
        self._from_zero = bool(self._smallest == 0)  # scikit-learn asks for identity
        self.n_features = int(self._largest) + int(self._from_zero)

    @property
    def n_bytes(self) -> int:
        """See `ChunkSource.n_bytes`: what is stored, as text about as long."""
        return self.path.stat().st_size

    def _measured(self) -> Iterator[tuple[str, Array]]:
        """Labels, the ends of the columns being noted on the way."""
        for first, lines in self._lines():
            X, y = self._parse(first, lines, zero_based=True)
            self._smallest = min(self._smallest, X.indices.min(initial=self._smallest))
            self._largest = max(self._largest, X.indices.max(initial=-1))
            yield self._where(first, lines), y

    def _where(self, first: int, lines: list[bytes]) -> str:
        return f"{self.path}: lines {first} to {first + len(lines) - 1}"

    def _lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Give some lines at a time and the number of the first, from 1."""
        first = 1
        with self.path.open("rb") as file:
            while True:
                if self._rows is None:
                    lines = file.readlines(_SVMLIGHT_BYTES)
                else:
                    lines = list(itertools.islice(file, self._rows))
                if not lines:
                    return
                yield first, lines
                first += len(lines)

    def _parse(self, first: int, lines: list[bytes], **options: Any) -> tuple[Any, Array]:
        try:
            X, y = load_svmlight_file(io.BytesIO(b"".join(lines)), **options)
        except ValueError as error:
            if len(lines) == 1:
                raise ValueError(f"{self.path}: line {first}: not svmlight: {error}") from None
            half = len(lines) // 2  # towards the line to blame
            self._parse(first, lines[:half], **options)
            self._parse(first + half, lines[half:], **options)
            raise ValueError(f"{self._where(first, lines)}: not svmlight: {error}") from None
        return X, y

    def _read(self, labelled: bool) -> Iterator[Rows]:
        for first, lines in self._lines():
            X, y = self._parse(first, lines, n_features=self.n_features, zero_based=self._from_zero)
            yield Rows(self._where(first, lines), len(y), taking(X), y)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in pandas' errors."""
    try:
        yield
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file: {str(error).strip()}") from None


def _numbers_or_strings(labels: list[str]) -> Array:
    for kind in (np.int64, np.float64):
        try:
            values = np.array([kind(label) for label in labels])
        except ValueError:
            continue
        if np.isfinite(values).all():
            return values
    return np.array(labels, dtype=str)
