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

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.rows import (
    add_row_sums,
    exp_shifted,
    row_maxima,
    scale_rows,
    tile_rows,
    weighted_loss,
)
from fastsoftmax._kernels.simd import (
    HEIGHT,
    WIDTH,
    advance,
    as_pointer,
    contract,
    lane_count,
    load,
    load_rows,
    load_rows_within,
    pointer,
    store_rows,
    subtract_from_rows,
    transpose,
)


# Products are summed over this many features at a time: the slice of Xᵀ they read stays in L1, and
# long rows keep their digits (one chain of 1000 products lost twice what BLAS loses).
DEPTH = 128


class Problem(NamedTuple):
    """What a kernel needs to know of the data; X by address, so that one compile serves all."""

    address: int
    source: np.ndarray  # (0,), of X's dtype
    by_row: bool  # X[i, d] lies at address[i * stride + d], otherwise at address[i + d * stride]
    stride: int  # in elements
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
def pack_tile(problem, x, first, rows, packed, x_t):
    """Copy ``rows`` rows of X, minus the centre, into panels and, transposed, into ``x_t``.

    ``packed``: panel q holds features [q·TILE, (q+1)·TILE) of the whole block, row after row;
    panels start block_rows·TILE elements apart. ``x_t[d, r]``: rows along the lanes.
    """
    lanes, tile = lane_count(packed), tile_rows(packed)
    center = pointer(problem.center)
    step = problem.stride
    for r in range(0, rows, lanes):
        for d in range(0, problem.n_features, lanes):
            height, width = rows - r, problem.n_features - d
            if problem.by_row:
                source = advance(x, (first + r) * step + d)
            else:
                source = advance(x, first + r + d * step)
                height, width = width, height
            if height >= lanes and width >= lanes:
                vectors = load_rows(source, step, packed)
            else:
                vectors = load_rows_within(source, step, height, width, packed)
            if not problem.by_row:
                vectors = transpose(vectors)
            vectors = subtract_from_rows(vectors, load(advance(center, d)))
            panel = (d // tile) * problem.block_rows * tile + d % tile
            store_rows(advance(packed, panel + r * tile), tile, vectors)
            store_rows(advance(x_t, d * tile + r), tile, transpose(vectors))


@helper
def forward_tile(problem, x_t, z):
    """Logits of one tile."""
    tile = tile_rows(z)
    n_features, n_classes = problem.n_features, problem.n_classes
    W, bias = pointer(problem.W), pointer(problem.bias)
    panels = (n_classes + HEIGHT - 1) // HEIGHT
    for d in range(0, n_features, DEPTH):
        for panel in range(panels):
            k = panel * n_classes // panels
            height = (panel + 1) * n_classes // panels - k
            logits = advance(z, k * tile)
            start, start_row = (advance(bias, k), 0) if d == 0 else (logits, tile)
            contract(
                height, WIDTH, min(DEPTH, n_features - d),
                advance(W, k * n_features + d), n_features,
                advance(x_t, d * tile), tile,
                logits, tile,
                start, start_row,
            )  # fmt: skip


@helper
def backward_block(problem, rows, p, packed, gradient):
    """gradient[k, :] += Σ_rows p[k, row]·X[row, :] over the tiles of a block."""
    lanes, tile = lane_count(p), tile_rows(p)
    n_classes = problem.n_classes
    vectors = (problem.n_features + lanes - 1) // lanes
    row_length = vectors * lanes
    panels = (n_classes + HEIGHT - 1) // HEIGHT
    for q in range(0, vectors, WIDTH):
        width = min(WIDTH, vectors - q)
        x_panel = advance(packed, q * lanes * problem.block_rows)
        for panel in range(panels):
            k = panel * n_classes // panels
            height = (panel + 1) * n_classes // panels - k
            g = advance(gradient, k * row_length + q * lanes)
            for first in range(0, rows, tile):
                contract(
                    height, width, min(tile, rows - first),
                    advance(p, first * n_classes + k * tile), tile,
                    advance(x_panel, first * tile), tile,
                    g, row_length,
                    g, row_length,
                )  # fmt: skip


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
def accumulate_block(problem, block, gradient, scratch):
    """Add a block's gradient to ``gradient`` (K padded rows, then K bias sums); its loss."""
    p = pointer(scratch)
    tile = tile_rows(p)
    first = block * problem.block_rows
    rows = min(problem.block_rows, problem.n_rows - first)
    x = as_pointer(problem.address, problem.source)
    lanes = lane_count(p)
    padded = (problem.n_features + lanes - 1) // lanes * lanes
    panels = (problem.n_features + tile - 1) // tile
    packed = advance(p, problem.n_classes * problem.block_rows)
    x_t = advance(packed, panels * tile * problem.block_rows)
    statistics = advance(x_t, padded * tile)
    loss = 0.0
    for r in range(0, rows, tile):
        n = min(tile, rows - r)
        z = advance(p, r * problem.n_classes)
        pack_tile(problem, x, first + r, n, advance(packed, r * tile), x_t)
        forward_tile(problem, x_t, z)
        loss += softmax_tile(problem, first + r, n, z, statistics)
        add_row_sums(z, problem.n_classes, advance(pointer(gradient), problem.n_classes * padded))
    backward_block(problem, rows, p, packed, pointer(gradient))
    return loss
