"""Columns of chunks made rows of features, dense or CSR.

Never is a row looked at by itself: texts come as codes, of which each chunk has a small table that
says which feature a code is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.reference import Array
from fastsoftmax.sources._columns import Coded, Column, TableColumns
from fastsoftmax.sources._labels import match_labels
from fastsoftmax.sources._table_rows import Columns

# So many of the values that training did not have are named.
_EXAMPLES = 3


class Unseen(NamedTuple):
    """Rows whose value of a column training did not have, and some of these values."""

    n_rows: int
    examples: tuple[str, ...]


class _Placed(NamedTuple):
    """The feature that each row's value of a column is, -1 where it is none."""

    name: str
    features: Array
    column: Coded
    all_known: bool


class Encoder:
    """Makes rows of features of chunks whose columns were learned, from other rows or the same.

    ``unseen`` says which columns had values that training did not have, in the rows so far.
    """

    def __init__(self, columns: TableColumns) -> None:
        self.columns, self.unseen = columns, dict[str, Unseen]()
        widths = [column.n_features for column in columns.columns]
        self._starts = np.cumsum([0, *widths])[:-1].tolist()
        self._known = {
            column.name: {value: i for i, value in enumerate(column.values)}
            for column in columns.columns
        }

    def match(self, arrays: Sequence[Array | Coded]) -> "Matched":
        """Match the columns of a chunk; one of lists is as many arrays as they have values."""
        pieces: list[tuple[int, Array | _Placed]] = []
        given = iter(arrays)
        for column, start in zip(self.columns.columns, self._starts, strict=True):
            for i in range(column.width):
                array = next(given)
                if isinstance(array, Coded):
                    pieces.append((start, self._place(column, start, array)))
                    continue
                if column.fill is None:
                    pieces.append((start + i, array))
                    continue
                absent = np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), bool)
                if absent.any():
                    array = np.where(absent, array.dtype.type(column.fill), array)
                pieces.append((start, array))
                if column.missing:
                    pieces.append((start + 1, absent))
        return Matched(self, pieces)

    def _place(self, column: Column, start: int, texts: Coded) -> _Placed:
        """Find the feature of each row's value."""
        known = self._known[column.name]
        # The last entry is that of the code -1, a missing value.
        table = np.full(len(texts.texts) + 1, -1)
        table[:-1] = [known.get(text, -1) for text in texts.texts]
        others = np.flatnonzero(table[:-1] < 0)
        if len(others) and known:  # the same number or truth value in another spelling, as labels
            spelled = np.array([texts.texts[i] for i in others], dtype=str)
            table[others] = match_labels(spelled, np.array(column.values, dtype=str))
        if column.missing:
            table[-1] = len(column.values)
        table = np.where(table < 0, -1, table + start).astype(np.int32)
        features = table.take(texts.codes)  # twice as fast as an index
        all_known = bool((table >= 0).all()) or bool((features >= 0).all())
        return _Placed(column.name, features, texts, all_known)

    def count_unseen(self, name: str, column: Coded, rows: Array) -> None:
        """Note that these rows have values of a column that training did not have."""
        codes = column.codes[rows]
        before = self.unseen.get(name, Unseen(0, ()))
        examples = list(before.examples)
        for code in np.unique(codes)[: 2 * _EXAMPLES].tolist():
            text = f'"{column.texts[code]}"' if code >= 0 else "a missing one"
            if len(examples) < _EXAMPLES and text not in examples:
                examples.append(text)
        self.unseen[name] = Unseen(before.n_rows + len(codes), tuple(examples))


class Matched:
    """A chunk whose values have been matched, some or all rows of which become features.

    ``pieces`` are arrays of numbers and the places of values, each with its first feature, in the
    order of the features.
    """

    def __init__(self, encoder: Encoder, pieces: list[tuple[int, Array | _Placed]]) -> None:
        self._encoder, self._pieces = encoder, pieces
        self._columns: list[Columns] = []

    def dense(self, first: int, rows: Array, block: Array) -> None:
        """Write rows, whose numbers in the chunk are ``first`` + ``rows``, into a block.

        The block is in C order, and has one more row than are written, whose content is undefined.
        """
        if not any(isinstance(piece, _Placed) for _, piece in self._pieces):
            if not self._columns:
                self._columns = [_numbers([array for _, array in self._pieces], block.dtype)]
            self._columns[0].interleave(first, _places(rows, len(block) - 1), block)
            return
        chosen, starts = rows + first, np.arange(len(rows)) * block.shape[1]
        flat = block.reshape(-1)
        block[:] = 0
        for start, piece in self._pieces:
            if not isinstance(piece, _Placed):
                with np.errstate(over="ignore"):
                    block[:-1, start] = piece[chosen]
                continue
            features = piece.features[chosen]
            if piece.all_known:
                flat[starts + features] = 1
                continue
            known = features >= 0
            flat[(starts + features)[known]] = 1
            self._note(piece, chosen[~known])

    def sparse(self, first: int, rows: Array, indices: Array, data: Array) -> Any:
        """Return rows, whose numbers in the chunk are ``first`` + ``rows``, as a CSR matrix.

        It lies in two blocks, of a column for each entry of a row, which are as that of `dense`.
        """
        from scipy.sparse import csr_array

        n_rows, n_entries = len(rows), len(self._pieces)
        self._columns = self._columns or self._entries(data.dtype)
        places = _places(rows, n_rows)
        for columns, block in zip(self._columns, (indices, data), strict=True):
            columns.interleave(first, places, block)
        indices, data = indices[:-1], data[:-1]
        indptr = np.arange(n_rows + 1, dtype=np.int32) * n_entries
        unknown = [(i, piece) for i, (_, piece) in enumerate(self._pieces)
                   if isinstance(piece, _Placed) and not piece.all_known]  # fmt: skip
        if unknown:
            known = indices >= 0
            for i, piece in unknown:
                self._note(piece, first + rows[~known[:, i]])
            indptr[1:] = np.cumsum(known.sum(axis=1))
            indices, data = indices[known], data[known]
        shape = (n_rows, self._encoder.columns.n_features)
        return csr_array((data.ravel(), indices.ravel(), indptr), shape=shape)

    def _entries(self, dtype: np.dtype[Any]) -> list[Columns]:
        """Return the columns that are put side by side in entries: the features, and the values."""
        features: list[Array] = []
        values: list[Array] = []
        ones = np.empty(0, dtype)
        for start, piece in self._pieces:
            if isinstance(piece, _Placed):
                features.append(piece.features)
                ones = ones if len(ones) else np.ones(len(piece.features), dtype)
                values.append(ones)
            else:
                features.append(np.full(len(piece), start, np.int32))
                values.append(piece)
        return [Columns(features, np.dtype(np.int32)), _numbers(values, dtype)]

    def _note(self, piece: _Placed, rows: Array) -> None:
        """Count rows whose value is none of those known."""
        if len(rows):
            self._encoder.count_unseen(piece.name, piece.column, rows)


def _numbers(arrays: list[Any], dtype: np.dtype[Any]) -> Columns:
    """Return columns of numbers of any types; what overflows is found to be infinite later."""
    with np.errstate(over="ignore"):
        return Columns(arrays, dtype)


def _places(rows: Array, spare: int) -> Array:
    """Return the place of each row up to the last of these, which take the first places in turn.

    Leaving others out while writing costs more than giving them all one ``spare`` place.
    """
    if len(rows) == rows[-1] + 1:  # all of them
        return rows
    places = np.full(int(rows[-1]) + 1, spare)
    places[rows] = np.arange(len(rows))
    return places
