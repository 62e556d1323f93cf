"""The block kernel for dense features: a block of rows, in one pass.

A block is packed once, which deals with strides, centring and ragged edges. From there on only
tiles are touched:

    forward    Zᵀ[k, rows] = b[k] + Σ_d W[k, d]·Xᵀ[d, rows]      per tile of rows
    softmax    Zᵀ becomes s·(P - Y)ᵀ, or what `mode` asks for    per tile of rows
    backward   G[k, d…] += Σ_rows P[k, row]·X[row, d…]           per panel of features

Both products are the same micro-kernel, `contract`. A worker's scratch holds, in elements:

    p           K·block_rows        logits, then P - Y, one tile after another
    t           K·TILE              soft targets of a tile
    packed      D·block_rows        the rows of X in panels of TILE features (D padded to those)
    x_t         DEPTH·TILE          the features of a tile that are being read, transposed
    statistics  N_STATISTICS·TILE   of the rows of a tile

For the Hessian's product a tile also has K logits in the direction. They lie behind its own, where
the next tile's own will be, and those of the last tile in ``t``, which is free then.
"""

from typing import Any, NamedTuple

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
COPY_ABOVE_CLASSES = 48  # see `needs_copy`
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


class Tile(NamedTuple):
    """The rows of a tile, and where in scratch their loss is worked on."""

    first: int  # number of the first row in the data
    rows: int
    z: Any  # (n_logits, TILE) logits, then P - Y or what the mode asks for
    t: Any  # (K, TILE) soft targets
    statistics: Any


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
def read_tile(problem, tile, features, x_t, packed, keep, ahead, lines):
    """Transpose some features of a tile's rows of X, minus the centre, into ``x_t``.

    With ``keep`` they also go to the block's panels untransposed: panel q holds features
    [q·TILE, (q+1)·TILE) of the whole block, row after row, and ``packed`` is this tile's place in
    the first. For each square of vectors ``lines`` cache lines at ``ahead`` are prefetched; returns
    ``ahead``, moved on.
    """
    lanes, width = lane_count(packed), tile_rows(packed)
    x, center = as_pointer(problem.address, problem.source), as_pointer(problem.center, packed)
    step, (start, stop) = problem.stride, features
    for r in range(0, tile.rows, lanes):
        for d in range(start, stop, lanes):
            rows, columns = tile.rows - r, problem.n_features - d
            row_step, column_step = step, 1
            if not problem.by_row:  # read as the rows of Xᵀ
                rows, columns, row_step, column_step = columns, rows, 1, step
            source = advance(x, (tile.first + r) * row_step + d * column_step)
            for _ in range(lines):
                prefetch(as_int64_pointer(ahead))
                ahead += LINE_BYTES
            if rows >= lanes and columns >= lanes:
                vectors = load_rows(source, step, packed)
            else:
                vectors = load_rows_within(source, step, rows, columns, packed)
            if not problem.by_row:
                vectors = transpose(vectors)
            vectors = subtract_from_rows(vectors, load(advance(center, d)))
            store_rows(advance(x_t, (d - start) * width + r), width, transpose(vectors))
            if keep:
                if problem.mode == DIAGONAL:
                    vectors = square_rows(vectors)
                panel = (d // width) * problem.block_rows * width + d % width
                store_rows(advance(packed, panel + r * width), width, vectors)
    return ahead


@helper
def compute_logits(problem, tile, x_t, packed, keep, ahead, next_block):
    """Compute the logits of a tile, DEPTH features at a time; see `read_tile`.

    Returns ``ahead``, moved on by what has been prefetched of the next block.
    """
    end, read_lines, step_bytes = next_block
    width, n_logits = tile_rows(x_t), problem.n_logits
    W, bias = as_pointer(problem.panels, x_t), as_pointer(problem.bias, x_t)
    for start in range(0, problem.n_features, DEPTH):
        stop = min(start + DEPTH, problem.n_features)
        lines, pace = (read_lines, step_bytes) if ahead < end else (0, 0)
        ahead = read_tile(problem, tile, (start, stop), x_t, packed, keep, ahead, lines)
        for panel in range(panel_count(n_logits)):
            k, height = panel_rows(panel, n_logits)
            logits = advance(tile.z, k * width)
            before, before_row = (advance(bias, k), 0) if start == 0 else (logits, width)
            contract(
                height, WIDTH, stop - start,
                advance(W, start * n_logits + k * (stop - start)), 1, height,
                x_t, width,
                logits, width,
                before, before_row,
                ahead, pace,
            )  # fmt: skip
            ahead += (stop - start) * pace
    return ahead


@helper
def backward_block(problem, rows, p, source, gradient, ahead, next_block):
    """gradient[k, :] += Σ_rows p[k, row]·X[row, :], panel by panel of TILE features.

    ``source`` is X, the elements from row to row, and those from panel to panel. Panels of the
    gradient are K rows of TILE elements each, one panel after the other: in rows of D the lines of
    a panel would compete for an eighth of the cache's sets where D is a power of two.
    """
    (x, row_step, panel_step), (end, _, step_bytes) = source, next_block
    lanes, tile, n_classes = lane_count(p), tile_rows(p), problem.n_classes
    vectors = (problem.n_features + lanes - 1) // lanes
    for q in range(0, vectors, WIDTH):
        width = min(WIDTH, vectors - q)
        # Row tiles outside classes: a tile's panel of X stays in L1 while G passes through.
        for first in range(0, rows, tile):
            x_tile = advance(x, q // WIDTH * panel_step + first * row_step)
            for panel in range(panel_count(n_classes)):
                k, height = panel_rows(panel, n_classes)
                g = advance(gradient, (q * lanes * n_classes) + k * tile)
                pace = step_bytes if ahead < end else 0
                contract(
                    height, width, min(tile, rows - first),
                    advance(p, first * n_classes + k * tile), tile, 1,
                    x_tile, row_step,
                    g, tile,
                    g, tile,
                    ahead, pace,
                )  # fmt: skip
                ahead += tile * pace


@helper
def write_input_grad(problem, tile, scratch):
    """Write a tile's rows of (P - Y) W / denominator; ``scratch`` has room for 2·HEIGHT·TILE."""
    width, dx = tile_rows(scratch), scratch
    n_features, n_classes = problem.n_features, problem.n_classes
    W, out = as_pointer(problem.W, dx), as_pointer(problem.input_grad, dx)
    zeros = advance(dx, HEIGHT * width)
    for i in range(HEIGHT * width):
        zeros[i] = 0
    for d in range(0, n_features, width):
        for r in range(0, tile.rows, HEIGHT):
            height = min(HEIGHT, tile.rows - r)
            for k in range(0, n_classes, DEPTH):
                before = zeros if k == 0 else dx
                contract(
                    height, WIDTH, min(DEPTH, n_classes - k),
                    advance(tile.z, k * width + r), 1, width,
                    advance(W, k * n_features + d), n_features,
                    dx, width,
                    before, width,
                    0, 0,
                )  # fmt: skip
            for i in range(height):
                row = advance(out, (tile.first + r + i) * n_features + d)
                for j in range(min(width, n_features - d)):
                    row[j] = dx[i * width + j] / problem.denominator


@helper
def prefetch_of(problem, block, lanes):
    """Where a block of X lies, and how it is prefetched while another one is worked on.

    Returns its address and (the address behind it, cache lines for each square of vectors read,
    bytes for each step of a product). Lines and bytes together ask for it in time for its turn. A
    tile has about 4·D cache lines and 2·D steps for every HEIGHT classes (half of them where only
    the loss is wanted), which is where the traffic hides best. With fewer classes the products are
    too short to hide any: then all is asked for while reading (at (1M, 20, 3) 13.6 ms on one core
    came down to 10.8; at K = 10 it would cost). For the loss alone both are short, and share the
    traffic: (1M, 100, 10) took 27 ms with the gradient's 64 bytes, and 23 with twice as many.
    """
    n_bytes = problem.block_rows * problem.stride * problem.source.itemsize
    start = problem.address + block * n_bytes
    exists = problem.by_row and block * problem.block_rows < problem.n_rows
    end = start + n_bytes if exists else start  # columns of X are not prefetched
    if problem.n_logits <= HEIGHT:
        return start, (end, lanes, 0)
    if problem.mode == LOSS:
        return start, (end, lanes * 3 // 8, 80)
    return start, (end, 0, 64)


@helper
def needs_copy(problem, block, lanes):
    """Whether the backward product cannot read a block of X where it lies.

    It reads whole vectors, past the end of a row, so that rows of the data must follow. For more
    classes a copy in panels pays even so, as rows a power of two apart evict each other from L1.
    """
    if not problem.plain or problem.mode == DIAGONAL or problem.n_classes > COPY_ABOVE_CLASSES:
        return True
    rows_after = problem.n_rows - (block + 1) * problem.block_rows
    return rows_after * problem.stride < lanes


def accumulate_dense_block(problem, terms, block, following, gradient, scratch):
    """Add a block's sums to ``gradient`` (panels of K rows, K bias sums); return its loss.

    Block ``following`` is prefetched meanwhile.
    """
    p, g = pointer(scratch), pointer(gradient)
    lanes, tile = lane_count(p), tile_rows(p)
    n_classes, padded = problem.n_classes, (problem.n_features + tile - 1) // tile * tile
    t = advance(p, n_classes * problem.block_rows)
    packed = advance(t, n_classes * tile)
    x_t = advance(packed, padded * problem.block_rows)
    statistics = advance(x_t, DEPTH * tile)
    first, loss = block * problem.block_rows, 0.0
    rows = min(problem.block_rows, problem.n_rows - first)
    copy = problem.mode != LOSS and needs_copy(problem, block, lanes)
    ahead, next_block = prefetch_of(problem, following, lanes)
    for r in range(0, rows, tile):
        z = advance(p, r * n_classes)
        here = Tile(first + r, min(tile, rows - r), z, t, statistics)
        place = advance(packed, r * tile)
        ahead = compute_logits(problem, here, x_t, place, copy, ahead, next_block)
        loss += transform_tile(problem, terms, here, advance(g, n_classes * padded), x_t)
    if problem.mode != LOSS:
        source = packed, tile, tile * problem.block_rows
        if not copy:
            in_place = advance(as_pointer(problem.address, scratch), first * problem.stride)
            source = in_place, problem.stride, tile
        backward_block(problem, rows, p, source, g, ahead, next_block)
    return loss


@helper
def transform_tile(problem, terms, tile, bias_sums, scratch):
    """Turn logits into what the backward product takes, by ``problem.mode``; return their loss.

    That of the biases and the gradient in X, see `write_input_grad`, are done here.
    """
    first, rows, z, t, statistics = tile
    n_classes, mode, loss = problem.n_classes, problem.mode, 0.0
    if mode <= GRADIENT:
        gradient = mode == GRADIENT
        loss = loss_tile(terms, first, rows, n_classes, z, t, statistics, gradient)
    else:
        curvature_tile(terms, first, rows, n_classes, z, statistics, mode == PRODUCT)
    if mode != LOSS:
        add_row_sums(z, n_classes, bias_sums)
    if problem.input_grad != 0:
        write_input_grad(problem, tile, scratch)
    return loss


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
