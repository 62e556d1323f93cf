"""Loops of softmax over one column of vectors: the one shift policy, and nothing about layout.

A column is n vectors ``step`` elements apart. What a lane is, is the caller's business: in a
transposed tile each lane is a row of logits and a column holds whole rows; along contiguous logits
the lanes of one column belong to the same row and are combined afterwards; along another axis each
lane is a column of the array.

The shift is the maximum. A NaN may be passed over when the maximum is taken: the sum shows it.
"""

from __future__ import annotations

from fastsoftmax._kernels.elementary import exp
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.simd import advance, fma, load, select, splat, store

# Terms added one after another; a single chain over 1000 classes cost a float32 sum 10 ULP.
CHAIN = 64


@helper
def maximum(a, b):
    """The larger; ``b`` where either is NaN."""
    return select(a > b, a, b)


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
def exp_over(z, n, step, m, q, q_step):
    """q[i] = exp(z[i] - m); returns Σ_i q[i]. ``q`` may be ``z``."""
    total = splat(0.0, m)
    for first in range(0, n, CHAIN):
        part = splat(0.0, m)
        for i in range(first, min(first + CHAIN, n)):
            e = exp(load(advance(z, i * step)) - m)
            store(advance(q, i * q_step), e)
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
