"""Sums of products x xᵀ, of which the solvers' preconditioners are made.

A BLAS could compute them, but leaves its threads spinning on the cores for 0.1 s: half the passes
of a fit took three times as long beside them. And here only half of a symmetric matrix is computed.
"""

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.tasks import draw_task, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import advance, lane_count, pointer
from fastsoftmax._kernels.vector.tiles import contract

# Rows that are summed in registers at a time; WIDTH vectors of each stay in L1 meanwhile.
_DEPTH = 128


@helper
def add_panel(x, stride, n_rows, n, panel, total, row):
    """Add to total[i, j] for the columns j of a panel, which is WIDTH vectors wide, and i ≤ j."""
    width = min(WIDTH, (n + lane_count(x) - 1) // lane_count(x) - panel * WIDTH)
    first = panel * WIDTH * lane_count(x)
    stop = min(first + width * lane_count(x), n)
    for r in range(0, n_rows, _DEPTH):
        rows = advance(x, r * stride)
        for i in range(0, stop, HEIGHT):
            tile = advance(total, i * row + first)
            contract(
                min(HEIGHT, stop - i), width, min(_DEPTH, n_rows - r),
                advance(rows, i), 1, stride,
                advance(rows, first), stride,
                tile, row,
                tile, row,
                0, 0,
            )  # fmt: skip


@helper
def _add_drawn_panels(n, x, total, counters):
    """Draw panels of columns of ``total`` and add to them."""
    columns = WIDTH * lane_count(pointer(x))
    n_panels = (n + columns - 1) // columns
    panel = n_panels - 1 - draw_task(counters)  # the largest first
    while panel >= 0:
        add_panel(pointer(x), x.shape[1], len(x), n, panel, pointer(total), total.shape[1])
        panel = n_panels - 1 - draw_task(counters)


@kernel
def add_gram(n, x, total, crew):
    """Add Σ x xᵀ to ``total``; a row x has n elements.

    The rows of both matrices are padded to whole vectors. What lies below the diagonal of ``total``
    is left as it is, but for tiles that lie across the diagonal.
    """
    share_out(pack_call(_add_drawn_panels, (n, x, total)), crew)
