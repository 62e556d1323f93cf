"""The loop over few runs of blocks: each is shared out, by tiles of rows and then by panels.

Where there are hardly more runs than threads, `slots` would leave threads without work. Every sum
has the same terms in the same order here, and so the same bits.
"""

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.linear.dense import (
    add_bias_sums,
    backward_panel,
    divide_room,
    divide_workspace,
    group_count,
    logits_of_group,
    make_block,
    panels_of_group,
    tile_of,
    transform_tile,
)
from fastsoftmax._kernels.linear.panels import feature_panels, panel_count, zeros_at
from fastsoftmax._kernels.modes import GRADIENT
from fastsoftmax._kernels.softmax.losses import tile_rows
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import WIDTH
from fastsoftmax._kernels.vector.simd import pointer

# Tasks that the backward product is cut into, at least: where there are fewer panels of features,
# each is shared out by classes, too.
PANEL_TASKS = 16


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


@helper
def _run_drawn_panels(problem, rows, gradient, fresh, room, scratch, counters):
    """Draw panels of features and groups of classes; one task more sums up the biases.

    Neighbouring tasks have the same classes, whose P stays in L2 while the panels of X pass by.
    """
    packed, p, _ = divide_room(problem, pointer(room))
    workspace = divide_workspace(problem, pointer(scratch[draw_worker(counters)]))
    block, g = make_block(problem, rows[0], rows[1], packed, p), pointer(gradient)
    zeros = zeros_at(workspace.t)
    panels, columns = panel_count(problem.n_classes), feature_panels(problem, p)
    groups = max((PANEL_TASKS + columns - 1) // columns, group_count(panels, rows[1], p))
    groups = min(groups, panels)
    task = draw_task(counters)
    while task <= columns * groups:
        if task < columns * groups:
            q, classes = task % columns * WIDTH, panels_of_group(task // columns, groups, panels)
            backward_panel(problem, block, q, classes, g, zeros, fresh, 0, 0)
        else:
            add_bias_sums(problem, block, g, fresh)
        task = draw_task(counters)


@helper
def add_losses(problem, n_rows, tile_losses, slot, fresh, losses):
    """Add up the losses of tiles, those of each block on their own, as `slots` does."""
    tile, total = problem.capacity // len(tile_losses), 0.0 if fresh else losses[slot]
    for first in range(0, n_rows, problem.block_rows):
        of_block = 0.0
        for r in range(first, min(first + problem.block_rows, n_rows), tile):
            of_block += tile_losses[r // tile]
        total += of_block
    losses[slot] = total


@kernel
def run_shared_blocks(job, arrays, crew):
    """Run all rows, as many at a time as ``room`` holds; ``job`` is a problem and its terms."""
    problem, terms = job
    slabs, losses, room, scratch, tile_losses = arrays
    run = problem.run_blocks * problem.block_rows
    first, before = 0, problem.first_block * problem.block_rows
    while first < problem.n_rows:
        left_of_run = run - (before + first) % run
        n_rows = min(problem.n_rows - first, left_of_run, problem.capacity)
        slot = (before + first) // run % len(losses)
        fresh, rows = before + first == slot * run, (first, n_rows)
        share_out(pack_call(_run_drawn_logits, (problem, rows, room, scratch)), crew)
        tiles = (problem, terms, rows, room, scratch, tile_losses)
        share_out(pack_call(_transform_drawn_tiles, tiles), crew)
        add_losses(problem, n_rows, tile_losses, slot, fresh, losses)
        if problem.mode >= GRADIENT:
            panels = (problem, rows, slabs[slot], fresh, room, scratch)
            share_out(pack_call(_run_drawn_panels, panels), crew)
        first += n_rows
