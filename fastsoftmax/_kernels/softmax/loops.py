"""Loops of softmax over one column of vectors: the one shift policy, and nothing about layout.

A column is n vectors ``step`` elements apart. What a lane is, is the caller's business: in a
transposed tile each lane is a row of logits and a column holds whole rows; along contiguous logits
the lanes of one column belong to the same row and are combined afterwards; along another axis each
lane is a column of the array.

The shift is the maximum. A NaN may be passed over when the maximum is taken: the sum shows it.
"""

from __future__ import annotations

import math

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.vector.elementary import exp, log
from fastsoftmax._kernels.vector.simd import (
    advance,
    fma,
    lane_count,
    load,
    load_first,
    select,
    splat,
    store,
)

# Terms added one after another; a single chain over 1000 classes cost a float32 sum 10 ULP.
CHAIN = 64


@helper
def maximum(a, b):
    """The larger; ``b`` where either is NaN."""
    return select(a > b, a, b)


@inlined
def load_padded(x, i, n):
    """The vector at x[i], with -inf behind the n-th value."""
    if i + lane_count(x) <= n:
        return load(advance(x, i))
    return load_first(advance(x, i), n - i, splat(-math.inf, load(x)))


@inlined
def maximum_rest(start, x, n):
    """The largest of a row's values from vector ``start`` on (NaN passed over)."""
    lanes = lane_count(x)
    top = splat(-math.inf, load(x))
    for i in range(start * lanes, n, lanes):
        top = maximum(load_padded(x, i, n), top)
    return top


@helper
def maximum_over(z, n, step):
    """max_i z[i]."""
    m = load(z)
    # Two chains: one alone waits for its own latency.
    other = m
    for i in range(2, n, 2):
        m = maximum(load(advance(z, (i - 1) * step)), m)
        other = maximum(load(advance(z, i * step)), other)
    if n % 2 == 0:
        m = maximum(load(advance(z, (n - 1) * step)), m)
    return maximum(other, m)


@helper
def exp_over(z, n, step, m):
    """Turn z[i] into exp(z[i] - m); return their sum."""
    total = splat(0.0, m)
    for first in range(0, n, CHAIN):
        part = splat(0.0, m)
        for i in range(first, min(first + CHAIN, n)):
            p = advance(z, i * step)
            e = exp(load(p) - m)
            store(p, e)
            part = part + e
        total = total + part
    return total


@helper
def target_over(z, t, n, step, m):
    """(Σ_i t[i]·(m - z[i]), Σ_i t[i]); a target of zero times an infinite gap is 0."""
    zero = splat(0.0, m)
    gap, total = zero, zero
    for first in range(0, n, CHAIN):
        part, part_total = zero, zero
        for i in range(first, min(first + CHAIN, n)):
            target = load(advance(t, i * step))
            term = target * (m - load(advance(z, i * step)))
            part = part + select(target == zero, zero, term)
            part_total = part_total + target
        gap = gap + part
        total = total + part_total
    return gap, total


@helper
def scale_over(q, n, step, factor):
    """q[i] *= factor; 0 where the factor is 0, whatever q is."""
    zero = splat(0.0, factor)
    nothing = factor == zero
    for i in range(n):
        p = advance(q, i * step)
        store(p, select(nothing, zero, load(p) * factor))


@helper
def scale_less_target_over(q, t, n, step, factor, weight):
    """q[i] = q[i]·factor - weight·t[i]; 0 where the weight is 0, whatever q is."""
    zero = splat(0.0, factor)
    nothing = weight == zero
    minus = zero - weight
    for i in range(n):
        p = advance(q, i * step)
        value = fma(minus, load(advance(t, i * step)), load(p) * factor)
        store(p, select(nothing, zero, value))


@helper
def dot_over(q, u, n, step):
    """Σ_i q[i]·u[i]."""
    total = splat(0.0, load(q))
    for first in range(0, n, CHAIN):
        part = splat(0.0, total)
        for i in range(first, min(first + CHAIN, n)):
            part = fma(load(advance(q, i * step)), load(advance(u, i * step)), part)
        total = total + part
    return total


@helper
def scale_deviation_over(q, u, n, step, factor, mean, weight):
    """q[i] = weight·p·(u[i] - mean), p = factor·q[i]; 0 where the weight is 0."""
    zero = splat(0.0, factor)
    nothing = weight == zero
    scale = weight * factor
    for i in range(n):
        p = advance(q, i * step)
        value = load(p) * scale * (load(advance(u, i * step)) - mean)
        store(p, select(nothing, zero, value))


@helper
def scale_variance_over(q, n, step, factor, weight):
    """q[i] = weight·p·(1 - p), p = factor·q[i]; 0 where the weight is 0."""
    zero, one = splat(0.0, factor), splat(1.0, factor)
    nothing = weight == zero
    for i in range(n):
        p = advance(q, i * step)
        probability = load(p) * factor
        store(p, select(nothing, zero, weight * probability * (one - probability)))


@helper
def finite_shift(m):
    """What to subtract for a maximum of m: 0 where every term is -inf, so that sums come out 0."""
    lowest = splat(-math.inf, m)
    return select(m == lowest, splat(0.0, m), m)


@helper
def add_exp(value, m, shift, total, count):
    """Add exp(value - shift) to ``total``, or one to ``count`` where the value is the maximum m."""
    top = value == m
    # Additions under a mask: one instruction, where selecting a term takes two.
    total = select(top, total, total + exp(value - shift))
    return total, select(top, count + splat(1.0, m), count)


@helper
def merge(m, count, rest, other_m, other_count, other_rest):
    """Combine the sums of two parts of a column."""
    zero = splat(0.0, m)
    top = maximum(m, other_m)
    shift = finite_shift(top)
    here, there = m == top, other_m == top
    one = splat(1.0, m)
    scale = select(here, one, exp(m - shift))
    other_scale = select(there, one, exp(other_m - shift))
    total = rest * scale + other_rest * other_scale
    total = total + select(here, zero, count * scale)
    total = total + select(there, zero, other_count * other_scale)
    return top, select(here, count, zero) + select(there, other_count, zero), total


@helper
def log_of_sum(count, rest):
    """ln(count + rest), exact to the last digits where the rest is tiny."""
    total = count + rest
    lost = rest - (total - count)
    zero = splat(0.0, total)
    return log(total) + select(total > zero, lost / total, zero)
