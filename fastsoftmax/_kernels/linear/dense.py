"""The block kernel for dense features: a block of rows, in one pass.

A block is packed once (strides, centring and ragged edges end there) and then only tiles are
touched:

    forward    Zᵀ[k, rows] = b[k] + Σ_d W[k, d]·Xᵀ[d, rows]      per tile of rows
    softmax    Zᵀ becomes s·(P - Y)ᵀ, or what `mode` asks for    per tile of rows
    backward   G[k, d…] += Σ_rows P[k, row]·X[row, d…]           per panel of features

Both products are the same micro-kernel, `contract`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.modes import DIAGONAL, GRADIENT, LOSS, PRODUCT
from fastsoftmax._kernels.softmax.losses import curvature_tile, loss_tile, tile_rows
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.lanes import sum_lanes
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_int64_pointer,
    as_pointer,
    lane_count,
    load,
    pointer,
    prefetch,
)
from fastsoftmax._kernels.vector.squares import (
    load_rows,
    load_rows_within,
    square_rows,
    store_rows,
    subtract_from_rows,
    transpose,
)
from fastsoftmax._kernels.vector.tiles import contract

# Products are summed over this many features at a time: the slice of Xᵀ they read stays in L1, and
# long rows keep their digits (one chain of 1000 products lost twice what BLAS loses).
DEPTH = 64
COPY_ABOVE_CLASSES = 48
LINE_BYTES = 64


class DenseProblem(NamedTuple):
    """What a kernel needs to know of the data, by address: one compile serves every array."""

    address: int
    source: np.ndarray  # (0,), of X's dtype
    by_row: bool  # X[i, d] lies at address[i * stride + d], otherwise at address[i + d * stride]
    stride: int  # in elements
    plain: bool  # by row, of the compute dtype, rows in ascending order, centre 0
    n_rows: int
    first_block: int  # number of this data's first block, where it continues earlier data
    n_features: int
    n_classes: int
    n_logits: int  # rows of W: K, and K more of a direction V behind them for PRODUCT
    block_rows: int
    panels: int  # rows of W, and of a direction behind them, as `pack_panels` leaves them
    W: int  # (K, D), C order, a tile of zeros behind it; for input_grad only
    bias: int  # (n_logits,)
    center: int  # (D,) padded to whole vectors
    mode: int  # see `fastsoftmax._kernels.modes`
    input_grad: int  # (N, D), C order, written where asked for
    denominator: float  # of input_grad


@helper
def panel_count(n):
    """Panels of at most HEIGHT rows that ``n`` rows need."""
    return (n + HEIGHT - 1) // HEIGHT


@helper
def panel_rows(panel, n):
    """(first row, number of rows) of a panel, where ``n`` rows are shared out evenly."""
    first, stop = panel * n // panel_count(n), (panel + 1) * n // panel_count(n)
    return first, stop - first


@kernel
def pack_panels(rows, packed):
    """Lay rows of W out as the forward product meets them: DEPTH features of all panels first.

    In C order, where D is a power of two, rows compete for a few of the cache's sets, and each tile
    of rows of X read them from memory again.
    """
    n, n_features = rows.shape
    filled = 0
    for start in range(0, n_features, DEPTH):
        for panel in range(panel_count(n)):
            first, height = panel_rows(panel, n)
            for d in range(start, min(start + DEPTH, n_features)):
                for k in range(first, first + height):
                    packed[filled] = rows[k, d]
                    filled += 1


@helper
def read_tile(problem, x, first, rows, start, stop, x_t, packed, keep, like, ahead, lines):
    """Features [start, stop) of ``rows`` rows of X, minus the centre, transposed into ``x_t``.

    With ``keep``, untransposed into the block's panels as well: panel q holds features
    [q·TILE, (q+1)·TILE) of the whole block, row after row. For each of its squares of vectors
    ``lines`` cache lines at ``ahead`` are prefetched; returns ``ahead``, moved on.
    """
    lanes, tile = lane_count(packed), tile_rows(packed)
    center = as_pointer(problem.center, like)
    step = problem.stride
    for r in range(0, rows, lanes):
        for d in range(start, stop, lanes):
            height, width = rows - r, problem.n_features - d
            row, column = (step, 1) if problem.by_row else (1, step)
            if not problem.by_row:
                height, width = width, height
            source = advance(x, (first + r) * row + d * column)
            for _ in range(lines):
                prefetch(as_int64_pointer(ahead))
                ahead += LINE_BYTES
            if height >= lanes and width >= lanes:
                vectors = load_rows(source, step, packed)
            else:
                vectors = load_rows_within(source, step, height, width, packed)
            if not problem.by_row:
                vectors = transpose(vectors)
            vectors = subtract_from_rows(vectors, load(advance(center, d)))
            store_rows(advance(x_t, (d - start) * tile + r), tile, transpose(vectors))
            if keep:
                if problem.mode == DIAGONAL:
                    vectors = square_rows(vectors)
                panel = (d // tile) * problem.block_rows * tile + d % tile
                store_rows(advance(packed, panel + r * tile), tile, vectors)
    return ahead


@helper
def forward_tile(problem, start, stop, x_t, z, like, ahead, pace):
    """Add features [start, stop) to the logits of a tile; the first ones start from the bias.

    Returns ``ahead``, moved on by what has been prefetched.
    """
    tile = tile_rows(z)
    n_logits = problem.n_logits
    W, bias = as_pointer(problem.panels, like), as_pointer(problem.bias, like)
    for panel in range(panel_count(n_logits)):
        k, height = panel_rows(panel, n_logits)
        logits = advance(z, k * tile)
        before, before_row = (advance(bias, k), 0) if start == 0 else (logits, tile)
        contract(
            height, WIDTH, stop - start,
            advance(W, start * n_logits + k * (stop - start)), 1, height,
            x_t, tile,
            logits, tile,
            before, before_row,
            ahead, pace,
        )  # fmt: skip
        ahead += (stop - start) * pace
    return ahead


@helper
def backward_block(problem, rows, p, x, x_row, x_panel, gradient, ahead, end, step_bytes):
    """gradient[k, :] += Σ_rows p[k, row]·X[row, :], panel by panel of TILE features.

    Panels of X lie ``x_panel`` elements apart. Those of the gradient are K rows of TILE
    elements each, one panel after the other: in rows of D the panel's lines would compete for an
    eighth of the cache's sets where D is a power of two.
    """
    lanes, tile = lane_count(p), tile_rows(p)
    n_classes = problem.n_classes
    vectors = (problem.n_features + lanes - 1) // lanes
    for q in range(0, vectors, WIDTH):
        width = min(WIDTH, vectors - q)
        # Row tiles outside classes: a tile's panel of X stays in L1 while G passes through.
        for first in range(0, rows, tile):
            x_tile = advance(x, q // WIDTH * x_panel + first * x_row)
            for panel in range(panel_count(n_classes)):
                k, height = panel_rows(panel, n_classes)
                g = advance(gradient, (q * lanes * n_classes) + k * tile)
                pace = step_bytes if ahead < end else 0
                contract(
                    height, width, min(tile, rows - first),
                    advance(p, first * n_classes + k * tile), tile, 1,
                    x_tile, x_row,
                    g, tile,
                    g, tile,
                    ahead, pace,
                )  # fmt: skip
                ahead += tile * pace


@helper
def write_input_grad(problem, first, rows, p, like, dx):
    """Rows of (P - Y) W / denominator for one tile, by way of the tile ``dx``."""
    tile = tile_rows(p)
    n_features, n_classes = problem.n_features, problem.n_classes
    W, out = as_pointer(problem.W, like), as_pointer(problem.input_grad, like)
    zeros = advance(dx, HEIGHT * tile)
    for i in range(HEIGHT * tile):
        zeros[i] = 0
    for d in range(0, n_features, tile):
        for r in range(0, rows, HEIGHT):
            height = min(HEIGHT, rows - r)
            for k in range(0, n_classes, DEPTH):
                before = zeros if k == 0 else dx
                contract(
                    height, WIDTH, min(DEPTH, n_classes - k),
                    advance(p, k * tile + r), 1, tile,
                    advance(W, k * n_features + d), n_features,
                    dx, tile,
                    before, tile,
                    0, 0,
                )  # fmt: skip
            for i in range(height):
                row = advance(out, (first + r + i) * n_features + d)
                for j in range(min(tile, n_features - d)):
                    row[j] = dx[i * tile + j] / problem.denominator


@helper
def prefetch_shares(problem, lanes):
    """(lines to prefetch for each square of vectors read, bytes for each step of a product).

    Together they ask for the next block in time for its turn. A tile has about 4·D cache lines and
    2·D steps for every HEIGHT classes (half of them where only the loss is wanted), which is where
    the traffic hides best. With fewer classes the products are too short to hide any: then all is
    asked for while reading (at (1M, 20, 3) 13.6 ms on one core came down to 10.8; at K = 10 it
    would cost). For the loss alone both are short, and share: at (1M, 100, 10) 27 ms with
    the gradient's pace, 23 with twice that, MEASURED so.
    """
    if problem.n_logits <= HEIGHT:
        return lanes, 0
    if problem.mode == LOSS:
        return lanes * 3 // 8, 80
    return 0, 64


@helper
def needs_copy(problem, block, lanes):
    """Whether the backward product cannot read a block of X where it lies.

    It reads whole vectors, past the end of a row: rows of the data must follow. From some classes
    on a copy in panels pays even so, as rows a power of two apart evict each other from L1.
    """
    if not problem.plain or problem.mode == DIAGONAL or problem.n_classes > COPY_ABOVE_CLASSES:
        return True
    rows_after = problem.n_rows - (block + 1) * problem.block_rows
    return rows_after * problem.stride < lanes


def accumulate_dense_block(problem, terms, block, following, gradient, scratch):
    """Add a block's gradient to ``gradient`` (panels of K rows, then K bias sums); its loss."""
    p, g = pointer(scratch), pointer(gradient)
    x = as_pointer(problem.address, problem.source)
    lanes, tile = lane_count(p), tile_rows(p)
    n_features, n_classes = problem.n_features, problem.n_classes
    padded = (n_features + tile - 1) // tile * tile
    first = block * problem.block_rows
    rows = min(problem.block_rows, problem.n_rows - first)
    copy = problem.mode != LOSS and needs_copy(problem, block, lanes)
    # A tile's logits in a direction lie behind its own, where the next tile's will be: t is the
    # last one's.
    t = advance(p, n_classes * problem.block_rows)
    packed = advance(t, n_classes * tile)
    x_t = advance(packed, padded * problem.block_rows)
    statistics = advance(x_t, DEPTH * tile)
    row_bytes = problem.stride * problem.source.itemsize
    ahead = problem.address + following * problem.block_rows * row_bytes
    end = ahead
    if problem.by_row and following * problem.block_rows < problem.n_rows:
        end += problem.block_rows * row_bytes
    read_lines, step_bytes = prefetch_shares(problem, lanes)
    loss = 0.0
    for r in range(0, rows, tile):
        n = min(tile, rows - r)
        z = advance(p, r * n_classes)
        for start in range(0, n_features, DEPTH):
            stop = min(start + DEPTH, n_features)
            kept = advance(packed, r * tile)
            lines, pace = (read_lines, step_bytes) if ahead < end else (0, 0)
            ahead = read_tile(
                problem, x, first + r, n, start, stop, x_t, kept, copy, scratch, ahead, lines
            )
            ahead = forward_tile(problem, start, stop, x_t, z, scratch, ahead, pace)
        loss += transform_tile(problem, terms, first + r, n, z, t, scratch, statistics)
        if problem.mode != LOSS:
            add_row_sums(z, n_classes, advance(g, n_classes * padded))
        if problem.input_grad != 0:
            write_input_grad(problem, first + r, n, z, scratch, x_t)
    if copy:
        backward_block(
            problem, rows, p, packed, tile, tile * problem.block_rows, g, ahead, end, step_bytes
        )
    elif problem.mode != LOSS:
        in_place = as_pointer(problem.address, scratch)
        in_place = advance(in_place, first * problem.stride)
        backward_block(problem, rows, p, in_place, problem.stride, tile, g, ahead, end, step_bytes)
    return loss


@helper
def transform_tile(problem, terms, first, rows, z, t, like, statistics):
    """Turn logits into what the backward product takes, by ``problem.mode``; return their loss."""
    n_classes = problem.n_classes
    if problem.mode <= GRADIENT:
        gradient = problem.mode == GRADIENT
        return loss_tile(terms, first, rows, n_classes, z, t, like, statistics, gradient)
    curvature_tile(terms, first, rows, n_classes, z, like, statistics, problem.mode == PRODUCT)
    return 0.0


@helper
def add_row_sums(z, n_classes, total):
    """total[k] += Σ_r z[k, r]."""
    lanes, tile = lane_count(z), tile_rows(z)
    for k in range(n_classes):
        row = advance(z, k * tile)
        v = load(row)
        for i in range(lanes, tile, lanes):
            v = v + load(advance(row, i))
        total[k] += sum_lanes(v)
