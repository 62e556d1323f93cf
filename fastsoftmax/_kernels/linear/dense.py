"""The block kernel for dense features: a block of rows, in one pass.

A block is packed once, which deals with strides, centring and ragged edges. From there on only
tiles are touched:

    forward    Zᵀ[k, rows] = b[k] + Σ_d W[k, d]·Xᵀ[d, rows]      per tile of rows
    softmax    Zᵀ becomes s·(P - Y)ᵀ, or what `mode` asks for    per tile of rows
    backward   G[k, d…] += Σ_rows P[k, row]·X[row, d…]           per panel of features

Both products are the same micro-kernel, `contract`. TILE are the rows of a tile, see `tile_rows`,
and PANEL the features of a panel, see `panel_features`. A worker's scratch holds, in elements:

    packed      D·capacity          the rows of X in panels of PANEL features (D padded to those)
    p           K·capacity          logits, then P - Y, one tile after another
    t           K·TILE              soft targets of a tile
    x_t         DEPTH·TILE          the features of a tile that are being read, transposed
    statistics  N_STATISTICS·TILE   of the rows of a tile

Of many classes one group is worked on after another, so that what a group needs stays in L2: the
logits of a tile going forward, P and the gradient going backward (see `group_count`).

For the Hessian's product a tile also has K logits in the direction. They lie behind its own, where
the next tile's own will be, and those of the last tile in ``t``, which is free then.
"""

from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.linear.panels import (
    DEPTH,
    feature_panels,
    panel_count,
    panel_features,
    panel_rows,
)
from fastsoftmax._kernels.linear.scores import score_tile
from fastsoftmax._kernels.modes import DIAGONAL, GRADIENT, LOSS, PRODUCT
from fastsoftmax._kernels.softmax.losses import curvature_tile, loss_tile, tile_rows
from fastsoftmax._kernels.vector.emit import HEIGHT, VECTOR_BYTES, WIDTH
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
    columns_at_once,
    load_columns,
    load_rows,
    load_rows_within,
    square_rows,
    store_rows,
    subtract_from_rows,
    transpose,
)
from fastsoftmax._kernels.vector.tiles import contract

COPY_ABOVE_CLASSES = 48  # see `needs_copy`
GROUP_BYTES = 512 << 10  # of logits or P that are worked on at a time; L2 has room for twice that
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
    run_blocks: int  # blocks that a slot takes one after another, before the next slot has its turn
    capacity: int  # rows that scratch has room for: those of a block, or of a run
    panels: int  # rows of W, and of a direction behind them, as `pack_panels` leaves them
    W: int  # (K, D), C order, a tile of zeros behind it; for the gradient in X only
    bias: int  # (n_logits,)
    center: int  # (D,) padded to whole vectors; 0 where it is zero
    mode: int  # see `fastsoftmax._kernels.modes`
    out: int  # scores (N, K), labels (N,), or the gradient in X (N, D) where it is wanted
    denominator: float  # of the gradient in X


class Tile(NamedTuple):
    """The rows of a tile, and where in scratch their loss is worked on."""

    first: int  # number of the first row in the data
    rows: int
    z: Any  # (n_logits, TILE) logits, then P - Y or what the mode asks for
    t: Any  # (K, TILE) soft targets
    statistics: Any


class Block(NamedTuple):
    """The rows of a block, and where in scratch they are worked on."""

    first: int  # number of the first row in the data
    rows: int
    p: Any
    packed: Any
    copied: bool  # whether the backward product reads ``packed``, and not X where it lies
    x: Any  # what it reads, with the elements from row to row and from panel to panel
    row_step: int
    panel_step: int


class Workspace(NamedTuple):
    """What a worker needs besides for a tile, see the layout of scratch."""

    t: Any
    x_t: Any
    statistics: Any


@helper
def divide_room(problem, room):
    """Return (packed, p, what lies behind them) of a block's scratch."""
    n_packed = feature_panels(problem, room) * panel_features(room) * problem.capacity
    p = advance(room, n_packed)
    return room, p, advance(p, problem.n_classes * problem.capacity)


