"""The Hessian of softmax regression: sums of (c u uᵀ) ⊗ (v vᵀ) over rows, and the matrix they make.

Of u and v one is the row of probabilities, the other one the row of features. Every block that
belongs to a pair of u's elements is a symmetric matrix, Σ c u_a u_b v vᵀ, and the blocks of (a, b)
and (b, a) are the same. So each pair of elements is computed once, and half of its block: a quarter
of the products of the whole, where a BLAS would compute half of them.
"""

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    lane_count,
    load,
    load_double,
    pointer,
    splat,
    store,
)
from fastsoftmax._kernels.vector.tiles import contract

# Rows that are summed in registers at a time; WIDTH vectors of each stay in L1 meanwhile.
DEPTH = 128


@helper
def _scale_rows(n_rows, width, weight, factor, v, strip, out):
    """Write weight·factor·v, ``width`` strips of it, to ``out`` by rows without gaps."""
    lanes = lane_count(v)
    for j in range(width):
        source, target = advance(v, j * strip), advance(out, j * lanes)
        for r in range(n_rows):
            x = load(advance(source, r * lanes))
            store(advance(target, r * width * lanes), splat(weight[r] * factor[r], x) * x)


@helper
def _add_tile(size, tile, total):
    """Add a tile to sums in float64."""
    for j in range(0, size, LANES_64):
        place = advance(total, j)
        store(place, load(place) + load_double(advance(tile, j)))


@helper
def _add_panel(n, panel, weight, factor, v, slot, n_slots, total, scratch):
    """Add Σ weight·factor·v_i v_j, over the rows of a slot, for the columns j of a panel and i ≤ j.

    ``total`` has a row of WIDTH vectors, fewer in the last panel, for every i.
    """
    n_rows, lanes = v.shape[1], v.shape[2]
    strip = n_rows * lanes
    width = min(WIDTH, len(v) - panel * WIDTH)
    columns, first = width * lanes, panel * WIDTH
    stop = min((first + width) * lanes, n)
    tallest = HEIGHT if lanes > 8 else 4  # of 8 lanes 4 and 4 rows take less time than 6 and 2
    zeros, tile = scratch, advance(scratch, HEIGHT * lanes)
    scaled = advance(tile, HEIGHT * columns)
    for r in range(slot * DEPTH, n_rows, n_slots * DEPTH):
        depth = min(DEPTH, n_rows - r)
        x = advance(pointer(v), r * lanes)
        own = advance(x, first * strip)
        _scale_rows(depth, width, advance(weight, r), advance(factor, r), own, strip, scaled)
        i = 0
        while i < stop:
            height = min(min(tallest, lanes - i % lanes), stop - i)  # within a strip
            contract(
                height, width, depth,
                advance(x, i // lanes * strip + i % lanes), 1, lanes,
                scaled, columns,
                tile, columns,
                zeros, 0,
                0, 0,
            )  # fmt: skip
            _add_tile(height * columns, tile, advance(total, i * columns))
            i += height


@helper
def _add_drawn_panels(n, pairs, operands, totals, scratch, counters):
    """Draw panels of the blocks of pairs, and slots of rows, and add to them."""
    weighted, u, v = operands
    own = pointer(scratch[draw_worker(counters)])
    whole = WIDTH * lane_count(own)
    n_panels, n_slots = (n + whole - 1) // whole, len(totals)
    n_tasks = len(pairs) * n_panels * n_slots
    task = draw_task(counters)
    while task < n_tasks:
        slot, rest = task % n_slots, task // n_slots
        pair, panel = rest % len(pairs), n_panels - 1 - rest // len(pairs)  # the largest first
        start = pair * (totals.shape[1] // len(pairs)) + whole * whole * (panel * (panel + 1) // 2)
        _add_panel(
            n, panel, pointer(weighted[pairs[pair, 0]]), pointer(u[pairs[pair, 1]]), v,
            slot, n_slots, advance(pointer(totals[slot]), start), own,
        )  # fmt: skip
        task = draw_task(counters)


@kernel
def add_row_products(n, pairs, operands, totals, scratch, crew):
    """Add Σ c u_a u_b v vᵀ to ``totals`` for pairs (a, b) of the elements of u.

    ``operands`` are c·u and u, of which each row holds an element of u for all rows of the data,
    and v in strips of a vector's width: (strips, rows, L), zeros behind its ``n`` elements. Read
    so, it streams through the cache; by whole rows products of wide rows took three times as long.
    ``totals`` (slots, size) has for every pair the panels of columns of its block one after
    another, each down to the diagonal. Rows go to the slots in turn, DEPTH at a time. A worker has
    a row of ``scratch``, HEIGHT vectors of zeros first, then memory for HEIGHT + DEPTH rows of a
    panel.
    """
    share_out(pack_call(_add_drawn_panels, (n, pairs, operands, totals, scratch)), crew)


@helper
def _place(k, d, n_classes, n_features):
    """Where the flat order, W by rows and then b, has class k and feature d, D for its bias."""
    return k * n_features + d if d < n_features else n_classes * n_features + k


@helper
def _write_pair(a, b, sums, scale, by_class, whole, n, sizes, H):
    """Write the block of the pair (a, b), and what of it belongs on the diagonal of classes."""
    n_classes, n_features = sizes
    start = 0
    for first in range(0, n, whole):
        stop = min(first + whole, n)
        columns = whole if stop < n else (len(sums) - start) // n
        for i in range(stop):
            for j in range(max(i, first), stop):
                if not by_class and i == j:  # probabilities of one class
                    continue
                value = scale * sums[start + i * columns + j - first]
                for x, y in ((i, j), (j, i)):
                    k, d, m, e = (a, x, b, y) if by_class else (x, a, y, b)
                    row = _place(k, d, n_classes, n_features)
                    H[row, _place(m, e, n_classes, n_features)] = 0.0 - value  # never -0.0
                    H[row, _place(k, e, n_classes, n_features)] += value
                    if i == j:
                        break
        start += stop * columns


@helper
def _write_drawn_rows(n_outer, by_class, whole, n, sums, scale, sizes, H, counters):
    """Draw elements of u and write the rows of H that belong to them."""
    a = draw_task(counters)
    while a < n_outer:
        for b in range(n_outer):
            low, high = min(a, b), max(a, b)
            pair = low * n_outer - low * (low + 1) // 2 + high
            if by_class:  # pairs of different elements alone are there
                pair -= low + 1
            if a != b or not by_class:
                _write_pair(a, b, sums[pair], scale, by_class, whole, n, sizes, H)
        a = draw_task(counters)


@kernel
def write_hessian(n_outer, by_class, whole, n, sums, scale, sizes, H, crew):
    """Write to H, full of zeros, what `add_row_products` has summed, times ``scale``.

    u has ``n_outer`` elements, which are the probabilities if ``by_class``, otherwise the features;
    ``sums`` are (pairs, size), in panels of ``whole`` columns, of all pairs a < b or a ≤ b.
    ``sizes`` are K and D. A block is -Σ a p_k p_l x̃x̃ᵀ for two classes, and minus the sum of those
    of its row on the diagonal: nothing cancels where a probability is close to one.
    """
    job = n_outer, by_class, whole, n, sums, scale, sizes, H
    share_out(pack_call(_write_drawn_rows, job), crew)
