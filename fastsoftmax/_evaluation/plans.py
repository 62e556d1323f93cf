"""How a problem is cut up: a pure function of shapes and of this machine.

Nothing here depends on the number of threads, so the same rows always meet the same slots in the
same order, and every way to run them ends in the same bits.
"""

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastsoftmax._kernels.linear.dense import GROUP_BYTES
from fastsoftmax._kernels.linear.panels import DEPTH
from fastsoftmax._kernels.softmax.losses import N_STATISTICS
from fastsoftmax._kernels.vector.emit import HEIGHT, TILE_VECTORS, VECTOR_BYTES, WIDTH
from fastsoftmax._kernels.vector.gather import SEGMENT

_MIB = 1 << 20
# A block of rows is packed into so many bytes, which stay in L2 beside the logits of a tile: at
# (1M, 100, 10) blocks of 64, 256 and 512 rows took 51, 37 and 44 ms.
_PACKED_BYTES = 128 << 10
# Where W and a slab are larger than L2, every block reads both from memory: at (100k, 512, 1000)
# blocks of 64 rows would move more bytes than the arithmetic hides, so blocks become larger.
_STREAMED_BYTES = 256 << 10
_ROWS_WHEN_STREAMED = 256
_MAX_BLOCK_ROWS = 512
# A slot then takes as many blocks one after another as have so many rows. A batch has one slab so,
# and not one for each block to be added up: that was a seventh of the time at (1024, 768, 1000).
_RUN_ROWS = 1024
# Of other problems a run has at least so many rows: at (5120, 784, 10), with blocks of 64 rows, to
# add 64 slabs up took a sixth of the time.
_FEWEST_RUN_ROWS = 256
_PAGE_BYTES = 4096
# The memory of all slabs together decides the number of slots: with too few of them cores are
# idle, and each one more must be zeroed and added up. Powers of two divide evenly among the cores:
# 9 slots on 2 cores cost (20k, 256, 10000) a tenth.
_SLAB_BYTES = 32 * _MIB
_MIN_SLOTS, _MAX_SLOTS = 16, 64
# Where the fewest take more than this, there are 8 or 4: at (20k, 256, 10000), whose logits take
# 763 MiB, 8 slots took 82 MiB, and 4 no longer on two cores.
_MAX_SLAB_BYTES = 64 * _MIB
# The package promises that slabs and scratch together stay under the larger of these two bounds,
# 256 MiB and 16 times the size of W, whatever N and the number of threads are.
_MEMORY_BYTES, _MEMORY_WEIGHTS = 256 * _MIB, 16
_COPIES = 3  # of W besides: W cast to the compute dtype, W packed, and its gradient
# The slabs of a sparse problem are read and written at random, so they must fit the last cache.
_SPARSE_SLAB_BYTES = 32 * _MIB
_FEWEST_SLOTS = 4
_SPARSE_TILES = 4
# Fewer multiply-adds are for one thread, and up to SHORT_WORK are done before another one has woken
# up (see `threads.run`).
_SERIAL_WORK, SHORT_WORK = 400_000, 5_000_000
# Threads share each run of blocks where they would be busy for less of the time if each took whole
# ones: at (3000, 768, 1000) two threads would have two runs and one. To share costs some 5 %.
_BUSY_SHARE = 0.85
# They share a block at a time where a slab stays in L2, so that P does so too: at (4000, 100, 1000)
# runs of 1,024 rows took 1.3 times as long.
_CACHED_SLAB_BYTES = 1 * _MIB


class Plan(NamedTuple):
    """Sizes in elements of the compute dtype; the kernels' block functions define the layouts."""

    tile: int
    panel: int  # features of a class that lie together in a slab
    parts: tuple[int, int]  # classes in the two parts of a slab, padding included
    block_rows: int
    run_blocks: int  # that a slot takes before the next slot has its turn
    padded_features: int
    n_slots: int
    slab_size: int
    scratch_size: int
    budget: int  # bytes that slabs and scratch may take


