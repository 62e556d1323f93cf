"""Rows that a source streams anew for every pass, with the same bits as rows in memory."""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.dataset import Chunk, Chunks, Dataset, evenly
from fastsoftmax._evaluation.targets import check_options, checked_total, chunk_targets, sum_of_rows
from fastsoftmax.reference import Array

Source = Callable[[], Iterable[Any]]
T = TypeVar("T")


class Streamed(Dataset):
    """Rows that a source gives anew, chunk by chunk, for every pass.

    The constructor makes the first pass, which counts rows and weights; all later chunks must be of
    the kind of its first one. ``options`` are those of `make_targets`.
    """

    def __init__(self, source: Source, n_features: int, **options: Any) -> None:
        if not callable(source):
            raise TypeError(
                "source: expected a function that returns a fresh iterator of (X, y) or "
                f"(X, y, sample_weight), got {type(source).__name__}"
            )
        self._source, self._options = source, options
        check_options(**options)
        self.n_features = n_features
        self._kind: tuple[Any, ...] | None = None
        n_rows, weighted = 0, False

        def counted() -> Iterator[Array]:
            nonlocal n_rows, weighted
            for X, targets in chunks:
                n_rows += len(X)
                if targets.counted is not None:
                    weighted = True
                    yield targets.counted

        with contextlib.closing(read_ahead(self._chunks(None))) as chunks:
            total = sum_of_rows(counted())
        if self._kind is None or n_rows == 0:
            raise ValueError("source: expected at least one row, got none")
        self.n_rows = n_rows
        self.dtype, self.is_sparse, *_ = self._kind
        self.total = checked_total(total if weighted else n_rows)

    def chunks(self, block_rows: int, *, curvatures: bool = False) -> Chunks:
        """See `Dataset.chunks`."""
        chunks = read_ahead(self._chunks(self.n_rows))
        with contextlib.closing(chunks), contextlib.closing(reblock(chunks, block_rows)) as blocks:
            for X, targets in blocks:
                yield Chunk(X, targets.curvatures(len(X)) if curvatures else targets)

    def sample(self, n_rows: int) -> tuple[Any, Array | None]:
        """See `Dataset.sample`."""
        return self.rows(evenly(n_rows, self.n_rows))

    def _chunks(self, expected_rows: int | None) -> Iterator[Chunk]:
        """Make one pass: give checked chunks, of ``expected_rows`` rows altogether."""
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
                chunk = self._check(chunk, number)
                n_rows += len(chunk)
                if expected_rows is not None and n_rows > expected_rows:
                    break
                yield chunk
        finally:
            getattr(chunks, "close", lambda: None)()
        if expected_rows not in (None, n_rows):
            raise ValueError(
                f"source: expected {expected_rows} rows in every pass as in the first, got "
                f"{n_rows} in {n_chunks} chunks: each call must give a fresh iterator of the "
                "same rows"
            )

    def _check(self, chunk: Any, number: int) -> Chunk:
        """Check what the source gave as its chunk ``number``; all must be of one kind."""
        with validate.naming(f"chunk {number}"):
            if not (isinstance(chunk, tuple) and len(chunk) in (2, 3)):
                raise TypeError(
                    f"expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}"
                )
            X = validate.as_features(chunk[0], empty=True)
            if X.shape[1] != self.n_features:
                raise ValueError(
                    f"X: expected n_features = {self.n_features} columns, got {X.shape[1]}"
                )
            weight = chunk[2] if len(chunk) == 3 else None
            targets = chunk_targets(chunk[1], X, weight, **self._options)
            names = ("X of dtype", "sparse X:", "y of target rows:", "weights:")
            kind = (X.dtype, isinstance(X, CSR), targets.labels is None, targets.weight is not None)
            self._kind = self._kind or kind
            for name, expected, got in zip(names, self._kind, kind, strict=True):
                if got != expected:
                    raise ValueError(f"expected {name} {expected} as in the first chunk, got {got}")
        return Chunk(X, targets)


def read_ahead(items: Iterator[T], depth: int = 1) -> Generator[T, None, None]:
    """Pass the items on, while a thread makes the next ``depth`` of them.

    The thread begins another item only when the next one is asked for, so with a ``depth`` of 1 a
    producer may use two buffers in turn. Closing waits for the item that is being made.
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
            getattr(items, "close", lambda: None)()


def reblock(chunks: Iterable[Chunk], rows: int) -> Chunks:
    """Cut chunks anew, so that all but the last have a multiple of ``rows`` rows.

    Only rows at the ends of the given chunks are copied, where a block spans two of them.
    """
    carry: list[Chunk] = []
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
