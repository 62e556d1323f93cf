"""Columns of a table, apart in memory, put side by side in rows.

The kernels can read columns where they lie, but fifty streams at once are too many for the
hardware's prefetching: at (131072, 50, 10) in float32 an evaluation took 24 ms on one core instead
of 11. Putting them side by side takes 2.1 ms, which is the pace of memory: prefetching in software
gained a twentieth. A loop that moved eight columns at a time took 3.2 ms, NumPy's assignment of a
column at a time 14 to 18.
"""

from typing import Any

import numpy as np

from fastsoftmax._evaluation.backend import jit_disabled
from fastsoftmax.reference import Array

# The kernel wants at least as many rows and addresses as a vector has lanes, which is this at most.
_LANES = 16
# Bits are moved, whatever number they are: floats of the same size stand for all dtypes.
_CARRIERS: dict[int, np.dtype[Any]] = {4: np.dtype(np.float32), 8: np.dtype(np.float64)}


class Columns:
    """Columns (N,) of a table, to be written in rows."""

    def __init__(self, columns: list[Array], dtype: np.dtype[Any]) -> None:
        self._columns = [np.require(column, dtype, ["C", "A"]) for column in columns]
        addresses = [column.__array_interface__["data"][0] for column in self._columns]
        addresses += addresses[-1:] * (_LANES - len(addresses))
        self._addresses = np.array(addresses, np.int64)

    def interleave(self, start: int, places: Array, out: Array) -> None:
        """Write row ``start`` + i, for each i, into row ``places[i]`` of ``out``, in C order."""
        carrier = _CARRIERS.get(out.itemsize)
        if jit_disabled() or carrier is None or len(places) < _LANES:
            for i, column in enumerate(self._columns):
                out[places, i] = column[start : start + len(places)]
            return
        from fastsoftmax._kernels.algebra.interleave import interleave_columns

        interleave_columns(self._addresses, start, places, out.view(carrier))
