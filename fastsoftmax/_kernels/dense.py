"""The block kernel for dense features: loss and gradient of a block of rows in one pass.

A block is packed once (strides, centring and ragged edges end there) and then only tiles are
touched:

    forward    Zᵀ[k, rows] = b[k] + Σ_d W[k, d]·Xᵀ[d, rows]      per tile of rows
    softmax    Zᵀ becomes s·(P - Y)ᵀ                             per tile of rows
    backward   G[k, d…] += Σ_rows P[k, row]·X[row, d…]           per panel of features

Both products are the same micro-kernel, `contract`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax._kernels.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.rows import (
    add_row_sums,
    exp_shifted,
    row_maxima,
    scale_rows,
    tile_rows,
    weighted_loss,
)
from fastsoftmax._kernels.simd import advance, as_pointer, lane_count, load, pointer
from fastsoftmax._kernels.tiles import (
    contract,
    load_rows,
    load_rows_within,
    store_rows,
    subtract_from_rows,
    transpose,
)

# Products are summed over this many features at a time: the slice of Xᵀ they read stays in L1, and
# long rows keep their digits (one chain of 1000 products lost twice what BLAS loses).
DEPTH = 128
COPY_ABOVE_CLASSES = 48


class Problem(NamedTuple):
    """What a kernel needs to know of the data; X by address, so that one compile serves all."""

    address: int
    source: np.ndarray  # (0,), of X's dtype
    by_row: bool  # X[i, d] lies at address[i * stride + d], otherwise at address[i + d * stride]
    stride: int  # in elements
    plain: bool  # by row, of the compute dtype, rows in ascending order, centre 0
    n_rows: int
    first_block: int  # number of this data's first block, where it continues earlier data
    n_features: int
    n_classes: int
    block_rows: int
    W: np.ndarray  # (K, D), C order
    bias: np.ndarray  # (K,)
    labels: np.ndarray  # (N,) int64
    weight: np.ndarray  # (N,), or (0,) for ones
    center: np.ndarray  # (D,) padded to whole vectors


@helper
def read_tile(problem, x, first, rows, start, stop, x_t, packed, keep):
    """Features [start, stop) of ``rows`` rows of X, minus the centre, transposed into ``x_t``.

    With ``keep``, untransposed into the block's panels as well: panel q holds features
    [q·TILE, (q+1)·TILE) of the whole block, row after row.
    """
    lanes, tile = lane_count(packed), tile_rows(packed)
    center = pointer(problem.center)
    step = problem.stride
    for r in range(0, rows, lanes):
        for d in range(start, stop, lanes):
            height, width = rows - r, problem.n_features - d
            row, column = (step, 1) if problem.by_row else (1, step)
            if not problem.by_row:
                height, width = width, height
            source = advance(x, (first + r) * row + d * column)
            if height >= lanes and width >= lanes:
                vectors = load_rows(source, step, packed)
            else:
                vectors = load_rows_within(source, step, height, width, packed)
            if not problem.by_row:
                vectors = transpose(vectors)
            vectors = subtract_from_rows(vectors, load(advance(center, d)))
            store_rows(advance(x_t, (d - start) * tile + r), tile, transpose(vectors))
            if keep:
                panel = (d // tile) * problem.block_rows * tile + d % tile
                store_rows(advance(packed, panel + r * tile), tile, vectors)


@helper
def forward_tile(problem, start, stop, x_t, z, ahead, pace):
    """Add features [start, stop) to the logits of a tile; the first ones start from the bias.

    Returns ``ahead``, moved on by what has been prefetched.
    """
    tile = tile_rows(z)
    n_features, n_classes = problem.n_features, problem.n_classes
    W, bias = pointer(problem.W), pointer(problem.bias)
    panels = (n_classes + HEIGHT - 1) // HEIGHT
    for panel in range(panels):
        k = panel * n_classes // panels
        height = (panel + 1) * n_classes // panels - k
        logits = advance(z, k * tile)
        before, before_row = (advance(bias, k), 0) if start == 0 else (logits, tile)
        contract(
            height, WIDTH, stop - start,
            advance(W, k * n_features + start), n_features,
            x_t, tile,
            logits, tile,
            before, before_row,
            ahead, pace,
        )  # fmt: skip
        ahead += (stop - start) * pace
    return ahead


@helper
def backward_block(problem, rows, p, x, x_row, x_panel, gradient, ahead, end):
    """gradient[k, :] += Σ_rows p[k, row]·X[row, :], panel by panel of TILE features.

    Panels of X lie ``x_panel`` elements apart. Those of the gradient are K rows of TILE
    elements each, one panel after the other: in rows of D the panel's lines would compete for an
    eighth of the cache's sets where D is a power of two.
    """
    lanes, tile = lane_count(p), tile_rows(p)
    n_classes = problem.n_classes
    vectors = (problem.n_features + lanes - 1) // lanes
    panels = (n_classes + HEIGHT - 1) // HEIGHT
    for q in range(0, vectors, WIDTH):
        width = min(WIDTH, vectors - q)
        # Row tiles outside classes: a tile's panel of X stays in L1 while G passes through.
        for first in range(0, rows, tile):
            x_tile = advance(x, q // WIDTH * x_panel + first * x_row)
            for panel in range(panels):
                k = panel * n_classes // panels
                height = (panel + 1) * n_classes // panels - k
                g = advance(gradient, (q * lanes * n_classes) + k * tile)
                pace = prefetch_pace(problem, ahead, end)
                contract(
                    height, width, min(tile, rows - first),
                    advance(p, first * n_classes + k * tile), tile,
                    x_tile, x_row,
                    g, tile,
                    g, tile,
                    ahead, pace,
                )  # fmt: skip
                ahead += tile * pace


@helper
def softmax_tile(problem, first, rows, z, statistics):
    """Zᵀ becomes weight·(P - Y)ᵀ; returns the tile's weighted loss."""
    tile = tile_rows(z)
    maxima = statistics
    sums = advance(statistics, tile)
    gap = advance(statistics, 2 * tile)
    weight = advance(statistics, 3 * tile)
    row_maxima(z, problem.n_classes, maxima)
    for r in range(rows):
        gap[r] = maxima[r] - z[problem.labels[first + r] * tile + r]
        weight[r] = problem.weight[first + r] if problem.weight.size else 1.0
    for r in range(rows, tile):
        gap[r] = 0.0
        weight[r] = 0.0
    exp_shifted(z, problem.n_classes, maxima, sums)
    scale_rows(z, problem.n_classes, weight, sums)
    for r in range(rows):
        z[problem.labels[first + r] * tile + r] -= weight[r]
    return weighted_loss(sums, gap, weight)


