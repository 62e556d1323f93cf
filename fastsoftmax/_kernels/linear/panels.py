"""Panels: how rows of W are shared out, and laid out for the forward product; those of features."""

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.tasks import draw_task, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import advance, lane_count, load, pointer, store

# Products are summed over this many features at a time: the slice of Xᵀ they read stays in L1, and
# long rows keep their digits (one chain of 1000 products lost twice what BLAS loses).
DEPTH = 64


@helper
def panel_count(n):
    """Panels of at most HEIGHT rows that ``n`` rows need."""
    return (n + HEIGHT - 1) // HEIGHT


@helper
def panel_rows(panel, n):
    """(first row, number of rows) of a panel, where ``n`` rows are shared out evenly."""
    first, stop = panel * n // panel_count(n), (panel + 1) * n // panel_count(n)
    return first, stop - first


@helper
def panel_features(p):
    """Features of a panel for the dtype at ``p``: what the registers hold of a row."""
    return WIDTH * lane_count(p)


@helper
def feature_panels(problem, p):
    """Panels of features, the last one padded; ``p`` tells the dtype."""
    return (problem.n_features + panel_features(p) - 1) // panel_features(p)


@helper
def weights_at(problem, W, k, start, depth):
    """Where the weights of class k for features from ``start`` on lie, and the step to k + 1."""
    if problem.packed:
        return advance(W, start * problem.n_logits + k * depth), depth
    return advance(W, k * problem.n_features + start), problem.n_features


@helper
def zeros_at(p):
    """Set what a panel of classes begins its sums with to zero, and return it."""
    for i in range(HEIGHT):
        p[i] = 0.0
    return p


@helper
def _pack_drawn_slices(rows, packed, counters):
    """Draw slices of DEPTH features and pack them."""
    n, n_features = rows.shape
    start = draw_task(counters) * DEPTH
    while start < n_features:
        depth = min(DEPTH, n_features - start)
        for k in range(n):
            source = advance(pointer(rows), k * n_features + start)
            place = advance(pointer(packed), start * n + k * depth)
            lanes, d = lane_count(place), 0
            while d + lanes <= depth:
                store(advance(place, d), load(advance(source, d)))
                d += lanes
            while d < depth:
                place[d] = source[d]
                d += 1
        start = draw_task(counters) * DEPTH


@kernel
def pack_panels(rows, packed, crew):
    """Lay rows of W out as the forward product meets them: DEPTH features of all rows first.

    In C order, where D is a power of two, rows compete for a few of the cache's sets, and each tile
    of rows of X read them from memory again.
    """
    share_out(pack_call(_pack_drawn_slices, (rows, packed)), crew)
