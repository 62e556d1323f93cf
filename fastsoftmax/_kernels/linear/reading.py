"""Reading a tile of dense rows: strides, dtypes, centring and ragged edges end here."""

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.linear.panels import panel_features
from fastsoftmax._kernels.modes import DIAGONAL
from fastsoftmax._kernels.softmax.losses import tile_rows
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_int64_pointer,
    as_pointer,
    lane_count,
    load,
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

LINE_BYTES = 64


@helper
def read_tile(problem, tile, features, x_t, packed, keep, ahead, lines):
    """Transpose some features of a tile's rows of X, minus the centre, into ``x_t``.

    With ``keep`` they also go to the block's panels untransposed: panel q holds features
    [q·PANEL, (q+1)·PANEL) of the whole block, row after row, and ``packed`` is this tile's place in
    the first. For each square of vectors ``lines`` cache lines at ``ahead`` are prefetched; returns
    ``ahead``, moved on.

    Rows that the tile lacks become zeros. What scratch held there before were denormal numbers at
    times, at which an Intel core stops for some 150 cycles each: a batch of (32, 64, 10) took 60 us
    and more instead of 40.
    """
    lanes, width, panel = lane_count(packed), tile_rows(packed), panel_features(packed)
    x, center = as_pointer(problem.address, problem.source), as_pointer(problem.center, packed)
    step, (start, stop) = problem.stride, features
    for r in range(0, width, lanes):
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
