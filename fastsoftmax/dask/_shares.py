"""What Dask's workers hold and do: their share of the rows, and its sums.

Functions here run on workers, but for `Shares`, which is the client's side of it.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from dask import delayed
from distributed import Client, get_client, get_worker

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.backend import jit_disabled
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.dataset import Chunk, Chunks, Dataset
from fastsoftmax._evaluation.stream import reblock
from fastsoftmax._evaluation.targets import RowSum, make_targets

Array = npt.NDArray[Any]

_CHUNK_BYTES = 256 << 20


class Rows(NamedTuple):
    """A partition as it was given: X, y and weights, checked for what needs no options."""

    X: Array | CSR
    y: Array
    weight: Array | None


class Kind(NamedTuple):
    """What partitions must agree in."""

    n_features: int
    dtype: np.dtype[Any]
    is_sparse: bool
    n_targets: int | None  # columns of y; None for labels
    weighted: bool


class Share(Dataset):
    """Consecutive partitions on one worker, summed as if they were one array."""

    def __init__(self, parts: list[Chunk]) -> None:
        self.parts = parts
        X = parts[0].X
        self.n_rows, self.n_features = sum(map(len, parts)), X.shape[1]
        self.dtype, self.is_sparse = X.dtype, isinstance(X, CSR)
        total = RowSum()
        for _, targets in parts:
            if targets.counted is not None:
                total.add(targets.counted)
        weighted = parts[0].targets.counted is not None
        self.total = total.finish() if weighted else float(self.n_rows)

    def __sizeof__(self) -> int:
        # Dask asks before it moves a task away from its rows.
        return sum(_n_bytes(part) for part in self.parts)

    def chunks(self, block_rows: int, *, curvatures: bool = False) -> Chunks:
        """See `Dataset.chunks`."""
        for X, targets in reblock(self.parts, block_rows):
            yield Chunk(X, targets.curvatures(len(X)) if curvatures else targets)


def _n_bytes(part: Chunk) -> int:
    X, targets = part
    arrays: list[Array | None] = [X.data, X.indices, X.indptr] if isinstance(X, CSR) else [X]
    arrays += [targets.labels, targets.probabilities, targets.weight]
    return sum(array.nbytes for array in arrays if array is not None)


@contextlib.contextmanager
def naming(partition: int) -> Iterator[None]:
    """Put a partition's number before a complaint."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"partition {partition}: {error}") from error


def load(chunks: Sequence[Sequence[Any]], first: int, finite: bool) -> list[Rows]:
    """Partitions from number ``first`` on as arrays; ``finite`` refuses NaN and inf in X."""
    loaded = []
    for partition, chunk in enumerate(chunks, first):
        with naming(partition):
            if not (isinstance(chunk, (tuple, list)) and len(chunk) in (2, 3)):
                raise TypeError(
                    f"expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}"
                )
            X = validate.as_features(_plain(chunk[0]), empty=True)
            if finite and not np.isfinite(X.data if isinstance(X, CSR) else X).all():
                raise ValueError("X: expected finite numbers, got NaN or inf")
            y = np.asarray(_plain(chunk[1]))
            weight = None if len(chunk) == 2 or chunk[2] is None else np.asarray(_plain(chunk[2]))
            for name, array in (("y", y), ("sample_weight", weight)):
                if array is not None and array.shape[:1] != (len(X),):
                    raise ValueError(
                        f"{name}: expected {len(X)} rows as X has, got shape {array.shape}"
                    )
            loaded.append(Rows(X, y, weight))
    return loaded


def _plain(value: Any) -> Any:
    """Return the array of a pandas object, by rows; anything else as it is."""
    return np.ascontiguousarray(value.to_numpy()) if hasattr(value, "to_numpy") else value


def describe(share: list[Rows]) -> list[tuple[int, Kind]]:
    """Rows and kind of each partition."""
    return [
        (
            len(X),
            Kind(
                X.shape[1],
                X.dtype,
                isinstance(X, CSR),
                y.shape[1] if y.ndim == 2 else None,
                weight is not None,
            ),
        )
        for X, y, weight in share
    ]


def largest_label(share: list[Rows], first: int) -> int:
    """Return the largest label, -1 without rows."""
    largest = -1
    for partition, (X, y, _) in enumerate(share, first):
        with naming(partition):
            labels, _ = validate.as_labels(y, len(X), None)
        largest = max(largest, int(labels.max(initial=-1)))
    return largest


def prepare(
    share: list[Rows], first: int, encode: Callable[[Array], Array] | None, options: dict[str, Any]
) -> Share:
    """Make the targets; ``encode`` turns y into numbers of classes."""
    parts = []
    for partition, (X, y, weight) in enumerate(share, first):
        with naming(partition):
            targets = make_targets(
                y if encode is None else encode(y),
                len(X),
                dtype=validate.compute_dtype(X.dtype, "X"),
                sample_weight=weight,
                reduction="sum",  # a partition may well have no weight
                **options,
            )
        parts.append(Chunk(X, targets))
    return Share(join(parts))


def join(parts: list[Chunk]) -> list[Chunk]:
    """Put small neighbours together: of every piece a kernel must fetch each slot's first block.

    The sums' bits are the same.
    """
    groups: list[list[Chunk]] = []
    size = 0
    for part in parts:
        size += _n_bytes(part)
        if not groups or size > _CHUNK_BYTES:
            groups.append([])
            size = _n_bytes(part)
        groups[-1].append(part)
    return [group[0].joined(group[1:]) if len(group) > 1 else group[0] for group in groups]


