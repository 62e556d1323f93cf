"""What Dask's workers hold: their share of the rows, and the client's way to it.

`Shares`, `calls` and `cut` are the client's side; all else runs on workers.
"""

import contextlib
import copy
import itertools
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from dask import delayed
from dask.sizeof import sizeof
from distributed import get_client, get_worker, wait

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.dataset import Chunk, Chunks, Dataset
from fastsoftmax._evaluation.stream import reblock
from fastsoftmax._evaluation.targets import chunk_targets, sum_of_rows
from fastsoftmax.reference import Array

# Partitions are put together up to this size.
_CHUNK_BYTES = 256 << 20


class Kind(NamedTuple):
    """What partitions must agree in."""

    n_features: int
    dtype: np.dtype[Any]
    is_sparse: bool
    n_targets: int | None  # columns of y; None for labels
    weighted: bool


_PROPERTIES = ("X of n_features =", "X of dtype", "sparse X:", "columns of y:", "weights:")


class Rows(NamedTuple):
    """A partition as it was given, checked for what needs no options."""

    partition: int
    X: Array | CSR
    y: Array
    weight: Array | None


class Share(Dataset):
    """Consecutive partitions on one worker, summed as if they were one array."""

    def __init__(self, stored: list[Chunk]) -> None:
        self.stored = stored
        X = stored[0].X
        self.n_rows, self.n_features = sum(map(len, stored)), X.shape[1]
        self.dtype, self.is_sparse = X.dtype, isinstance(X, CSR)
        weights = [targets.counted for _, targets in stored if targets.counted is not None]
        self.total = sum_of_rows(weights) if weights else float(self.n_rows)

    def __sizeof__(self) -> int:
        # By this Dask judges what it costs to run a task elsewhere than where the share is.
        return sum(sizeof(chunk.X) for chunk in self.stored)

    def chunks(self, block_rows: int, *, curvatures: bool = False) -> Chunks:
        """See `Dataset.chunks`."""
        for X, targets in reblock(self.stored, block_rows):
            yield Chunk(X, targets.curvatures(len(X)) if curvatures else targets)


# By default a CSR matrix would count as an object of a few bytes.
sizeof.register(CSR, lambda X: X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)


def load(chunk: Sequence[Any], partition: int, finite: bool) -> Rows:
    """Turn a chunk into arrays and check it; ``finite`` refuses NaN and inf in X."""
    with validate.naming(f"partition {partition}"):
        if not (isinstance(chunk, (tuple, list)) and len(chunk) in (2, 3)):
            raise TypeError(f"expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}")
        X = validate.as_features(_plain(chunk[0]), empty=True)
        if finite and not np.isfinite(X.data if isinstance(X, CSR) else X).all():
            raise ValueError("X: expected finite numbers, got NaN or inf")
        y = np.asarray(_plain(chunk[1]))
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]  # a dataframe of one column
        weight = None if len(chunk) == 2 or chunk[2] is None else np.asarray(_plain(chunk[2]))
        for name, array in (("y", y), ("sample_weight", weight)):
            if array is not None and array.shape[:1] != (len(X),):
                raise ValueError(
                    f"{name}: expected {len(X)} rows as X has, got shape {array.shape}"
                )
    return Rows(partition, X, y, weight)


def _plain(value: Any) -> Any:
    """Return the array of a pandas object, by rows; anything else as it is."""
    return np.ascontiguousarray(value.to_numpy()) if hasattr(value, "to_numpy") else value


def describe(rows: Rows) -> tuple[int, Kind]:
    """Return the number of rows, and what this partition must have in common with the others."""
    X, y = rows.X, rows.y
    n_targets = y.shape[1] if y.ndim == 2 else None
    kind = Kind(X.shape[1], X.dtype, isinstance(X, CSR), n_targets, rows.weight is not None)
    return len(X), kind


def largest_label(rows: Rows) -> int:
    """Return the largest label, -1 without rows."""
    with validate.naming(f"partition {rows.partition}"):
        labels, _ = validate.as_labels(rows.y, len(rows.X), None)
    return int(labels.max(initial=-1))


def prepare(partitions: list[Rows], encode: Any, options: dict[str, Any]) -> Share:
    """Make a share with its targets; ``encode`` turns y into numbers of classes."""
    chunks = []
    for rows in partitions:
        with validate.naming(f"partition {rows.partition}"):
            y = rows.y if encode is None else encode(rows.y)
            chunks.append(Chunk(rows.X, chunk_targets(y, rows.X, rows.weight, **options)))
    return Share(join(chunks))


def join(chunks: list[Chunk]) -> list[Chunk]:
    """Put small neighbours together; the bits of the sums are the same.

    A kernel begins every chunk with the first block of each slot, which nothing has prefetched.
    """
    joined: list[list[Chunk]] = []
    size = 0
    for chunk in chunks:
        size += sizeof(chunk.X)
        if not joined or size > _CHUNK_BYTES:
            joined.append([])
            size = sizeof(chunk.X)
        joined[-1].append(chunk)
    return [first.joined(rest) if rest else first for first, *rest in joined]


# One lock for each worker, by address, as a process may hold several workers.
_turns: dict[str, threading.Lock] = {}


