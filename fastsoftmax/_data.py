"""The rows behind an objective, in memory or streamed: the same bits from both."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate
from fastsoftmax._backend import DIAGONAL, GRADIENT, PRODUCT, accumulator, block_rows
from fastsoftmax._csr import CSR, is_sparse
from fastsoftmax._options import RowSum, Targets, checked_total

Array = npt.NDArray[Any]
Source = Callable[[], Iterable[Any]]
Pieces = Generator["Piece", None, None]
T = TypeVar("T")


class Piece(NamedTuple):
    """Some rows and their targets."""

    X: Array | CSR
    targets: Targets

    def __len__(self) -> int:
        return len(self.X)

    def part(self, start: int, stop: int) -> Piece:
        """View the rows from ``start`` to before ``stop``."""
        X = self.X.part(start, stop) if isinstance(self.X, CSR) else self.X[start:stop]
        return Piece(X, self.targets.part(start, stop))

    def joined(self, others: list[Piece]) -> Piece:
        """Copy these rows and, after them, those of ``others``."""
        rest: list[Any] = [piece.X for piece in others]
        X = self.X.joined(rest) if isinstance(self.X, CSR) else np.concatenate([self.X, *rest])
        return Piece(X, self.targets.joined([piece.targets for piece in others]))


class Data:
    """Rows of features with targets.

    ``dtype`` is the dtype of X, ``total`` what a mean divides by.
    """

    n_rows: int
    n_features: int
    dtype: np.dtype[Any]
    is_sparse: bool
    total: float

    def pieces(self, block_rows: int, *, curvatures: bool = False) -> Pieces:
        """All rows in order, in pieces of a multiple of ``block_rows`` rows but for the last.

        A piece is valid until the next one is asked for. With ``curvatures`` the targets are those
        of the Hessian. Close the iterator if it is left early: a thread may be reading ahead.
        """
        raise NotImplementedError

    def sum(self, W: Array, b: Array | None, center: Array | None = None, **how: Any) -> Any:
        """Sum over all rows, ``center`` subtracted from them; see `accumulator`."""
        mode = how.get("mode", GRADIENT)
        sums = accumulator(W, b, center, sparse=self.is_sparse, **how)
        pieces = self.pieces(block_rows(sums), curvatures=mode >= PRODUCT)
        with contextlib.closing(pieces):
            for X, targets in pieces:
                if mode == DIAGONAL and isinstance(X, CSR):
                    X = X.canonical()  # entries that add up must do so before they are squared
                sums.add(X, targets)
        return sums

    def take(self, rows: Array) -> InMemory:
        """Copy some rows."""
        raise NotImplementedError

    def rows(self, chosen: Array) -> tuple[Any, Array]:
        """Copy some rows, in ascending order, and their weights s·T, in one pass over all."""
        matrices: list[Any] = []
        weights: list[Array] = []
        # Written in place: parts and their stack together would take twice the memory.
        dense = np.empty((0 if self.is_sparse else len(chosen), self.n_features), self.dtype)
        first = 0
        with contextlib.closing(self.pieces(1, curvatures=True)) as pieces:
            for X, targets in pieces:
                a, b = np.searchsorted(chosen, (first, first + len(X)))
                rows = chosen[a:b] - first
                if isinstance(X, CSR):
                    matrices.append(X.matrix()[rows])
                else:
                    dense[a:b] = X[rows]
                weights.append(targets.scales(len(X))[rows])
                first += len(X)
        return stack(matrices) if self.is_sparse else dense, np.concatenate(weights)

    def sample(self, n_rows: int) -> tuple[Any, Array | None]:
        """Evenly spaced rows, the same whatever pieces they come in, and their weights s·T.

        Sparse rows are SciPy's CSR. In memory these are all rows, by reference.
        """
        raise NotImplementedError


class InMemory(Data):
    """Rows that are arrays: one piece."""

    def __init__(self, X: Array | CSR, targets: Targets) -> None:
        self.X, self.targets = X, targets
        self.n_rows, self.n_features = X.shape
        self.dtype, self.is_sparse, self.total = X.dtype, isinstance(X, CSR), targets.total

    @functools.cached_property
    def curvatures(self) -> Targets:
        """Targets of the Hessian."""
        return self.targets.curvatures(self.n_rows)

    def pieces(self, block_rows: int, *, curvatures: bool = False) -> Pieces:
        """See `Data.pieces`."""
        yield Piece(self.X, self.curvatures if curvatures else self.targets)

    def sample(self, n_rows: int) -> tuple[Any, Array | None]:
        """See `Data.sample`."""
        return self.X.matrix() if isinstance(self.X, CSR) else self.X, self.curvatures.weight

    def take(self, rows: Array) -> InMemory:
        """See `Data.take`."""
        X = self.X.matrix()[rows] if isinstance(self.X, CSR) else self.X[rows]
        return InMemory(_validate.as_features(X), self.targets.take(rows, self.n_rows))


class Streamed(Data):
    """Rows that a source gives anew, chunk by chunk, for every pass.

    ``make_targets`` takes y, the number of rows, the compute dtype and the weights of a chunk. The
    first pass, made here, counts rows and weights and settles what all chunks must agree in.
    """

    def __init__(self, source: Source, n_features: int, make_targets: Callable[..., Targets]):
        if not callable(source):
            raise TypeError(
                "source: expected a function that returns a fresh iterator of (X, y) or "
                f"(X, y, sample_weight), got {type(source).__name__}"
            )
        self._source, self._make_targets = source, make_targets
        self.n_features = n_features
        self._kind: tuple[Any, ...] | None = None
        n_rows, total, weighted = 0, RowSum(), False
        with contextlib.closing(read_ahead(self._chunks(None))) as chunks:
            for X, targets in chunks:
                n_rows += len(X)
                if targets.counted is not None:
                    weighted = True
                    total.add(targets.counted)
        if self._kind is None or n_rows == 0:
            raise ValueError("source: expected at least one row, got none")
        self.n_rows = n_rows
        self.dtype, self.is_sparse, *_ = self._kind
        self.total = checked_total(total.finish() if weighted else n_rows)

    def pieces(self, block_rows: int, *, curvatures: bool = False) -> Pieces:
        """See `Data.pieces`."""
        chunks = read_ahead(self._chunks(self.n_rows))
        with contextlib.closing(chunks), contextlib.closing(reblock(chunks, block_rows)) as blocks:
            for X, targets in blocks:
                yield Piece(X, targets.curvatures(len(X)) if curvatures else targets)

    def sample(self, n_rows: int) -> tuple[Any, Array | None]:
        """See `Data.sample`."""
        return self.rows(evenly(n_rows, self.n_rows))

    def _chunks(self, expected_rows: int | None) -> Iterator[Piece]:
        """One pass: checked chunks, of ``expected_rows`` rows altogether."""
        n_chunks, n_rows = 0, 0
        given = self._source()
        if not hasattr(given, "__iter__"):
            raise TypeError(
                f"source: expected it to return an iterator of chunks, got {type(given).__name__}"
            )
        chunks = iter(given)
        try:
            for number, chunk in enumerate(chunks):
                n_chunks = number + 1
                piece = self._check(chunk, number)
                n_rows += len(piece)
                if expected_rows is not None and n_rows > expected_rows:
                    break
                yield piece
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        if expected_rows not in (None, n_rows):
            raise ValueError(
                f"source: expected {expected_rows} rows in every pass as in the first, got "
                f"{n_rows} in {n_chunks} chunks: each call must give a fresh iterator of the "
                "same rows"
            )

    def _check(self, chunk: Any, number: int) -> Piece:
        try:
            if not (isinstance(chunk, tuple) and len(chunk) in (2, 3)):
                raise TypeError(
                    f"expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}"
                )
            X = _validate.as_features(chunk[0], empty=True)
            if X.shape[1] != self.n_features:
                raise ValueError(
                    f"X: expected n_features = {self.n_features} columns, got {X.shape[1]}"
                )
            weight = chunk[2] if len(chunk) == 3 else None
            dtype = _validate.compute_dtype(X.dtype, "X")
            targets = self._make_targets(chunk[1], len(X), dtype=dtype, sample_weight=weight)
            self._check_kind(X, targets)
        except (TypeError, ValueError) as error:
            raise type(error)(f"chunk {number}: {error}") from error
        return Piece(X, targets)

    def _check_kind(self, X: Array | CSR, targets: Targets) -> None:
        """Compare a chunk with the first one of all."""
        kind = (X.dtype, isinstance(X, CSR), targets.labels is None, targets.weight is not None)
        if self._kind is None:
            self._kind = kind
        names = ("X of dtype", "sparse X:", "y of target rows:", "weights:")
        for name, expected, got in zip(names, self._kind, kind, strict=True):
            if got != expected:
                raise ValueError(f"expected {name} {expected} as in the first chunk, got {got}")


def evenly(n: int, n_rows: int) -> Array:
    """Up to ``n`` row numbers, spread evenly over all."""
    n = min(n, n_rows)
    return np.arange(n) * n_rows // n


def stack(matrices: Sequence[Any]) -> Any:
    """Put arrays, or SciPy's CSR matrices, on top of each other."""
    if is_sparse(matrices[0]):
        from scipy.sparse import vstack

        return vstack(matrices, format="csr")
    return np.concatenate(matrices)


