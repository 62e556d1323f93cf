"""The block kernel for sparse features in rows (CSR): the same pass as `dense`, by nonzeros.

    forward    z_i[:] = b + Σ_j value_j · Wᵀ[column_j, :]     per row, classes along the lanes
    loss       the same tile of logits as for dense features, transposed on the way
    backward   G[column_j, :] += value_j · (p - y)_i[:]       per row

W and the gradient lie by features, in two parts: (D, whole) has as many classes as fill whole
vectors, and behind it (D, other) the rest, padded to a power of two. With a row for each feature,
(D, 20) made every nonzero meet two cache lines and use 80 of their 128 bytes, and with a vocabulary
of 50,000 the traffic beyond L2 takes most of the time.

The helpers take `Nonzeros` instead of the problem, whose arrays would have their references counted
at every call: that took 60 ns a row.
"""

from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.linear.dense import Tile, add_row_sums, transform_tile
from fastsoftmax._kernels.linear.panels import panel_features
from fastsoftmax._kernels.modes import DIAGONAL, GRADIENT
from fastsoftmax._kernels.softmax.losses import N_STATISTICS, tile_rows
from fastsoftmax._kernels.vector.gather import AHEAD, MAX_VECTORS, SEGMENT, Segment, gather, scatter
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_int64_pointer,
    as_pointer,
    lane_count,
    pointer,
)
from fastsoftmax._kernels.vector.squares import load_rows, store_rows, transpose


class SparseProblem(NamedTuple):
    """What a kernel needs to know of CSR data, by address: one compile serves every array."""

    indptr: int  # int64 (N + 1,), our own copy: checked, and nobody else changes it
    indices: int
    index_type: np.ndarray  # (0,), of the indices' dtype
    values: int
    source: np.ndarray  # (0,), of the values' dtype
    slots: int  # int64 (blocks,): the slot a block belongs to
    wrong: int  # int64 (1,), set where a column index turns out to be beyond D
    n_rows: int
    first_block: int
    n_features: int
    n_classes: int
    n_logits: int
    block_rows: int
    run_blocks: int  # 1: blocks go to slots one by one
    W_t: int  # (D, whole_logits) and behind it (D, other_logits), C order
    whole_logits: int  # in the first part of W_t, padding included
    other_logits: int  # in the second
    whole_classes: int  # the same of the gradient
    other_classes: int
    weights: int  # W, for the gradient in X only
    packed: bool  # see `DenseProblem`
    bias: int  # (n_logits,) padded to whole vectors
    mode: int
    out: int
    denominator: float


@kernel
def assign_blocks(indptr, block_rows, loads, slots):
    """Give each block to the slot with the fewest nonzeros (and rows) so far, ``loads``.

    Blocks are assigned in order, so those of a chunk go where they would in the whole data. The
    first blocks go to the slots in turn.
    """
    n_rows = len(indptr) - 1
    for block in range(len(slots)):
        first = block * block_rows
        stop = min(first + block_rows, n_rows)
        slot = np.argmin(loads)
        loads[slot] += indptr[stop] - indptr[first] + stop - first
        slots[block] = slot


class Nonzeros(NamedTuple):
    """Pointers to the rows' nonzeros."""

    indptr: Any
    indices: Any
    values: Any
    n_rows: int
    n_features: int


@helper
def segment_at(nonzeros, j, count, values):
    """The ``count`` nonzeros from the j-th on, and as many that come AHEAD later, if there are."""
    later_exist = j + AHEAD + count <= nonzeros.indptr[nonzeros.n_rows]
    later = advance(nonzeros.indices, j + AHEAD if later_exist else j)
    return Segment(count, advance(nonzeros.indices, j), later, nonzeros.n_features, values)