@functools.cache
def make_plan(n_features: int, n_classes: int, dtype: npt.DTypeLike) -> Plan:
    """Plan a dense problem of D features and K classes."""
    size = np.dtype(dtype).itemsize
    lanes = VECTOR_BYTES // size
    tile, panel = lanes * TILE_VECTORS, lanes * WIDTH
    padded = _round_up(n_features, panel)
    rows = _PACKED_BYTES // (padded * size)
    streamed = n_classes * padded * size > _STREAMED_BYTES
    if streamed:
        rows = max(rows, _ROWS_WHEN_STREAMED)
    rows = min(rows, _MAX_BLOCK_ROWS)
    rows = max(rows // tile * tile, tile)
    line = 64 // size
    slab = _round_up(n_classes * (padded + 1), line)
    slots = _power_of_two(_SLAB_BYTES // (slab * size), _MIN_SLOTS, _MAX_SLOTS)
    while slots > _FEWEST_SLOTS and slots * slab * size > _MAX_SLAB_BYTES:
        slots //= 2
    budget = _budget(n_features * n_classes * size)

    def scratch(rows: int) -> int:
        return _round_up((n_classes + padded) * rows + workspace_size(n_classes, tile), line)

    # Scratch for two workers must fit. What gains least is given up first: rows of a block beyond
    # _ROWS_WHEN_STREAMED, then slots, then more rows, and the last slots.
    while (slots * slab + 2 * scratch(rows)) * size > budget and (rows > tile or slots > 1):
        few = rows <= (_ROWS_WHEN_STREAMED if slots > _FEWEST_SLOTS else tile)
        rows, slots = (rows, slots // 2) if few else (_round_up(rows // 2, tile), slots)
    parts = (n_classes, 0)
    run = max((_RUN_ROWS if streamed else _FEWEST_RUN_ROWS) // rows, 1)
    return Plan(tile, panel, parts, rows, run, padded, slots, slab, scratch(rows), budget)


@functools.cache
def make_sparse_plan(n_features: int, n_classes: int, n_logits: int, dtype: npt.DTypeLike) -> Plan:
    """Plan a CSR problem; ``n_logits`` counts the columns of Wᵀ and of a direction beside it."""
    size = np.dtype(dtype).itemsize
    lanes = VECTOR_BYTES // size
    tile, line = lanes * TILE_VECTORS, 64 // size
    split = parts(n_classes, dtype)
    slab = _round_up(sum(split) * n_features + n_classes, line)
    slots = _power_of_two(_SPARSE_SLAB_BYTES // (slab * size), _FEWEST_SLOTS, _MIN_SLOTS)
    padded = _round_up(n_logits, lanes)
    scratch = (2 * padded + n_classes + N_STATISTICS + lanes * WIDTH) * tile + SEGMENT
    rows = _SPARSE_TILES * tile
    budget = _budget(n_features * n_classes * size)
    return Plan(tile, 1, split, rows, 1, n_features, slots, slab, _round_up(scratch, line), budget)


def _budget(weight_bytes: int) -> int:
    """Bytes that slabs and scratch may take beside the copies of W."""
    return max(_MEMORY_BYTES, _MEMORY_WEIGHTS * weight_bytes) - _COPIES * weight_bytes


def dense_work(plan: Plan, n_rows: int) -> int:
    """Cost of an evaluation in multiply-adds, with what reading a row takes expressed in them."""
    return n_rows * (plan.slab_size + 10 * plan.padded_features + 300)


def sparse_work(n_rows: int, n_nonzeros: int, n_classes: int) -> int:
    """Cost of a sparse evaluation in multiply-adds; a nonzero waits for memory besides."""
    return n_nonzeros * (n_classes + 30) + n_rows * (20 * n_classes + 300)


def n_workers(plan: Plan, n_rows: int, work: int, dtype: npt.DTypeLike, threads: int) -> int:
    """Threads worth using: never more than there are slots with rows, or memory for scratch."""
    if work < _SERIAL_WORK:
        return 1
    slots = min(n_runs(plan, -(-n_rows // plan.block_rows)), plan.n_slots)
    return max(min(threads, slots, _room(plan, dtype) // plan.scratch_size), 1)


def runs_are_few(plan: Plan, n_rows: int, threads: int) -> bool:
    """Whether slots have so few runs of blocks, and so large ones, that threads share each."""
    rows = min(plan.block_rows, n_rows)
    if threads < 2 or rows <= plan.tile or dense_work(plan, rows) <= SHORT_WORK // 2:
        return False
    runs = n_runs(plan, -(-n_rows // plan.block_rows))
    return n_rows < _BUSY_SHARE * threads * -(-runs // threads) * run_rows(plan)


def shared_rows(plan: Plan, n_rows: int, dtype: npt.DTypeLike) -> int:
    """Rows that threads share at a time: those of a run, or as many blocks as memory allows."""
    if plan.slab_size * np.dtype(dtype).itemsize <= _CACHED_SLAB_BYTES:
        return plan.block_rows
    room = _room(plan, dtype) // (plan.parts[0] + plan.padded_features) // plan.block_rows
    blocks = min(plan.run_blocks, -(-n_rows // plan.block_rows), room)
    return max(blocks, 1) * plan.block_rows


def room_size(plan: Plan, rows: int) -> int:
    """Elements of the room for shared rows; whole squares of vectors of logits are read there."""
    return (plan.parts[0] + plan.padded_features) * rows + plan.panel * plan.tile


def n_sharing_workers(plan: Plan, rows: int, threads: int) -> int:
    """Threads worth using where they share ``rows`` by tiles, and later by panels of features."""
    return min(threads, max(-(-rows // plan.tile), plan.padded_features // plan.panel))


def packs_weights(W: npt.NDArray[np.generic], n_rows: int, vectors: bool) -> bool:
    """Whether W is packed before so many rows meet it, or read where it lies.

    To pack it took an eighth of the time at (256, 768, 1000). Where rows lie a multiple of a page
    apart, the few that a product reads compete for a few of the cache's sets. If whole ``vectors``
    are read of rows that end within one, what follows the last row must be memory of our own.
    """
    row_bytes, last = W.strides[0], W.shape[1] * W.itemsize % VECTOR_BYTES
    return n_rows > _RUN_ROWS or row_bytes % _PAGE_BYTES == 0 or (vectors and last != 0)


def group_size(plan: Plan, rows: int, dtype: npt.DTypeLike) -> int:
    """Elements that the sums of a panel of features and a group of classes take at most."""
    size = np.dtype(dtype).itemsize
    panels = GROUP_BYTES // (HEIGHT * rows * size) + 2
    return _round_up(HEIGHT + min(plan.parts[0], panels * HEIGHT) * plan.panel, 64 // size)


def n_runs(plan: Plan, n_blocks: int) -> int:
    """Count the runs that so many blocks make."""
    return -(-n_blocks // plan.run_blocks)


def run_rows(plan: Plan) -> int:
    """Rows of a run."""
    return plan.run_blocks * plan.block_rows


def workspace_size(n_classes: int, tile: int) -> int:
    """Elements that a worker needs for a tile, besides what the block needs."""
    return (DEPTH + N_STATISTICS + n_classes) * tile


def _room(plan: Plan, dtype: npt.DTypeLike) -> int:
    """Elements of the budget that slabs leave."""
    return plan.budget // np.dtype(dtype).itemsize - plan.n_slots * plan.slab_size


def n_product_workers(work: int, threads: int) -> int:
    """Threads worth using for a product of matrices of ``work`` multiply-adds."""
    return threads if work > 2 * _SERIAL_WORK else 1


def parts(n_classes: int, dtype: npt.DTypeLike) -> tuple[int, int]:
    """Classes that a sparse problem keeps in whole vectors, and in a vector of 1, 2, 4, … lanes."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    whole, rest = n_classes // lanes * lanes, n_classes % lanes
    rest = 1 << (rest - 1).bit_length() if rest else 0
    return (whole + lanes, 0) if rest == lanes else (whole, rest)


def _power_of_two(n: int, low: int, high: int) -> int:
    """Return the largest power of two not above ``n``, within [low, high]."""
    return 1 << (min(max(n, low), high).bit_length() - 1)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