@helper
def divide_workspace(problem, scratch):
    """Return the `Workspace` that begins at ``scratch``."""
    tile = tile_rows(scratch)
    x_t = advance(scratch, problem.n_classes * tile)
    return Workspace(scratch, x_t, advance(x_t, DEPTH * tile))


@helper
def make_block(problem, first, rows, packed, p):
    """Describe the rows from ``first`` on as a block that is worked on in ``packed`` and ``p``."""
    panel = panel_features(p)
    copied = problem.mode >= GRADIENT and needs_copy(problem, first + rows, lane_count(p))
    if copied:
        return Block(first, rows, p, packed, copied, packed, panel, panel * problem.capacity)
    in_place = advance(as_pointer(problem.address, load(p)), first * problem.stride)
    return Block(first, rows, p, packed, copied, in_place, problem.stride, panel)


@helper
def group_count(n_panels, rows, p):
    """Groups of classes, such that ``rows`` numbers for each class of one take GROUP_BYTES."""
    n_bytes = n_panels * HEIGHT * rows * (VECTOR_BYTES // lane_count(p))
    return min((n_bytes + GROUP_BYTES - 1) // GROUP_BYTES, n_panels)


@helper
def panels_of_group(group, n_groups, n_panels):
    """(first, stop) of the panels of classes that belong to a group."""
    return group * n_panels // n_groups, (group + 1) * n_panels // n_groups


@helper
def read_tile(problem, tile, features, x_t, packed, keep, ahead, lines):
    """Transpose some features of a tile's rows of X, minus the centre, into ``x_t``.

    With ``keep`` they also go to the block's panels untransposed: panel q holds features
    [q·PANEL, (q+1)·PANEL) of the whole block, row after row, and ``packed`` is this tile's place in
    the first. For each square of vectors ``lines`` cache lines at ``ahead`` are prefetched; returns
    ``ahead``, moved on.
    """
    lanes, width, panel = lane_count(packed), tile_rows(packed), panel_features(packed)
    x, center = as_pointer(problem.address, problem.source), as_pointer(problem.center, packed)
    step, (start, stop) = problem.stride, features
    for r in range(0, tile.rows, lanes):
        for d in range(start, stop, lanes):
            place = advance(x_t, (d - start) * width + r)
            rows, columns = tile.rows - r, problem.n_features - d
            row_step, column_step = step, 1
            if not problem.by_row:  # read as the rows of Xᵀ
                rows, columns, row_step, column_step = columns, rows, 1, step
            source = advance(x, (tile.first + r) * row_step + d * column_step)
            for _ in range(lines):
                prefetch(as_int64_pointer(ahead))
                ahead += LINE_BYTES
            if problem.plain and not keep and rows >= lanes and 2 * columns <= lanes:
                read_last_columns(source, step, columns, place)
                continue
            if rows >= lanes and columns >= lanes:
                vectors = load_rows(source, step, packed)
            else:
                vectors = load_rows_within(source, step, rows, columns, packed)
            if not problem.by_row:
                vectors = transpose(vectors)
            if problem.center != 0:
                vectors = subtract_from_rows(vectors, load(advance(center, d)))
            store_rows(place, width, transpose(vectors))
            if keep:
                if problem.mode == DIAGONAL:
                    vectors = square_rows(vectors)
                first = (d // panel) * problem.capacity * panel + d % panel
                store_rows(advance(packed, first + r * panel), panel, vectors)
    return ahead


@helper
def read_last_columns(source, step, columns, x_t):
    """Transpose the last features of as many rows as a vector has lanes: half as many at most."""
    width, at_once = tile_rows(x_t), columns_at_once(x_t)
    for d in range(0, columns, at_once):
        vectors = load_columns(advance(source, d), step, columns - d, x_t)
        store_rows(advance(x_t, d * width), width, vectors)


@helper
def compute_logits(problem, tile, x_t, packed, keep, ahead, next_block):
    """Compute the logits of a tile, DEPTH features at a time; see `read_tile`.

    The tile is read again for each group of classes, which costs less than logits that leave L2.
    Returns ``ahead``, moved on by what has been prefetched of the next block.
    """
    end, read_lines, step_bytes = next_block
    n_panels = panel_count(problem.n_logits)
    n_groups = group_count(n_panels, tile_rows(x_t), x_t)
    for group in range(n_groups):
        panels, keeps = panels_of_group(group, n_groups, n_panels), keep and group == 0
        for start in range(0, problem.n_features, DEPTH):
            features = start, min(start + DEPTH, problem.n_features)
            lines, pace = (read_lines, step_bytes) if ahead < end else (0, 0)
            ahead = read_tile(problem, tile, features, x_t, packed, keeps, ahead, lines)
            ahead = forward_panels(problem, tile, features, panels, x_t, ahead, pace)
    return ahead


@helper
def forward_panels(problem, tile, features, panels, x_t, ahead, pace):
    """Add what some features, which lie in ``x_t``, contribute to the logits of some classes."""
    (start, stop), width, n_logits = features, tile_rows(x_t), problem.n_logits
    W, bias = as_pointer(problem.panels, x_t), as_pointer(problem.bias, x_t)
    for panel in range(panels[0], panels[1]):
        k, height = panel_rows(panel, n_logits)
        weights = advance(W, start * n_logits + k * (stop - start))
        for r in range(0, tile.rows, panel_features(x_t)):  # as many rows as registers hold
            logits = advance(tile.z, k * width + r)
            before, before_row = (advance(bias, k), 0) if start == 0 else (logits, width)
            contract(
                height, WIDTH, stop - start,
                weights, stop - start, 1,
                advance(x_t, r), width,
                logits, width,
                before, before_row,
                ahead, pace,
            )  # fmt: skip
            ahead += (stop - start) * pace
    return ahead


@helper
def backward_panel(problem, block, q, classes, gradient, start, fresh, ahead, pace):
    """gradient[k, :] += Σ_rows p[k, row]·X[row, :] of a panel of features and some of the classes.

    q is the panel's first vector of features, and ``classes`` are panels (first, stop) of them. If
    the gradient is ``fresh``, sums begin with HEIGHT numbers at ``start`` instead of what is there.
    Panels of the gradient are K rows of PANEL elements each, one panel after the other: in rows of
    D the lines of a panel would compete for an eighth of the cache's sets where D is a power of 2.
    """
    lanes, tile, n_classes = lane_count(block.p), tile_rows(block.p), problem.n_classes
    row = panel_features(block.p)
    width = min(WIDTH, (problem.n_features + lanes - 1) // lanes - q)
    # Row tiles outside classes: a tile's panel of X stays in L1 while G passes through.
    for first in range(0, block.rows, tile):
        x_tile = advance(block.x, q // WIDTH * block.panel_step + first * block.row_step)
        for panel in range(classes[0], classes[1]):
            k, height = panel_rows(panel, n_classes)
            g = advance(gradient, (q * lanes * n_classes) + k * row)
            before, before_row = (start, 0) if fresh and first == 0 else (g, row)
            contract(
                height, width, min(tile, block.rows - first),
                advance(block.p, first * n_classes + k * tile), tile, 1,
                x_tile, block.row_step,
                g, row,
                before, before_row,
                ahead, pace,
            )  # fmt: skip
            ahead += tile * pace
    return ahead


@helper
def write_input_grad(problem, tile, scratch):
    """Write a tile's rows of (P - Y) W / denominator; ``scratch`` has room for 2·HEIGHT·PANEL."""
    width, dx = panel_features(scratch), scratch
    n_features, n_classes = problem.n_features, problem.n_classes
    W, out = as_pointer(problem.W, dx), as_pointer(problem.out, dx)
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
                    advance(tile.z, k * tile_rows(dx) + r), 1, tile_rows(dx),
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
    if problem.mode < GRADIENT:
        return start, (end, lanes * 3 // 8, 80)
    return start, (end, 0, 64)


@helper
def needs_copy(problem, stop, lanes):
    """Whether the backward product cannot read a block of X, which ends at ``stop``, where it lies.

    It reads whole vectors, past the end of a row, so that rows of the data must follow. For more
    classes a copy in panels pays even so, as rows a power of two apart evict each other from L1.
    """
    if not problem.plain or problem.mode == DIAGONAL or problem.n_classes > COPY_ABOVE_CLASSES:
        return True
    return (problem.n_rows - stop) * problem.stride < lanes


@helper
def forward_tile(problem, terms, block, r, workspace, ahead, next_block):
    """Compute the logits of a block's tile from row r on, and what its gradient needs of them.

    Returns ``ahead``, moved on by what has been prefetched of the next block, and the tile's loss.
    """
    t, x_t, statistics = workspace
    z = advance(block.p, r * problem.n_classes)
    place = advance(block.packed, r * panel_features(x_t))
    tile = Tile(block.first + r, min(tile_rows(x_t), block.rows - r), z, t, statistics)
    ahead = compute_logits(problem, tile, x_t, place, block.copied, ahead, next_block)
    return ahead, transform_tile(problem, terms, tile, x_t)


def accumulate_dense_block(problem, terms, number, following, gradient, fresh, scratch):
    """Add a block's sums to ``gradient`` (panels of K rows, K bias sums); return its loss.

    A ``fresh`` gradient holds nothing yet. Block ``following`` is prefetched meanwhile.
    """
    packed, p, behind = divide_room(problem, pointer(scratch))
    workspace, g, loss = divide_workspace(problem, behind), pointer(gradient), 0.0
    lanes, tile, n_classes = lane_count(p), tile_rows(p), problem.n_classes
    first = number * problem.block_rows
    rows = min(problem.block_rows, problem.n_rows - first)
    block = make_block(problem, first, rows, packed, p)
    ahead, next_block = prefetch_of(problem, following, lanes)
    for r in range(0, rows, tile):
        ahead, of_tile = forward_tile(problem, terms, block, r, workspace, ahead, next_block)
        loss += of_tile
    if problem.mode >= GRADIENT:
        add_bias_sums(problem, block, g, fresh)
        end, _, step_bytes = next_block
        n_panels, zeros = panel_count(n_classes), zeros_at(workspace.t)
        n_groups = group_count(n_panels, rows, p)
        for group in range(n_groups):
            classes = panels_of_group(group, n_groups, n_panels)
            for q in range(0, (problem.n_features + lanes - 1) // lanes, WIDTH):
                pace = step_bytes if ahead < end else 0
                ahead = backward_panel(problem, block, q, classes, g, zeros, fresh, ahead, pace)
    return loss


@helper
def transform_tile(problem, terms, tile, scratch):
    """Turn logits into what the mode asks for, and return their loss, if it is wanted.

    The gradient in X, see `write_input_grad`, is done here.
    """
    first, rows, z, t, statistics = tile
    n_classes, mode, loss = problem.n_classes, problem.mode, 0.0
    if mode != LOSS and mode < GRADIENT:
        score_tile(problem, tile)
    elif mode <= GRADIENT:
        gradient = mode == GRADIENT
        loss = loss_tile(terms, first, rows, n_classes, z, t, statistics, gradient)
    else:
        curvature_tile(terms, first, rows, n_classes, z, statistics, mode == PRODUCT)
    if mode == GRADIENT and problem.out != 0:
        write_input_grad(problem, tile, scratch)
    return loss


@helper
def bias_sums(problem, gradient):
    """Where in a slab the sums of the biases stand."""
    panels = feature_panels(problem, gradient)
    return advance(gradient, problem.n_classes * panels * panel_features(gradient))


@helper
def add_bias_sums(problem, block, gradient, fresh):
    """Add a block's sums to those of the biases."""
    total, n_classes, tile = bias_sums(problem, gradient), problem.n_classes, tile_rows(block.p)
    for k in range(n_classes if fresh else 0):
        total[k] = 0.0
    for r in range(0, block.rows, tile):
        add_row_sums(advance(block.p, r * n_classes), n_classes, total)


@helper
def zeros_at(p):
    """Set what a panel of classes begins its sums with to zero, and return it."""
    for i in range(HEIGHT):
        p[i] = 0.0
    return p


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