@helper
def vectors_at(k, whole, rest, lanes):
    """(whole vectors, lanes of the rest) that are taken together from class k on; see `gather`."""
    width = min(MAX_VECTORS, (whole - k) // lanes)
    return width, rest if width * lanes == whole or width == 0 else 0


@helper
def gather_row(nonzeros, weights, bias, row, z):
    """Leave the logits of a row in ``z``, whole vectors; return whether an index was wrong.

    ``weights`` are a pointer to both parts, and the classes in each.
    """
    matrix, whole, rest = weights
    first, stop = nonzeros.indptr[row], nonzeros.indptr[row + 1]
    second, wrong, before = advance(matrix, nonzeros.n_features * whole), 0, bias
    # An empty row takes one step too, of no nonzeros.
    for j in range(first, max(stop, first + 1), SEGMENT):
        values, k = advance(nonzeros.values, j), 0
        segment = segment_at(nonzeros, j, min(stop - j, SEGMENT), values)
        while k < whole + rest:
            width, tail = vectors_at(k, whole, rest, lane_count(z))
            matrices = advance(matrix, k), whole, second
            wrong |= gather(width, tail, segment, matrices, advance(before, k), advance(z, k))
            k += width * lane_count(z) + tail
        before = z
    return wrong


@helper
def scatter_segment(segment, sums, r):
    """Add a segment's nonzeros times ``r`` to the sums; returns whether an index was wrong."""
    matrix, whole, rest = sums
    second, wrong, k = advance(matrix, segment.n_columns * whole), 0, 0
    while k < whole + rest:
        width, tail = vectors_at(k, whole, rest, lane_count(r))
        matrices = advance(matrix, k), whole, second
        wrong |= scatter(width, tail, segment, matrices, advance(r, k))
        k += width * lane_count(r) + tail
    return wrong


@helper
def scatter_row(nonzeros, sums, row, r, squared, squares):
    """Add a row's nonzeros times ``r`` to the sums; return whether an index was wrong.

    For the Hessian's diagonal they are ``squared`` first, in ``squares``.
    """
    stop, wrong = nonzeros.indptr[row + 1], 0
    for j in range(nonzeros.indptr[row], stop, SEGMENT):
        count, values = min(stop - j, SEGMENT), advance(nonzeros.values, j)
        if squared:
            for i in range(count):
                squares[i] = values[i] * values[i]
            wrong |= scatter_segment(segment_at(nonzeros, j, count, squares), sums, r)
        else:
            wrong |= scatter_segment(segment_at(nonzeros, j, count, values), sums, r)
    return wrong


@helper
def transpose_tile(source, source_row, rows, columns, target, target_row):
    """target[c, r] = source[r, c], in whole vectors."""
    lanes = lane_count(source)
    for r in range(0, rows, lanes):
        for c in range(0, columns, lanes):
            vectors = load_rows(advance(source, r * source_row + c), source_row, source)
            store_rows(advance(target, c * target_row + r), target_row, transpose(vectors))


def accumulate_sparse_block(problem, terms, number, following, gradient, fresh, scratch):
    """Add a block's gradient to ``gradient`` (the two parts, K bias sums); return its loss.

    Scratch holds a tile of logits, one of soft targets, the logits by row, what `transform_tile`
    needs, and squares of values.
    """
    z, g = pointer(scratch), pointer(gradient)
    tile, n_classes, n_logits = tile_rows(z), problem.n_classes, problem.n_logits
    padded = (n_logits + lane_count(z) - 1) // lane_count(z) * lane_count(z)
    t = advance(z, padded * tile)
    by_row = advance(t, n_classes * tile)
    statistics = advance(by_row, padded * tile)
    dx = advance(statistics, N_STATISTICS * tile)
    squares = advance(dx, panel_features(dx) * tile)
    nonzeros = Nonzeros(
        as_int64_pointer(problem.indptr), as_pointer(problem.indices, problem.index_type),
        as_pointer(problem.values, problem.source), problem.n_rows, problem.n_features,
    )  # fmt: skip
    weights = as_pointer(problem.W_t, z), problem.whole_logits, problem.other_logits
    sums = g, problem.whole_classes, problem.other_classes
    bias, squared = as_pointer(problem.bias, z), problem.mode == DIAGONAL
    bias_sums = advance(g, problem.n_features * (problem.whole_classes + problem.other_classes))
    first, loss, wrong = number * problem.block_rows, 0.0, 0
    if fresh and problem.mode >= GRADIENT:
        gradient[:] = 0
    stop = min(first + problem.block_rows, problem.n_rows)
    for row in range(first, stop, tile):
        here = Tile(row, min(tile, stop - row), z, t, statistics)
        for r in range(here.rows):
            wrong |= gather_row(nonzeros, weights, bias, row + r, advance(by_row, r * padded))
        for i in range(here.rows * padded, tile * padded):  # see `read_tile`
            by_row[i] = 0
        transpose_tile(by_row, padded, tile, n_logits, z, tile)
        loss += transform_tile(problem, terms, here, dx)
        if problem.mode >= GRADIENT:
            add_row_sums(z, n_classes, bias_sums)
            transpose_tile(z, tile, n_classes, here.rows, by_row, padded)
            for r in range(here.rows):
                p = advance(by_row, r * padded)
                wrong |= scatter_row(nonzeros, sums, row + r, p, squared, squares)
    if wrong != 0:
        as_int64_pointer(problem.wrong)[0] = 1
    return loss