def read_ahead(items: Iterator[T], depth: int = 1) -> Generator[T, None, None]:
    """Give the items on, the next ``depth`` of them being made in a thread meanwhile.

    An item's turn ends when the next one is asked for; only then is one more begun, so with a
    ``depth`` of 1 a producer may use two buffers in turn. Closing waits for the item in the making.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="fastsoftmax-read-ahead") as pool:
        coming: Any = collections.deque(pool.submit(next, items, end) for _ in range(depth))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in coming:
                future.cancel()
            pool.shutdown()
            close = getattr(items, "close", None)
            if close is not None:
                close()


def reblock(chunks: Iterable[Piece], rows: int) -> Pieces:
    """Cut chunks anew, into pieces of a multiple of ``rows`` rows but for the last.

    Of a chunk only the rows are copied that share a block with another chunk's.
    """
    carry: list[Piece] = []
    carried = 0
    for chunk in chunks:
        start = 0
        if carried:
            start = min(rows - carried, len(chunk))
            carry.append(chunk.part(0, start).joined([]))
            carried += start
            if carried == rows:
                yield carry[0].joined(carry[1:])
                carry, carried = [], 0
        whole = (len(chunk) - start) // rows * rows
        if whole:
            yield chunk.part(start, start + whole)
        if start + whole < len(chunk):
            carry = [chunk.part(start + whole, len(chunk)).joined([])]
            carried = len(chunk) - start - whole
    if carried:
        yield carry[0].joined(carry[1:])
