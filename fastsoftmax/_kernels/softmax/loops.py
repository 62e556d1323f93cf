"""Loops of softmax over one column of vectors, whatever layout the column belongs to.

A column is n vectors that lie ``step`` elements apart; the functions ``…_over`` go over one, and
every lane is summed (or scaled) by itself. What a lane means is up to the caller: in a transposed
tile each lane is a row of logits, whose class k is vector k of the column. Along an axis that is
not the last each lane is a column of the array. Along contiguous logits the column is one row, cut
into vectors (``step`` is their lanes): there lanes are combined afterwards.

Of a row z with the maximum m, exp(z - m) is summed. Where the sum's logarithm is wanted, it is kept
as two numbers: ``count``, how many values equal m, and ``rest``, Σ exp(z - m) of the others. A NaN
may be passed over when the maximum is taken: it shows in the sum.
"""

import math

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.vector.exp_log import exp, log
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

# Sums are taken of so many terms at a time, and these sums are added up: a single chain over 1000
# classes cost a float32 sum 10 ULP.
CHAIN = 64


@helper
def maximum(a, b):
    """The larger of two, lane by lane; ``b`` where either is NaN."""
    return select(a > b, a, b)


@inlined
def load_padded(x, i, n):
    """The vector at x[i], where x holds n values; lanes behind the last one are -inf."""
    if i + lane_count(x) <= n:
        return load(advance(x, i))
    return load_first(advance(x, i), n - i, splat(-math.inf, load(x)))


@inlined
def maximum_from(start, x, n):
    """The largest of n contiguous values, lane by lane, from vector ``start`` on."""
    lanes = lane_count(x)
    top = splat(-math.inf, load(x))
    for i in range(start * lanes, n, lanes):
        top = maximum(load_padded(x, i, n), top)
    return top


@helper
def maximum_over(z, n, step):
    """max_i z[i]."""
    m = load(z)
    # Two chains: with one alone each step waits for the one before.
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
        chain = splat(0.0, m)
        for i in range(first, min(first + CHAIN, n)):
            p = advance(z, i * step)
            e = exp(load(p) - m)
            store(p, e)
            chain = chain + e
        total = total + chain
    return total


@helper
def argmax_over(z, n, step):
    """The number of the first z[i] that is the largest, or of the first NaN if there is one.

    It is a float, so n must be so small that floats are exact.
    """
    best = load(z)
    number, one = splat(0.0, best), splat(1.0, best)
    where = number
    for i in range(1, n):
        number = number + one
        value = load(advance(z, i * step))
        # Not larger and not equal, but no less: a NaN, or nothing.
        larger = select(value == value, best < value, best == best)
        best, where = select(larger, value, best), select(larger, number, where)
    return where


@helper
def to_log_softmax_over(z, n, step):
    """Turn z[i] into z[i] - log Σ_j exp(z[j])."""
    m = maximum_over(z, n, step)
    shift = finite_shift(m)
    rest, count = splat(0.0, m), splat(0.0, m)
    for i in range(n):
        rest, count = add_exp(load(advance(z, i * step)), m, shift, rest, count)
    log_sum = log_of_sum(count, rest)
    for i in range(n):
        p = advance(z, i * step)
        store(p, load(p) - shift - log_sum)


@helper
def target_over(z, t, n, step, m):
    """(Σ_i t[i]·(m - z[i]), Σ_i t[i]); a target of zero times an infinite gap is 0."""
    zero = splat(0.0, m)
    gap, total = zero, zero
    for first in range(0, n, CHAIN):
        chain, chain_total = zero, zero
        for i in range(first, min(first + CHAIN, n)):
            target = load(advance(t, i * step))
            term = target * (m - load(advance(z, i * step)))
            chain = chain + select(target == zero, zero, term)
            chain_total = chain_total + target
        gap = gap + chain
        total = total + chain_total
    return gap, total


@helper
def chosen_over(z, n, step, chosen):
    """z[i] in the lanes where ``chosen`` is i, and z[0] where it is none of them."""
    value = load(z)
    number, one = splat(0.0, value), splat(1.0, value)
    for i in range(1, n):
        number = number + one
        value = select(chosen == number, load(advance(z, i * step)), value)
    return value


@helper
def scale_over(q, n, step, factor):
    """q[i] *= factor; 0 where the factor is 0, whatever q is."""
    zero = splat(0.0, factor)
    nothing = factor == zero
    for i in range(n):
        p = advance(q, i * step)
        store(p, select(nothing, zero, load(p) * factor))


@helper
def scale_less_label_over(q, n, step, factor, label, weight):
    """q[i] = q[i]·factor, less the weight where i is the label; 0 where the factor is 0."""
    zero, one = splat(0.0, factor), splat(1.0, factor)
    nothing, number = factor == zero, zero
    for i in range(n):
        p = advance(q, i * step)
        value = select(nothing, zero, load(p) * factor)
        store(p, value - select(label == number, weight, zero))
        number = number + one


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
        chain = splat(0.0, total)
        for i in range(first, min(first + CHAIN, n)):
            chain = fma(load(advance(q, i * step)), load(advance(u, i * step)), chain)
        total = total + chain
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
    """What to subtract of values whose maximum is m: 0 where all are -inf, so that sums are 0."""
    lowest = splat(-math.inf, m)
    return select(m == lowest, splat(0.0, m), m)


@helper
def add_exp(value, m, shift, rest, count):
    """Add exp(value - shift) to ``rest``, or one to ``count`` where the value is the maximum m."""
    top = value == m
    # LLVM makes masked additions of these, one instruction each; to select a term takes two.
    rest = select(top, rest, rest + exp(value - shift))
    return rest, select(top, count + splat(1.0, m), count)


@helper
def merge(m, count, rest, other_m, other_count, other_rest):
    """Combine (maximum, count, rest) of two sets of values."""
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
    """ln(count + rest), exact to the last digits even where the rest is tiny."""
    total = count + rest
    lost = rest - (total - count)
    zero = splat(0.0, total)
    return log(total) + select(total > zero, lost / total, zero)
