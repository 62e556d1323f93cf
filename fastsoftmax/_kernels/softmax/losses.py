"""The loss of a tile of logits, and what its gradient needs: P - Y in all its variants.

A tile holds logits transposed: with TILE = `tile_rows`, the values of class k for TILE consecutive
rows lie at ``z[k * TILE : (k + 1) * TILE]``. Rows run along the lanes, so nothing is summed across
lanes, and no lane is wasted where there are few classes.

Every option of the loss has been reduced to four things before it comes here: a row scale s, a
target row t, its sum T, and α. With p = softmax(z), m = max z and lse = log Σexp(z), the loss of a
row and its gradient are

    s·(T·lse + ⟨t, -z⟩ + α·lse²)  computed as  s·(T·log Σexp(z - m) + ⟨t, m - z⟩ + α·lse²)
    s·((T + 2·α·lse)·p - t)

A row of scale 0 contributes nothing, whatever its logits are: padding, ignored rows and rows of
weight 0 are treated alike. A plain label y is t = e_y, of which only the one element is subtracted.
Only soft targets (label smoothing, probabilities) are laid out as a second tile.
"""

from typing import NamedTuple

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.softmax.loops import (
    chosen_over,
    dot_over,
    exp_over,
    maximum_over,
    scale_deviation_over,
    scale_less_label_over,
    scale_less_target_over,
    scale_over,
    scale_variance_over,
    target_over,
)
from fastsoftmax._kernels.vector.emit import TILE_VECTORS
from fastsoftmax._kernels.vector.exp_log import log
from fastsoftmax._kernels.vector.lanes import lane, lane_numbers, sum_lanes
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    as_float64_pointer,
    as_int64_pointer,
    as_pointer,
    lane_count,
    load,
    load_double,
    load_first,
    load_labels,
    select,
    splat,
    splat_double,
    store,
    store_narrow,
)

# What is known of a row: m, Σexp(z - m), ⟨t, m - z⟩, s, T, and what exp(z - m) is scaled by in the
# gradient. ``statistics`` holds all rows' maxima, then all rows' sums, and so on.
MAXIMUM, SUM, GAP, WEIGHT, TOTAL, FACTOR, N_STATISTICS = range(7)


# Sums whose product is taken before its logarithm: it holds 2^1023, and each is up to 10^8.
_FACTORS = 16

# Up to so many classes, to compare every class with a vector of labels takes less time than to look
# up label after label.
_COMPARED_CLASSES = 32


class Terms(NamedTuple):
    """What a kernel needs to know of the loss: addresses, 0 where there is nothing, and α."""

    labels: int  # int64 (N,)
    weight: int  # (N,) row scales s, which are 1 where there are none
    targets: int  # (N, K) probabilities Y instead of labels
    soft: bool  # t = peak ∘ y + floor, with y the one-hot label or the row of Y; else t = e_label
    peak: int  # (K,)
    floor: int  # (K,)
    alpha: float
    row_losses: int  # float64 (N,), written where asked for


@helper
def tile_rows(p):
    """Rows of a tile for the dtype at ``p``."""
    return TILE_VECTORS * lane_count(p)


@helper
def label_of(terms, row, n_classes):
    """A row's label; 0 for one that is out of range, as another thread may have changed it.

    Labels are the caller's memory. They have been checked, and are used as places to write to.
    """
    label = as_int64_pointer(terms.labels)[row]
    return label if 0 <= label and label < n_classes else 0


@helper
def compares_labels(n_classes):
    """Whether labels are found by comparing them with every class, a vector of rows at a time."""
    return n_classes <= _COMPARED_CLASSES


@helper
def labels_of(terms, first, rows, like):
    """Labels of as many rows as a vector has lanes, as floats; 0 behind ``rows`` of them."""
    return load_labels(advance(as_int64_pointer(terms.labels), first), rows, like)


@helper
def gather_gaps(terms, first, rows, n_classes, z, statistics):
    """Set the gaps m - z_y of rows with plain labels, and T, which is 1."""
    lanes, tile = lane_count(z), tile_rows(z)
    maxima, gap = advance(statistics, MAXIMUM * tile), advance(statistics, GAP * tile)
    for v in range(0, tile, lanes):
        m = load(advance(maxima, v))
        store(advance(statistics, TOTAL * tile + v), splat(1.0, m))
        if compares_labels(n_classes):
            label = labels_of(terms, first + v, rows - v, m)
            store(advance(gap, v), m - chosen_over(advance(z, v), n_classes, tile, label))
    if not compares_labels(n_classes):
        for r in range(rows):
            gap[r] = maxima[r] - z[label_of(terms, first + r, n_classes) * tile + r]
        for r in range(rows, tile):
            gap[r] = 0.0


