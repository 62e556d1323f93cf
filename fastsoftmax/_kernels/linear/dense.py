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
from fastsoftmax._kernels.linear.input_grad import write_input_grad
from fastsoftmax._kernels.linear.panels import (
    DEPTH,
    feature_panels,
    panel_count,
    panel_features,
    panel_rows,
    weights_at,
    zeros_at,
)
from fastsoftmax._kernels.linear.reading import read_tile
from fastsoftmax._kernels.linear.scores import score_tile
from fastsoftmax._kernels.modes import DIAGONAL, GRADIENT, LOSS, PRODUCT
from fastsoftmax._kernels.softmax.losses import curvature_tile, loss_tile, tile_rows
from fastsoftmax._kernels.vector.emit import HEIGHT, VECTOR_BYTES, WIDTH
from fastsoftmax._kernels.vector.lanes import sum_lanes
from fastsoftmax._kernels.vector.simd import advance, as_pointer, lane_count, load, pointer
from fastsoftmax._kernels.vector.tiles import contract, contract_runs

COPY_ABOVE_CLASSES = 48  # see `needs_copy`
# Where a tile has at most FEW_TILE_ROWS rows and W takes more than STREAMED_BYTES, to read all of W
# from memory for each tile takes longer than the products. TOGETHER_ROWS rows then share one group
# of classes after another. The rows of W of a group take about WEIGHT_BYTES, which stay in L2, but
# there are at least GROUP_CLASSES of them, since X is transposed again for each group. In float64
# on AVX2 (2048, 256, 10000), (2048, 2048, 1000) and (2048, 1024, 3000) took 0.5 to 0.8 of the time;
# with tiles of 32 rows, in float32, 0.9 to 1.4.
FEW_TILE_ROWS, STREAMED_BYTES, TOGETHER_ROWS = 16, 4 << 20, 128
WEIGHT_BYTES, GROUP_CLASSES = 256 << 10, 128
# Rows whose products are summed up in registers before they are added to the gradient. On AVX2 P of
# a panel and a panel of X of these fill a third of L1.
SPAN_ROWS = 128
GROUP_BYTES = 512 << 10  # of logits or P that are worked on at a time; L2 has room for twice that


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
    weights: int  # rows of W, and of a direction behind them
    packed: bool  # whether they lie as `pack_panels` leaves them; otherwise in C order
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
def forward_order(problem, tile, p):
    """(groups of classes, rows that go through each group together) of the forward product.

    Logits in a direction overlap those of the next tile, so that they go one tile at a time.
    """
    panels = panel_count(problem.n_logits)
    n_groups = group_count(panels, tile, p)
    n_bytes = panels * HEIGHT * problem.n_features * (VECTOR_BYTES // lane_count(p))
    if tile > FEW_TILE_ROWS or n_bytes <= STREAMED_BYTES or problem.mode == PRODUCT:
        return n_groups, tile
    n_groups = max(n_groups, min(n_bytes // WEIGHT_BYTES, panels * HEIGHT // GROUP_CLASSES))
    return n_groups, TOGETHER_ROWS


@helper
def panels_of_group(group, n_groups, n_panels):
    """(first, stop) of the panels of classes that belong to a group."""
    return group * n_panels // n_groups, (group + 1) * n_panels // n_groups


@helper
def compute_logits(problem, tile, panels, x_t, packed, keep, ahead, next_block):
    """Compute some classes' logits of a tile, DEPTH features at a time; see `read_tile`.

    Returns ``ahead``, moved on by what has been prefetched of the next block.
    """
    end, read_lines, step_bytes = next_block
    for start in range(0, problem.n_features, DEPTH):
        features = start, min(start + DEPTH, problem.n_features)
        lines, pace = (read_lines, step_bytes) if ahead < end else (0, 0)
        ahead = read_tile(problem, tile, features, x_t, packed, keep, ahead, lines)
        ahead = forward_panels(problem, tile, features, panels, x_t, ahead, pace)
    return ahead


@helper
def forward_panels(problem, tile, features, panels, x_t, ahead, pace):
    """Add what some features, which lie in ``x_t``, contribute to the logits of some classes."""
    (start, stop), width, n_logits = features, tile_rows(x_t), problem.n_logits
    W, bias = as_pointer(problem.weights, x_t), as_pointer(problem.bias, x_t)
    for panel in range(panels[0], panels[1]):
        k, height = panel_rows(panel, n_logits)
        weights, step = weights_at(problem, W, k, start, stop - start)
        for r in range(0, width, panel_features(x_t)):  # as many rows as registers hold
            logits = advance(tile.z, k * width + r)
            before, before_row = (advance(bias, k), 0) if start == 0 else (logits, width)
            contract(
                height, WIDTH, stop - start,
                weights, step, 1,
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
    # Rows outside classes: their panel of X stays in L1 while G passes through.
    first = 0
    while first < block.rows:
        depth = min(tile, block.rows - first)
        # A part of several blocks, see `shared`, has the sums of one block after another.
        of_block = problem.block_rows - first % problem.block_rows
        runs = max(min(SPAN_ROWS, of_block, block.rows - first) // tile, 1)
        x_tile = advance(block.x, q // WIDTH * block.panel_step + first * block.row_step)
        for panel in range(classes[0], classes[1]):
            k, height = panel_rows(panel, n_classes)
            g = advance(gradient, (q * lanes * n_classes) + k * row)
            before, before_row = (start, 0) if fresh and first == 0 else (g, row)
            contract_runs(
                height, width, depth, runs,
                advance(block.p, first * n_classes + k * tile), tile, 1, n_classes * tile,
                x_tile, block.row_step, depth * block.row_step,
                g, row,
                before, before_row,
                ahead, pace,
            )  # fmt: skip
            ahead += runs * tile * pace
        first += runs * depth
    return ahead


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
    if not exists:  # nor are columns prefetched
        start, n_bytes = problem.address, 0
    end = start + n_bytes
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
def tile_of(problem, block, r, workspace):
    """Describe the tile of a block that begins with row r of it."""
    rows = min(tile_rows(block.p), block.rows - r)
    z = advance(block.p, r * problem.n_classes)
    return Tile(block.first + r, rows, z, workspace.t, workspace.statistics)


@helper
def logits_of_group(problem, block, r, group, n_groups, workspace, ahead, next_block):
    """Compute a tile's logits of a group of classes; returns ``ahead``, moved on.

    The tile is read again for each group, which costs less than logits that leave L2.
    """
    tile = tile_of(problem, block, r, workspace)
    place = advance(block.packed, r * panel_features(block.p))
    panels = panels_of_group(group, n_groups, panel_count(problem.n_logits))
    keep = block.copied and group == 0
    return compute_logits(problem, tile, panels, workspace.x_t, place, keep, ahead, next_block)


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
    n_groups, together = forward_order(problem, tile, p)
    for start in range(0, rows, together):
        stop = min(start + together, rows)
        for group in range(n_groups):
            for r in range(start, stop, tile):
                ahead = logits_of_group(
                    problem, block, r, group, n_groups, workspace, ahead, next_block
                )
        for r in range(start, stop, tile):
            here = tile_of(problem, block, r, workspace)
            loss += transform_tile(problem, terms, here, workspace.x_t)
    if problem.mode >= GRADIENT:
        add_bias_sums(problem, block, bias_sums(problem, g), fresh)
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
def add_bias_sums(problem, block, total, fresh):
    """Add a block's sums to the ``total`` of the biases, which holds nothing yet if it is fresh."""
    n_classes, tile = problem.n_classes, tile_rows(block.p)
    for k in range(n_classes if fresh else 0):
        total[k] = 0.0
    for r in range(0, block.rows, tile):
        add_row_sums(advance(block.p, r * n_classes), n_classes, total)


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
