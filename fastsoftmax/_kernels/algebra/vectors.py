"""Sweeps over long float64 vectors, which solvers of wide problems make many of.

NumPy's take one core, and read from memory twice what two of them need: a + f·b and its product
with c. Sums are of blocks of a fixed length, so that they have the same bits on any thread count.
"""

from __future__ import annotations

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.vector.lanes import sum_lanes
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    fetch_add,
    fma,
    load,
    pointer,
    splat_double,
    store,
)

BLOCK = 8192


@helper
def add_vector(a, factor, b, c, total):
    """Add to the vector at ``a``; return ``total`` and its product with the one at ``c``."""
    changed = fma(splat_double(factor), load(b), load(a))
    store(a, changed)
    return fma(changed, load(c), total)


@helper
def add_block(a, factor, b, c, n):
    """a[:n] += factor·b[:n]; return Σ a·c."""
    first = second = splat_double(0.0)
    whole = n // (2 * LANES_64) * (2 * LANES_64)
    for i in range(0, whole, 2 * LANES_64):
        j = i + LANES_64
        first = add_vector(advance(a, i), factor, advance(b, i), advance(c, i), first)
        second = add_vector(advance(a, j), factor, advance(b, j), advance(c, j), second)
    total = sum_lanes(first + second)
    for i in range(whole, n):
        a[i] += factor * b[i]
        total += a[i] * c[i]
    return total


@kernel
def draw_blocks(factor, arrays):
    """Draw blocks and add them."""
    a, b, c, sums, shared = arrays
    block = fetch_add(pointer(shared), 1)
    while block < len(sums):
        i = block * BLOCK
        n = min(BLOCK, len(a) - i)
        sums[block] = add_block(
            advance(pointer(a), i), factor, advance(pointer(b), i), advance(pointer(c), i), n
        )
        block = fetch_add(pointer(shared), 1)