class Turns:
    """Which threads of a worker compute: never more than Dask gave it, whatever its tasks ask for.

    A task takes its part of the worker's threads, all of them when it is alone, and waits while
    there is none.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0

    @contextlib.contextmanager
    def take(self, n_threads: int, n_tasks: int) -> Iterator[int]:
        """Take threads, of ``n_threads`` that ``n_tasks`` tasks share."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < n_threads)
            n = max(min(n_threads // max(n_tasks, 1), n_threads - self._taken), 1)
            self._taken += n
        try:
            yield n
        finally:
            with self._changed:
                self._taken -= n
                self._changed.notify_all()


_turns: dict[str, Turns] = {}  # by worker, as a process may hold several


@contextlib.contextmanager
def dask_threads(worker: Any = None) -> Iterator[int]:
    """Within it kernels use the threads Dask gives this task; Numba's count is put back after."""
    worker = get_worker() if worker is None else worker
    state, turns = worker.state, _turns.setdefault(worker.address, Turns())
    with turns.take(state.nthreads, len(state.executing)) as n:
        if jit_disabled():
            yield n
            return
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
        try:
            yield n
        finally:
            numba.set_num_threads(before)


class Shares:
    """The client's side: every worker's share of the rows, by future.

    Shares are cut once, here, from the partitions alone and the number of shares. Their futures
    keep the graph they came from, so that Dask makes a lost one again.
    """

    def __init__(
        self,
        chunks: Sequence[Sequence[Any]],
        sizes: Sequence[float] | None,
        n_shares: int | None = None,
        finite: bool = False,
    ) -> None:
        self.client = default_client()
        workers = sorted(self.client.nthreads())
        if n_shares is None:
            n_shares = max(len(workers), 1)
        n_shares = validate.as_count(n_shares, "n_shares", at_least=1)
        edges = cut(sizes or [1.0] * len(chunks), min(n_shares, len(chunks)))
        self.first = edges[:-1]
        self.futures = []
        for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
            share = delayed(load, pure=False)(list(chunks[a:b]), a, finite)
            where = [workers[i * len(workers) // n_shares]] if workers else None
            self.futures.append(
                self.client.compute(share, workers=where, allow_other_workers=bool(workers))
            )
        self.n_rows, self.kind = self._agree(self.map(describe))
        self.client.run_on_scheduler(free, [future.key for future in self.futures])

    def _agree(self, described: list[list[tuple[int, Kind]]]) -> tuple[list[int], Kind]:
        """Rows of the shares and the kind of all partitions."""
        partitions = [partition for share in described for partition in share]
        kind = partitions[0][1]
        names = ("X of n_features =", "X of dtype", "sparse X:", "columns of y:", "weights:")
        for number, (_, other) in enumerate(partitions):
            for name, expected, got in zip(names, kind, other, strict=True):
                if got != expected:
                    raise ValueError(
                        f"partition {number}: expected {name} {expected} as in partition 0, "
                        f"got {got}"
                    )
        return [sum(n for n, _ in share) for share in described], kind

    def map(self, function: Callable[..., Any], *lists: Sequence[Any]) -> list[Any]:
        """Return the function's results for all shares, further arguments taken from lists."""
        return list(self.client.gather(self.submit(function, *lists)))

    def submit(self, function: Callable[..., Any], *lists: Sequence[Any]) -> list[Any]:
        """Futures of `map`."""
        return list(self.client.compute(self.tasks(function, *lists)))

    def tasks(self, function: Callable[..., Any], *lists: Sequence[Any]) -> list[Any]:
        """Delayed calls of `map`."""
        # A group of tasks of its own: Dask takes a large one of few dependencies for the making of
        # data, and sends it to whoever is idle, away from the shares.
        group = f"{function.__name__}-{uuid.uuid4().hex}"
        call = delayed(function, pure=False)
        return [
            call(*arguments, dask_key_name=(group, i))
            for i, arguments in enumerate(zip(self.futures, *lists, strict=True))
        ]

    def prepared(self, encode: Callable[[Array], Array] | None, **options: Any) -> Shares:
        """Replace the partitions by a `Share` each."""
        new = object.__new__(Shares)
        new.__dict__.update(self.__dict__)
        same = [encode] * len(self.first), [options] * len(self.first)
        new.futures = self.submit(prepare, self.first, *same)
        return new


def free(keys: Sequence[Any], dask_scheduler: Any) -> None:
    """Forget where shares were to be loaded, on the scheduler.

    A wish only, and yet Dask 2026.8 waits for ever for that worker where at some moment none is
    left, though others come.
    """
    tasks = [dask_scheduler.tasks[key] for key in keys if key in dask_scheduler.tasks]
    while tasks:
        task = tasks.pop()
        if task.worker_restrictions and task.loose_restrictions:
            task.worker_restrictions = None
            tasks.extend(task.dependencies)


def default_client() -> Client:
    """Return Dask's current client."""
    try:
        return get_client()
    except ValueError:
        raise ValueError(
            "client: expected a running dask.distributed.Client, got none; start one with Client()"
        ) from None


def cut(sizes: Sequence[float], n_shares: int) -> list[int]:
    """Edges of ``n_shares`` ranges of partitions, none empty, as equal in size as they come."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    goals = ends[-1] * np.arange(n_shares + 1) / n_shares
    edges = [int(e) for e in np.abs(ends[:, None] - goals).argmin(axis=0)]
    edges[0], edges[-1] = 0, len(sizes)
    for i in range(1, n_shares):
        edges[i] = min(max(edges[i], edges[i - 1] + 1), len(sizes) - n_shares + i)
    return edges