@contextlib.contextmanager
def dask_threads(n_threads: Mapping[str, int]) -> Iterator[None]:
    """Let kernels use all threads that Dask gave this worker; tasks on one worker take turns.

    ``n_threads`` are those of every worker, by address; a worker not among them, which came after
    they were asked for, computes on one. Numba's count is put back after.
    """
    import numba

    address = get_worker().address
    with _turns.setdefault(address, threading.Lock()):
        before = numba.get_num_threads()
        numba.set_num_threads(min(n_threads.get(address, 1), numba.config.NUMBA_NUM_THREADS))
        try:
            yield
        finally:
            numba.set_num_threads(before)


class Shares:
    """The client's side: the rows by future, at first of each partition, then of every share.

    Shares are cut once, here, from the partitions alone and the number of shares. ``chunks`` are
    (X, y) or (X, y, sample_weight), delayed, ``sizes`` their numbers of rows where known.

    Dask keeps the graph that the futures came from, and makes a lost one again. No task in it names
    a worker, not even with ``allow_other_workers=True``: where at some moment no worker is left,
    Dask 2026.8 waits for the named one for ever, though others come. The price is that partitions
    are loaded anywhere, and that all but one in M of them travel to the worker of their share.
    """

    def __init__(
        self,
        chunks: Sequence[Any],
        sizes: Sequence[float] | None,
        n_shares: int | None = None,
        finite: bool = False,
    ) -> None:
        try:
            self.client = get_client()
        except ValueError:
            raise ValueError(
                "client: expected a running dask.distributed.Client, got none; start one with "
                "Client()"
            ) from None
        if n_shares is None:
            n_shares = max(len(self.client.nthreads()), 1)
        n_shares = min(validate.as_count(n_shares, "n_shares", at_least=1), len(chunks))
        edges = cut(sizes or [1.0] * len(chunks), n_shares)
        self.slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self.futures = self._compute(load, chunks, itertools.count(), itertools.repeat(finite))
        n_rows, kinds = zip(*self.map(describe), strict=True)
        self.n_rows, self.kind = [sum(n_rows[share]) for share in self.slices], kinds[0]
        for number, kind in enumerate(kinds):
            for name, expected, got in zip(_PROPERTIES, self.kind, kind, strict=True):
                if got != expected:
                    raise ValueError(
                        f"partition {number}: expected {name} {expected} as in partition 0, "
                        f"got {got}"
                    )

    def prepare(self, encode: Any, **options: Any) -> None:
        """Replace the partitions by shares, about as many on every worker."""
        # All partitions have been described, so they are there, and Dask places all shares at once.
        # Where it placed each as soon as its partitions were there, a worker got two shares and
        # another none in a third of the cases tried; so it does in one of sixteen.
        partitions = [self.futures[share] for share in self.slices]
        same = itertools.repeat(encode), itertools.repeat(options)
        self.futures = self._compute(prepare, partitions, *same)
        wait(self.futures)
        held: dict[str, list[int]] = {worker: [] for worker in self.client.nthreads()}
        homes = self.client.who_has(self.futures)
        for i, future in enumerate(self.futures):
            for worker in sorted(homes[future.key])[:1]:
                held.setdefault(worker, []).append(i)
        while held:
            order = sorted(held, key=lambda worker: len(held[worker]))
            fewest, most = held[order[0]], held[order[-1]]
            if len(most) < len(fewest) + 2:
                break
            fewest.append(most.pop())
            self._move(fewest[-1], order[0])

    def _move(self, i: int, worker: str) -> None:
        """Bring a share to a worker that holds less than the one where it is."""
        with contextlib.suppress(KeyError, ValueError):  # the worker is lost
            self.client.replicate(self.futures[i : i + 1], workers=[worker])
        # Two workers hold the share now. Dask runs this task on the one that holds less; its result
        # has the same arrays, and the share itself, which nothing uses any more, leaves both.
        self.futures[i : i + 1] = self._compute(copy.copy, self.futures[i : i + 1])
        wait(self.futures[i])

    def map(self, function: Callable[..., Any], *lists: Iterable[Any]) -> list[Any]:
        """Return the function's results for all futures, further arguments taken from lists."""
        return list(self.client.gather(self._compute(function, self.futures, *lists)))

    def _compute(self, function: Callable[..., Any], *lists: Iterable[Any]) -> list[Any]:
        """Futures of `calls`."""
        return list(self.client.compute(calls(function, *lists)))


def calls(function: Callable[..., Any], *lists: Iterable[Any]) -> list[Any]:
    """Delayed calls with arguments from lists; the first list says how many."""
    # Each call of this function names a group of tasks of its own. Dask takes a large group that
    # depends on little for tasks that make data, and sends them to idle workers, away from shares.
    group = f"{function.__name__}-{uuid.uuid4().hex}"
    call = delayed(function, pure=False)
    return [
        call(*arguments, dask_key_name=(group, i))
        for i, arguments in enumerate(zip(*lists, strict=False))
    ]


def cut(sizes: Sequence[float], n_shares: int) -> list[int]:
    """Edges of ``n_shares`` ranges of partitions, none empty, as equal in size as they come."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    goals = ends[-1] * np.arange(n_shares + 1) / n_shares
    edges = [int(e) for e in np.abs(ends[:, None] - goals).argmin(axis=0)]
    edges[0], edges[-1] = 0, len(sizes)
    for i in range(1, n_shares):
        edges[i] = min(max(edges[i], edges[i - 1] + 1), len(sizes) - n_shares + i)
    return edges
