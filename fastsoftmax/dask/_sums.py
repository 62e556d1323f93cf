"""Sums over all shares: one task a share, added up in an order that nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import dask
import numpy as np
import numpy.typing as npt
from dask import delayed

from fastsoftmax._evaluation.dataset import Dataset, evenly, stack
from fastsoftmax._evaluation.targets import checked_total, penalty
from fastsoftmax._kernels.modes import LOSS
from fastsoftmax.dask._direct import call_where_they_are
from fastsoftmax.dask._shares import Share, Shares, dask_threads

Array = npt.NDArray[Any]
Item = TypeVar("Item")

# Sums of one level of the tree that one task adds up.
_FAN_IN = 4
# Above this, W goes to one worker and from there to the others, not to each by way of the
# scheduler; and workers add sums up before the client gets them. Both cost a few milliseconds.
_LARGE = 1 << 20


class Sums(NamedTuple):
    """Σ loss, and Σ of gradients or Hessian products in W and b, over some shares."""

    loss: float
    weight: Array | None
    bias: Array | None


class Total:
    """Sums over all rows at ``W``, with the methods of `fastsoftmax._evaluation.accumulators.Accumulator`."""

    def __init__(self, sums: Sums, W: Array) -> None:
        self.sums, self.W = sums, W

    def loss(self, total: float, l2: float) -> float:
        """Σ losses / total + l2·‖W‖²."""
        return self.sums.loss / total + penalty(self.W, l2)

    def finish(self, total: float, l2: float) -> tuple[float, Array, Array]:
        """Return the loss, its gradient in W (K, D) and in b (K,), in float64."""
        assert self.sums.weight is not None and self.sums.bias is not None
        weight = self.sums.weight / np.float64(total)
        if l2:
            weight += 2 * l2 * self.W
        return self.loss(total, l2), weight, self.sums.bias / np.float64(total)


def sum_share(share: Share, point: tuple[Any, ...], worker: Any = None) -> Sums:
    """Sum over a share, on its worker; W, b, center and options of `Dataset.sum` make the point."""
    W, b, center, how = point
    # What came over the network may be read-only, and Numba would compile anew for it.
    W = np.require(W, None, ["C", "A", "W"])
    with dask_threads(worker):
        sums = share.sum(W, b, center, **how)
        if how.get("mode") == LOSS:
            return Sums(sums.loss(1.0, 0.0), None, None)
        return Sums(*sums.finish(1.0, 0.0))


def add(parts: Sequence[Sums]) -> Sums:
    """Sum in the order given, in float64."""
    loss, weight, bias = parts[0]
    for part in parts[1:]:
        loss += part.loss
        weight, bias = _plus(weight, part.weight), _plus(bias, part.bias)
    return Sums(loss, weight, bias)


def _plus(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else np.add(a, b, dtype=np.float64)


def tree(items: list[Item], add: Callable[[list[Item]], Item]) -> Item:
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
        self.total = checked_total(sum(shares.map(_total)))
        self._last: Any = None

    def sum(self, W: Array, b: Array | None, center: Array | None = None, **how: Any) -> Total:
        """See `Dataset.sum`."""
        large = W.nbytes > _LARGE
        point: Any = (W, b, center, how)
        if large:
            point = delayed(point, pure=False, traverse=False)
        else:
            keys = [future.key for future in self.shares.futures]
            parts = call_where_they_are(self.shares.client, sum_share, keys, point)
            if parts is not None:
                return Total(tree(parts, add), W)
        tasks = self.shares.tasks(sum_share, [point] * len(self.shares.futures))
        if large:
            tasks = [tree(tasks, delayed(add, pure=False))]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 PiB"}):
            futures = self.shares.client.compute(tasks)
        # The client speaks every 10 ms at most: told now, that the last results may go delays no
        # evaluation; told before, it delayed this one.
        self._last = futures
        return Total(tree(self.shares.client.gather(futures), add), W)

    def sample(self, n_rows: int) -> tuple[Any, Array]:
        """See `Dataset.sample`."""
        chosen = evenly(n_rows, self.n_rows)
        ends = np.cumsum(self.shares.n_rows)
        parts = [
            part - first
            for part, first in zip(
                np.split(chosen, np.searchsorted(chosen, ends[:-1])),
                [0, *ends[:-1]],
                strict=True,
            )
        ]
        matrices, weights = zip(*self.shares.map(Share.rows, parts), strict=True)
        return stack(matrices), np.concatenate(weights)


def _total(share: Share) -> float:
    return share.total
