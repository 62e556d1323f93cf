"""The kernel of `fastsoftmax._interleave`."""

from __future__ import annotations

from typing import Any

from fastsoftmax._kernels.jit import kernel
from fastsoftmax._kernels.simd import as_pointer

# Rows whose lines of the output stay in L2 until all their columns are written.
_ROWS = 1024


@kernel  # type: ignore[untyped-decorator]
def interleave_columns(addresses: Any, rows: Any, out: Any) -> None:
    """Write ``rows`` (N,) of the columns at ``addresses`` into ``out`` (N, D), eight at a time."""
    n_rows, n_columns = out.shape
    for first in range(0, n_rows, _ROWS):
        stop = min(first + _ROWS, n_rows)
        c = 0
        while c + 8 <= n_columns:
            p0, p1 = as_pointer(addresses[c], out), as_pointer(addresses[c + 1], out)
            p2, p3 = as_pointer(addresses[c + 2], out), as_pointer(addresses[c + 3], out)
            p4, p5 = as_pointer(addresses[c + 4], out), as_pointer(addresses[c + 5], out)
            p6, p7 = as_pointer(addresses[c + 6], out), as_pointer(addresses[c + 7], out)
            for i in range(first, stop):
                j = rows[i]
                # All loads before the stores, or the compiler would have to fear overlap.
                x0, x1, x2, x3 = p0[j], p1[j], p2[j], p3[j]
                x4, x5, x6, x7 = p4[j], p5[j], p6[j], p7[j]
                out[i, c], out[i, c + 1], out[i, c + 2], out[i, c + 3] = x0, x1, x2, x3
                out[i, c + 4], out[i, c + 5], out[i, c + 6], out[i, c + 7] = x4, x5, x6, x7
            c += 8
        while c < n_columns:
            p = as_pointer(addresses[c], out)
            for i in range(first, stop):
                out[i, c] = p[rows[i]]
            c += 1