@helper
def prefetch_pace(problem, ahead, end):
    """Bytes to prefetch at each step of a product: the next block in time for its turn.

    A tile has about 4·D cache lines, and 2·D steps for every HEIGHT classes.
    """
    if ahead >= end:
        return 0
    return 128 if problem.n_classes <= HEIGHT else 64


@helper
def needs_copy(problem, block, lanes):
    """Whether the backward product cannot read a block of X where it lies.

    It reads whole vectors, past the end of a row: rows of the data must follow. From some classes
    on a copy in panels pays even so, as rows a power of two apart evict each other from L1.
    """
    if not problem.plain or problem.n_classes > COPY_ABOVE_CLASSES:
        return True
    rows_after = problem.n_rows - (block + 1) * problem.block_rows
    return rows_after * problem.stride < lanes


@helper
def accumulate_block(problem, block, next_block, gradient, scratch):
    """Add a block's gradient to ``gradient`` (K padded rows, then K bias sums); its loss."""
    p, g = pointer(scratch), pointer(gradient)
    x = as_pointer(problem.address, problem.source)
    lanes, tile = lane_count(p), tile_rows(p)
    n_features, n_classes = problem.n_features, problem.n_classes
    first = block * problem.block_rows
    rows = min(problem.block_rows, problem.n_rows - first)
    copy = needs_copy(problem, block, lanes)
    panel_size = tile * problem.block_rows
    packed = advance(p, n_classes * problem.block_rows)
    x_t = advance(packed, (n_features + tile - 1) // tile * panel_size)
    statistics = advance(x_t, DEPTH * tile)
    bias_sums = advance(g, n_classes * ((n_features + tile - 1) // tile * tile))
    row_bytes = problem.stride * problem.source.itemsize
    ahead = problem.address + next_block * problem.block_rows * row_bytes
    end = ahead
    if problem.by_row and next_block * problem.block_rows < problem.n_rows:
        end += problem.block_rows * row_bytes
    loss = 0.0
    for r in range(0, rows, tile):
        n = min(tile, rows - r)
        z = advance(p, r * n_classes)
        for start in range(0, n_features, DEPTH):
            stop = min(start + DEPTH, n_features)
            kept = advance(packed, r * tile)
            read_tile(problem, x, first + r, n, start, stop, x_t, kept, copy)
            pace = prefetch_pace(problem, ahead, end)
            ahead = forward_tile(problem, start, stop, x_t, z, ahead, pace)
        loss += softmax_tile(problem, first + r, n, z, statistics)
        add_row_sums(z, n_classes, bias_sums)
    if copy:
        backward_block(problem, rows, p, packed, tile, panel_size, g, ahead, end)
    else:
        in_place = as_pointer(problem.address, scratch)
        in_place = advance(in_place, first * problem.stride)
        backward_block(problem, rows, p, in_place, problem.stride, tile, g, ahead, end)
    return loss