@helper
def gather_weights(terms, first, rows, width, weight, like):
    """Set row scales; 0 in the rows past ``rows`` up to ``width``, which is whole vectors."""
    weights, zero = advance(as_pointer(terms.weight, like), first), splat(0.0, load(weight))
    for v in range(0, width, lane_count(weight)):
        scales = select(lane_numbers(zero) < splat(rows - v, zero), splat(1.0, zero), zero)
        if terms.weight != 0:
            scales = load_first(advance(weights, v), rows - v, zero)
        store(advance(weight, v), scales)


@helper
def fill_targets(terms, first, rows, n_classes, t):
    """Lay soft targets out as a tile; those of the rows past ``rows`` mean nothing."""
    tile = tile_rows(t)
    peak, floor = as_pointer(terms.peak, t), as_pointer(terms.floor, t)
    y = as_pointer(terms.targets, t)
    for k in range(n_classes):
        for r in range(tile):
            t[k * tile + r] = floor[k]
    if terms.targets == 0:
        for r in range(rows):
            label = label_of(terms, first + r, n_classes)
            t[label * tile + r] += peak[label]
        return
    for r in range(rows):
        for k in range(n_classes):
            t[k * tile + r] += peak[k] * y[(first + r) * n_classes + k]


@helper
def row_factors(terms, first, rows, width, statistics, stride, scale):
    """Return Σ of the weighted losses of some rows, in float64; set their factors.

    A factor is scale·s·(T + 2α·lse)/Σexp(z - m). Each of the statistics is ``stride`` elements
    behind the one before; ``width`` rows, which are whole vectors, are worked on.
    """
    if terms.weight == 0 and terms.alpha == 0.0 and terms.row_losses == 0 and not terms.soft:
        return plain_row_factors(rows, width, statistics, stride, scale)
    total = splat(0.0, load_double(statistics))
    zero = total
    alpha, scales = splat(terms.alpha, zero), splat(scale, zero)
    for r in range(0, width, LANES_64):
        row = advance(statistics, r)
        sums = load_double(advance(row, SUM * stride))
        weight = load_double(advance(row, WEIGHT * stride))
        amount = load_double(advance(row, TOTAL * stride))
        log_sum = log(sums)
        loss = amount * log_sum + load_double(advance(row, GAP * stride))
        if terms.alpha != 0.0:
            lse = load_double(advance(row, MAXIMUM * stride)) + log_sum
            loss = loss + alpha * lse * lse
            amount = amount + (alpha + alpha) * lse
        loss = select(weight == zero, zero, weight * loss)
        total = total + loss
        factor = select(weight == zero, zero, weight * scales * amount / sums)
        store_narrow(advance(row, FACTOR * stride), factor)
        if terms.row_losses != 0:
            store_row_losses(terms, first + r, min(LANES_64, rows - r), loss)
    return sum_lanes(total)


@helper
def plain_row_factors(rows, width, statistics, stride, scale):
    """`row_factors` of rows with plain labels and without weights; padding has the weight 0.

    The logarithms of their sums are that of the sums' product, of _FACTORS at a time. At
    (1M, 20, 3) a logarithm and two divisions in float64 for each row took a quarter of the time.
    """
    sums, gaps = advance(statistics, SUM * stride), advance(statistics, GAP * stride)
    total = splat(0.0, load_double(sums))
    zero, scales = total, splat(scale, total)
    whole = rows // LANES_64 * LANES_64
    for first in range(0, whole, _FACTORS * LANES_64):
        product = splat(1.0, zero)
        for r in range(first, min(first + _FACTORS * LANES_64, whole), LANES_64):
            product = product * load_double(advance(sums, r))
            total = total + load_double(advance(gaps, r))
        total = total + log(product)
    rest, last_product = 0.0, 1.0
    for r in range(whole, rows):
        last_product = last_product * sums[r]
        rest += gaps[r]
    if whole < rows:
        rest += lane(log(splat_double(last_product)), 0)
    none, one = splat(0.0, load(sums)), splat(1.0, load(sums))
    step = lane_count(sums) if scale == 1.0 else LANES_64
    for r in range(0, width, step):
        row = advance(statistics, r)
        if scale == 1.0:
            nothing = load(advance(row, WEIGHT * stride)) == none
            factor = select(nothing, none, one / load(advance(sums, r)))
            store(advance(row, FACTOR * stride), factor)
        else:  # the scale may be no normal float32
            nothing = load_double(advance(row, WEIGHT * stride)) == zero
            factor = select(nothing, zero, scales / load_double(advance(sums, r)))
            store_narrow(advance(row, FACTOR * stride), factor)
    return sum_lanes(total) + rest


