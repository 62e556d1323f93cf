"""The loop over few blocks: each of them is shared out, by tiles of rows and then by panels.

Where there are hardly more blocks than threads, `slots` would leave threads without work. Every sum
has the same terms in the same order here, and so the same bits.
"""

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.linear.dense import (
    add_row_sums,
    backward_panel,
    bias_sums,
    forward_tile,
    make_block,
    workspace_of,
)
from fastsoftmax._kernels.linear.panels import feature_panels, panel_count
from fastsoftmax._kernels.modes import GRADIENT
from fastsoftmax._kernels.softmax.losses import tile_rows
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import advance, pointer

# Tasks that the backward product of a block is cut into, at least: where there are fewer panels of
# features, each is shared out by classes, too.
PANEL_TASKS = 16


@helper
def _run_drawn_tiles(problem, terms, number, scratch, tile_losses, counters):
    """Draw tiles of a block, whose logits go to the first worker's scratch."""
    p, packed, _ = workspace_of(problem, scratch[0])
    _, _, workspace = workspace_of(problem, scratch[draw_worker(counters)])
    block, tile = make_block(problem, number, p, packed), tile_rows(p)
    drawn = draw_task(counters)
    while drawn * tile < block.rows:
        r = drawn * tile
        _, tile_losses[drawn] = forward_tile(problem, terms, block, r, workspace, 0, (0, 0, 0))
        drawn = draw_task(counters)


@helper
def _run_drawn_panels(problem, number, gradient, fresh, scratch, counters):
    """Draw panels of features and classes; one task more sums up the biases."""
    p, packed, _ = workspace_of(problem, scratch[0])
    _, _, workspace = workspace_of(problem, scratch[draw_worker(counters)])
    block, g, zeros = make_block(problem, number, p, packed), pointer(gradient), workspace.t
    tile, n_classes = tile_rows(p), problem.n_classes
    for i in range(HEIGHT):
        zeros[i] = 0.0
    panels, columns = panel_count(n_classes), feature_panels(problem, p)
    groups = min((PANEL_TASKS + columns - 1) // columns, panels)
    task = draw_task(counters)
    while task <= columns * groups:
        if task < columns * groups:
            q, group = task // groups * WIDTH, task % groups
            classes = group * panels // groups, (group + 1) * panels // groups
            backward_panel(problem, block, q, classes, g, zeros, fresh, 0, 0)
        else:
            total = bias_sums(problem, g)
            for k in range(n_classes if fresh else 0):
                total[k] = 0.0
            for r in range(0, block.rows, tile):
                add_row_sums(advance(p, r * n_classes), n_classes, total)
        task = draw_task(counters)


@kernel
def run_shared_blocks(job, arrays, crew):
    """Run all blocks, one after another; ``job`` is a problem and its terms."""
    problem, terms = job
    slabs, losses, scratch, tile_losses = arrays
    tile, number = tile_rows(pointer(scratch)), 0
    while number * problem.block_rows < problem.n_rows:
        place = problem.first_block + number
        slot, fresh = place % len(slabs), place < len(slabs)
        tiles = (problem, terms, number, scratch, tile_losses)
        share_out(pack_call(_run_drawn_tiles, tiles), crew)
        rows, loss = min(problem.block_rows, problem.n_rows - number * problem.block_rows), 0.0
        for i in range((rows + tile - 1) // tile):
            loss += tile_losses[i]
        losses[slot] = loss if fresh else losses[slot] + loss
        if problem.mode >= GRADIENT:
            panels = (problem, number, slabs[slot], fresh, scratch)
            share_out(pack_call(_run_drawn_panels, panels), crew)
        number += 1
