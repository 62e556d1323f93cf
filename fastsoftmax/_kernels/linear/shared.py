"""Few runs of blocks: each is shared out, by tiles of rows and then by panels.

Where there are hardly more runs than threads, `slots` would leave threads without work. Every sum
has the same terms in the same order here, and so the same bits.
"""

from typing import NamedTuple

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.linear.dense import (
    add_bias_sums,
    backward_panel,
    bias_sums,
    divide_room,
    divide_workspace,
    group_count,
    logits_of_group,
    make_block,
    panels_of_group,
    tile_of,
    transform_tile,
)
from fastsoftmax._kernels.linear.finish import finish_part
from fastsoftmax._kernels.linear.panels import feature_panels, panel_count, panel_rows, zeros_at
from fastsoftmax._kernels.softmax.losses import tile_rows
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import advance, lane_count, pointer

# Tasks that the backward product is cut into, at least: where there are fewer panels of features,
# each is shared out by classes, too.
PANEL_TASKS = 16


class Part(NamedTuple):
    """Rows of a run that are worked on together, and the slot that they belong to."""

    first: int  # number of the first row in the data
    rows: int
    slot: int
    fresh: bool  # whether these are the slot's first rows


@helper
def forward_groups(problem, p):
    """Groups of classes that the forward product is cut into: their rows of W stay in L2."""
    panels = panel_count(problem.n_logits)
    rows = max(tile_rows(p), problem.n_features // 2)
    return group_count(panels, rows, p)


@helper
def _run_drawn_logits(problem, rows, room, scratch, counters):
    """Draw tiles of the rows (first, number of them), for one group of classes after another.

    The logits stay in ``room``.
    """
    packed, p, _ = divide_room(problem, pointer(room))
    workspace = divide_workspace(problem, pointer(scratch[draw_worker(counters)]))
    block, tile = make_block(problem, rows[0], rows[1], packed, p), tile_rows(p)
    n_tiles, groups = (block.rows + tile - 1) // tile, forward_groups(problem, p)
    task = draw_task(counters)
    while task < n_tiles * groups:
        group, r = task // n_tiles, task % n_tiles * tile
        logits_of_group(problem, block, r, group, groups, workspace, 0, (0, 0, 0))
        task = draw_task(counters)


@helper
def _transform_drawn_tiles(problem, terms, rows, room, scratch, tile_losses, counters):
    """Draw tiles whose logits are there."""
    packed, p, _ = divide_room(problem, pointer(room))
    workspace = divide_workspace(problem, pointer(scratch[draw_worker(counters)]))
    block, tile = make_block(problem, rows[0], rows[1], packed, p), tile_rows(p)
    drawn = draw_task(counters)
    while drawn * tile < block.rows:
        here = tile_of(problem, block, drawn * tile, workspace)
        tile_losses[drawn] = transform_tile(problem, terms, here, workspace.x_t)
        drawn = draw_task(counters)


@kernel
def run_shared_forward(job, part, arrays, crew):
    """Leave P - Y, or what else the mode asks for, of the rows of a part in ``room``."""
    problem, terms = job
    losses, room, scratch, tile_losses = arrays
    rows = part.first, part.rows
    share_out(pack_call(_run_drawn_logits, (problem, rows, room, scratch)), crew)
    tiles = (problem, terms, rows, room, scratch, tile_losses)
    share_out(pack_call(_transform_drawn_tiles, tiles), crew)
    tile, total = tile_rows(pointer(room)), 0.0 if part.fresh else losses[part.slot]
    for first in range(0, part.rows, problem.block_rows):  # a sum for each block, as in `slots`
        of_block = 0.0
        for r in range(first, min(first + problem.block_rows, part.rows), tile):
            of_block += tile_losses[r // tile]
        total += of_block
    losses[part.slot] = total


@helper
def backward_tasks(problem, rows, p):
    """(groups of classes, panels of features) that the backward product is cut into.

    Neighbouring tasks have the same classes, whose P stays in L2 while the panels of X pass by.
    """
    panels, columns = panel_count(problem.n_classes), feature_panels(problem, p)
    groups = max((PANEL_TASKS + columns - 1) // columns, group_count(panels, rows, p))
    return min(groups, panels), columns


@helper
def _add_drawn_panels(problem, part, slab, room, scratch, counters):
    """Draw tasks and add their products to a slab; one task more sums up the biases."""
    packed, p, _ = divide_room(problem, pointer(room))
    workspace = divide_workspace(problem, pointer(scratch[draw_worker(counters)]))
    block, g = make_block(problem, part.first, part.rows, packed, p), pointer(slab)
    zeros, panels = zeros_at(workspace.t), panel_count(problem.n_classes)
    groups, columns = backward_tasks(problem, part.rows, p)
    task = draw_task(counters)
    while task < columns * groups:
        q, classes = task % columns * WIDTH, panels_of_group(task // columns, groups, panels)
        backward_panel(problem, block, q, classes, g, zeros, part.fresh, 0, 0)
        task = draw_task(counters)
    if task == columns * groups:
        add_bias_sums(problem, block, bias_sums(problem, g), part.fresh)


@kernel
def add_shared(job, arrays, crew):
    """Add the products of what ``room`` holds to a slab."""
    problem, part = job
    slab, room, scratch = arrays
    share_out(pack_call(_add_drawn_panels, (problem, part, slab, room, scratch)), crew)


@helper
def _finish_drawn_panels(problem, part, finish, room, sums, result, counters):
    """Draw tasks and finish their part of the gradients, of which this worker holds the sums."""
    packed, p, _ = divide_room(problem, pointer(room))
    W, gradient, bias_gradient = result
    worker = draw_worker(counters)
    own, lanes, n_classes = sums[worker : worker + 1], lane_count(p), problem.n_classes
    block, zeros = make_block(problem, part.first, part.rows, packed, p), pointer(sums[worker])
    g, panels = advance(zeros_at(zeros), HEIGHT), panel_count(n_classes)
    groups, columns = backward_tasks(problem, part.rows, p)
    task = draw_task(counters)
    while task < columns * groups:
        q, classes = task % columns * WIDTH, panels_of_group(task // columns, groups, panels)
        first, _ = panel_rows(classes[0], n_classes)
        last, height = panel_rows(classes[1] - 1, n_classes)
        d = q * lanes
        start = d * n_classes + first * finish.panel  # where these sums would lie in a slab
        backward_panel(problem, block, q, classes, advance(g, -start), zeros, True, 0, 0)
        features = d, min(d + finish.panel, problem.n_features)
        finish_part(
            finish, own, HEIGHT - d * n_classes, n_classes, (first, last + height), features, W,
            gradient,
        )  # fmt: skip
        task = draw_task(counters)
    if task == columns * groups:
        finish_biases(problem, block, finish, bias_gradient)


@helper
def finish_biases(problem, block, finish, bias_gradient):
    """Finish the gradient of the biases, of which a block holds all rows."""
    total = pointer(bias_gradient)
    add_bias_sums(problem, block, total, True)
    for k in range(problem.n_classes):
        total[k] /= finish.denominator


@kernel
def finish_shared(job, arrays, result, crew):
    """Make the ``result`` of what ``room`` holds, W and the gradients in W and in the biases.

    For rows that are all there are: a slab, which takes as much memory as W, is not needed.
    """
    problem, part, finish = job
    room, sums = arrays
    share_out(pack_call(_finish_drawn_panels, (problem, part, finish, room, sums, result)), crew)