@helper
def store_row_losses(terms, first, rows, loss):
    out = as_float64_pointer(terms.row_losses)
    for r in range(rows):
        out[first + r] = lane(loss, r)


@helper
def loss_tile(terms, first, rows, n_classes, z, t, statistics, gradient):
    """Return a tile's weighted loss; with ``gradient``, z becomes s·((T + 2α·lse)·P - t)ᵀ."""
    lanes, tile = lane_count(z), tile_rows(z)
    if terms.soft:
        fill_targets(terms, first, rows, n_classes, t)
    maxima = advance(statistics, MAXIMUM * tile)
    for v in range(0, tile, lanes):
        store(advance(maxima, v), maximum_over(advance(z, v), n_classes, tile))
    gather_weights(terms, first, rows, tile, advance(statistics, WEIGHT * tile), z)
    if not terms.soft:
        gather_gaps(terms, first, rows, n_classes, z, statistics)
    for v in range(0, tile, lanes):
        column, row = advance(z, v), advance(statistics, v)
        m = load(advance(row, MAXIMUM * tile))
        if terms.soft:
            gap, total = target_over(column, advance(t, v), n_classes, tile, m)
            store(advance(row, GAP * tile), gap)
            store(advance(row, TOTAL * tile), total)
        store(advance(row, SUM * tile), exp_over(column, n_classes, tile, m))
    loss = row_factors(terms, first, rows, tile, statistics, tile, 1.0)
    if gradient:
        subtract_targets(terms, first, rows, n_classes, z, t, statistics)
    return loss


@helper
def subtract_targets(terms, first, rows, n_classes, z, t, statistics):
    """Turn exp(z - m) into s·((T + 2α·lse)·P - t)ᵀ, by factors and row scales."""
    lanes, tile = lane_count(z), tile_rows(z)
    weights = advance(statistics, WEIGHT * tile)
    for v in range(0, tile, lanes):
        column, row = advance(z, v), advance(statistics, v)
        factor, weight = load(advance(row, FACTOR * tile)), load(advance(row, WEIGHT * tile))
        if terms.soft:
            scale_less_target_over(column, advance(t, v), n_classes, tile, factor, weight)
        elif compares_labels(n_classes):
            label = labels_of(terms, first + v, rows - v, weight)
            scale_less_label_over(column, n_classes, tile, factor, label, weight)
        else:
            scale_over(column, n_classes, tile, factor)
    if not terms.soft and not compares_labels(n_classes):
        for r in range(rows):
            z[label_of(terms, first + r, n_classes) * tile + r] -= weights[r]


@helper
def curvature_tile(terms, first, rows, n_classes, z, statistics, product):
    """Turn z into s·p∘(u - ⟨p, u⟩), if a ``product`` is wanted, or s·p∘(1 - p).

    The logits u in a direction lie behind z. Row scales s include T here.
    """
    lanes, tile = lane_count(z), tile_rows(z)
    gather_weights(terms, first, rows, tile, statistics, z)
    for v in range(0, tile, lanes):
        column = advance(z, v)
        weight = load(advance(statistics, v))
        one = splat(1.0, weight)
        m = maximum_over(column, n_classes, tile)
        factor = one / exp_over(column, n_classes, tile, m)
        if product:
            u = advance(column, n_classes * tile)
            mean = dot_over(column, u, n_classes, tile) * factor
            scale_deviation_over(column, u, n_classes, tile, factor, mean, weight)
        else:
            scale_variance_over(column, n_classes, tile, factor, weight)
