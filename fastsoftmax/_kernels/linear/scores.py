"""Scores of a tile of logits: its softmax or log-softmax, its largest, or the logits themselves."""

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.modes import ARGMAX, LOG_SOFTMAX, SOFTMAX
from fastsoftmax._kernels.softmax.loops import (
    argmax_over,
    exp_over,
    maximum_over,
    scale_over,
    to_log_softmax_over,
)
from fastsoftmax._kernels.softmax.losses import tile_rows
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_int64_pointer,
    as_pointer,
    lane_count,
    load,
    splat,
    store,
)
from fastsoftmax._kernels.vector.squares import load_rows, store_row_starts, store_rows, transpose


@helper
def score_tile(problem, tile):
    """Write the scores of a tile's rows where ``problem.out`` says, by the mode."""
    z, n_classes, width = tile.z, problem.n_classes, tile_rows(tile.z)
    for v in range(0, width, lane_count(z)):
        column = advance(z, v)
        if problem.mode == ARGMAX:
            store(advance(tile.statistics, v), argmax_over(column, n_classes, width))
        elif problem.mode == SOFTMAX:
            total = exp_over(column, n_classes, width, maximum_over(column, n_classes, width))
            scale_over(column, n_classes, width, splat(1.0, total) / total)
        elif problem.mode == LOG_SOFTMAX:
            to_log_softmax_over(column, n_classes, width)
    if problem.mode == ARGMAX:
        labels = advance(as_int64_pointer(problem.out), tile.first)
        for r in range(tile.rows):
            labels[r] = int(tile.statistics[r])
    else:
        out = advance(as_pointer(problem.out, load(z)), tile.first * n_classes)
        write_rows(z, width, tile.rows, n_classes, out)


@helper
def write_rows(z, width, rows, n_classes, out):
    """out[r, k] = z[k, r]."""
    lanes = lane_count(z)
    for r in range(0, rows, lanes):
        for k in range(0, n_classes, lanes):
            square = transpose(load_rows(advance(z, k * width + r), width, z))
            place = advance(out, r * n_classes + k)
            if rows - r >= lanes and n_classes - k >= lanes:
                store_rows(place, n_classes, square)
            else:
                store_row_starts(place, n_classes, rows - r, n_classes - k, square)
