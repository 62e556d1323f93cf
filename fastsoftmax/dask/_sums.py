"""Sums over all shares: one task a share, added up in an order that nothing changes.

At (4M, 100, 10) on two processes Dask's tasks take 9.5 ms of an evaluation, 5 before and 5 after
67 ms of work: the way through the graph, queues that wait for more to send, and a second round trip
for the results. A message to each worker in place of its task took 3 to 4 ms; it was given up, as
it needed what is inside Dask's scheduler and workers.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dask
import numpy as np
from dask import delayed

from fastsoftmax._evaluation.dataset import Dataset, evenly, stack
from fastsoftmax._evaluation.targets import checked_total, penalty
from fastsoftmax._kernels.modes import HESSIAN, LOSS
from fastsoftmax.dask._shares import Share, Shares, calls, dask_threads
from fastsoftmax.reference import Array

# Σ loss, and Σ of gradients or Hessian products in W and b, over some shares; or 0, Σ of Hessians
# and nothing.
Sums = tuple[float, Array | None, Array | None]

# Sums of one level of the tree that one task adds up.
_FAN_IN = 4
# Above this, W goes to one worker and from there to the others, not to each by way of the
# scheduler; and workers add sums up before the client gets them. Both cost a few milliseconds.
_LARGE = 1 << 20


class Total(NamedTuple):
    """Sums over all rows at ``W``, with the methods of an accumulator (see `Dataset.sum`)."""

    sums: Sums
    W: Array

    def loss(self, total: float, l2: float) -> float:
        """Σ losses / total + l2·‖W‖²."""
        return float(self.sums[0]) / total + penalty(self.W, l2)

    def finish(self, total: float, l2: float) -> tuple[float, Array, Array]:
        """Return the loss, its gradient in W (K, D) and in b (K,), in float64."""
        _, weight, bias = self.sums
        assert weight is not None and bias is not None
        weight = weight / np.float64(total)
        if l2:
            weight += 2 * l2 * self.W
        return self.loss(total, l2), weight, bias / np.float64(total)

    def hessian(self, total: float) -> Array:
        """Return the Hessian over ``total``, without the penalty."""
        H = self.sums[1]
        assert H is not None
        return H / np.float64(total)


def sum_share(share: Share, point: tuple[Any, ...]) -> Sums:
    """Sum over a share; the arguments of `Dataset.sum` and `dask_threads` make the point."""
    W, b, center, how, n_threads = point
    # What came over the network may be read-only, and Numba would compile anew for it.
    W = np.require(W, None, ["C", "A", "W"])
    with dask_threads(n_threads):
        sums = share.sum(W, b, center, **how)
        if how["mode"] == LOSS:
            return sums.loss(1.0, 0.0), None, None
        if how["mode"] == HESSIAN:
            return 0.0, sums.hessian(1.0), None
        loss, weight, bias = sums.finish(1.0, 0.0)
        return loss, weight, bias


def add(terms: Sequence[Sums]) -> Sums:
    """Sum in the order given, in float64."""
    plus = functools.partial(np.add, dtype=np.float64)
    losses, *gradients = zip(*terms, strict=True)
    weight, bias = (None if g[0] is None else functools.reduce(plus, g) for g in gradients)
    return functools.reduce(plus, losses), weight, bias


def tree(items: list[Any], add: Callable[[list[Any]], Any]) -> Any:
    """Add items up, neighbours first: the order follows from their number alone."""
    while len(items) > 1:
        items = [add(items[i : i + _FAN_IN]) for i in range(0, len(items), _FAN_IN)]
    return items[0]


class Distributed(Dataset):
    """Rows that lie on Dask's workers; of them the client sees sums and samples."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        kind = shares.kind
        self.n_rows, self.n_features = sum(shares.n_rows), kind.n_features
        self.dtype, self.is_sparse = kind.dtype, kind.is_sparse
        self.total = checked_total(sum(shares.map(getattr, itertools.repeat("total"))))
        self.n_threads = shares.client.nthreads()
        self.results: list[Any] = []

    def sum(self, W: Array, b: Array | None, center: Array | None = None, **how: Any) -> Total:
        """See `Dataset.sum`."""
        client = self.shares.client
        point: Any = (W, b, center, how, self.n_threads)
        if W.nbytes > _LARGE:
            point = delayed(point, pure=False, traverse=False)
        tasks = calls(sum_share, self.shares.futures, itertools.repeat(point))
        result_size = W.size**2 if how["mode"] == HESSIAN else W.size
        if result_size * W.itemsize > _LARGE:
            tasks = [tree(tasks, delayed(add, pure=False))]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 PiB"}):
            results = client.compute(tasks)
        # Dask's client sends a message every 10 ms at most. This assignment makes it send one, to
        # release the last evaluation's results; before `compute` it would delay the tasks by 10 ms.
        self.results = results
        # Workers may have come. They are asked for while these compute, for the next evaluation.
        self.n_threads = client.nthreads()
        return Total(tree(client.gather(results), add), W)

    def sample(self, n_rows: int) -> tuple[Any, Array]:
        """See `Dataset.sample`."""
        ends = np.cumsum(self.shares.n_rows)
        chosen = evenly(n_rows, self.n_rows)
        chosen_of = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        numbers = [rows - first for rows, first in zip(chosen_of, [0, *ends[:-1]], strict=True)]
        matrices, weights = zip(*self.shares.map(Share.rows, numbers), strict=True)
        return stack(matrices), np.concatenate(weights)
