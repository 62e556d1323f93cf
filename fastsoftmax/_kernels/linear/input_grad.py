"""The gradient in X of a tile of rows, (P - Y) W / denominator."""

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.linear.panels import DEPTH, panel_features, weights_at, zeros_at
from fastsoftmax._kernels.softmax.losses import tile_rows
from fastsoftmax._kernels.vector.emit import HEIGHT
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_pointer,
    lane_count,
    load,
    splat,
    store,
    store_first,
)
from fastsoftmax._kernels.vector.tiles import contract


@helper
def write_input_grad(problem, tile, dx):
    """Write a tile's rows of (P - Y) W / denominator; ``dx`` has room for TILE·PANEL.

    W is read as `pack_panels` leaves it. DEPTH classes of it stay in L1 for all rows.
    """
    width, n_classes = panel_features(dx), problem.n_classes
    W, zeros = as_pointer(problem.weights, dx), zeros_at(tile.t)
    for start in range(0, problem.n_features, DEPTH):
        depth = min(DEPTH, problem.n_features - start)
        for d in range(0, depth, width):
            features = min(width, depth - d)
            vectors = (features + lane_count(dx) - 1) // lane_count(dx)
            for k in range(0, n_classes, DEPTH):
                weights, step = weights_at(problem, W, k, start, depth)
                for r in range(0, tile.rows, HEIGHT):
                    rows = advance(dx, r * width)
                    before, before_row = (zeros, 0) if k == 0 else (rows, width)
                    contract(
                        min(HEIGHT, tile.rows - r), vectors, min(DEPTH, n_classes - k),
                        advance(tile.z, k * tile_rows(dx) + r), 1, tile_rows(dx),
                        advance(weights, d), step,
                        rows, width,
                        before, before_row,
                        0, 0,
                    )  # fmt: skip
            write_quotients(problem, tile, start + d, features, dx)


@helper
def write_quotients(problem, tile, d, features, dx):
    """Write some features of a tile's rows of the gradient in X, which ``dx`` holds undivided."""
    lanes, out = lane_count(dx), as_pointer(problem.out, dx)
    zero = splat(0.0, load(dx))
    denominator = splat(problem.denominator, zero)
    for r in range(tile.rows):
        source = advance(dx, r * panel_features(dx))
        target = advance(out, (tile.first + r) * problem.n_features + d)
        for j in range(0, features, lanes):
            quotient = load(advance(source, j)) / denominator
            if j + lanes <= features:
                store(advance(target, j), quotient)
            else:
                store_first(advance(target, j), features - j, quotient)
