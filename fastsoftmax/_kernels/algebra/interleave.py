"""Columns that lie apart in memory, put side by side in rows."""

from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import codegen
from fastsoftmax._kernels.vector.simd import advance, lane_count, pointer
from fastsoftmax._kernels.vector.squares import square_of, transpose

# Rows that are written at a time, L columns after another: the lines of the output stay in L2 until
# all columns have written their values to them, and L columns are few enough streams for the
# hardware's prefetching.
_ROWS = 1024


@intrinsic
def _load_columns(typingctx, addresses, row, like):
    """A square of L columns, which begin at L addresses: L values of each, from ``row`` on."""
    square = square_of(like.dtype)

    def load(builder, addresses, first, like):
        columns = []
        for i in range(square.count):
            address = builder.load(builder.gep(addresses, [emit.I64(i)]))
            column = builder.inttoptr(address, like.type)
            columns.append(emit.load(builder, builder.gep(column, [first]), square.count))
        return columns

    return square(addresses, types.intp, like), codegen(load)


@intrinsic
def _store_rows_at(typingctx, p, stride, places, columns, square):
    """Write ``columns`` lanes of row i of a square to row ``places[i]``, ``stride`` apart."""

    def store(builder, start, step, places, n_columns, rows):
        lanes = square.count
        is_whole = builder.icmp_signed("==", n_columns, emit.I64(lanes))
        mask = emit.first_lanes(builder, n_columns, lanes)
        targets = []
        for i in range(lanes):
            place = builder.load(builder.gep(places, [emit.I64(i)]))
            targets.append(emit.row(builder, start, place, step))
        with builder.if_else(is_whole) as (all_lanes, some_lanes):
            with all_lanes:
                for v, target in zip(rows, targets, strict=True):
                    emit.store(builder, v, target)
            with some_lanes:
                for v, target in zip(rows, targets, strict=True):
                    emit.masked_store(builder, v, target, mask)

    return types.void(p, types.intp, places, types.intp, square), codegen(store)


@helper
def _write_columns(addresses, start, places, first, stop, column, out):
    """Write rows ``first`` to ``stop`` of L columns, in squares of L rows."""
    lanes, n_columns = lane_count(pointer(out)), out.shape[1]
    for i in range(first, stop, lanes):
        row = min(i, stop - lanes)
        square = _load_columns(advance(pointer(addresses), column), start + row, pointer(out))
        _store_rows_at(
            advance(pointer(out), column), n_columns, advance(pointer(places), row),
            min(lanes, n_columns), transpose(square),
        )  # fmt: skip


@kernel
def interleave_columns(addresses, start, places, out):
    """Write row ``start`` + i of the columns at ``addresses`` into row ``places[i]`` of ``out``.

    There must be at least L rows, L being the lanes of a vector, and at least L addresses: fewer
    columns are followed by any valid addresses. The last squares overlap others instead of being
    smaller.
    """
    lanes, n_rows, n_columns = lane_count(pointer(out)), len(places), out.shape[1]
    for first in range(0, n_rows, _ROWS):
        stop = max(min(first + _ROWS, n_rows), lanes)
        for c in range(0, n_columns, lanes):
            column = max(min(c, n_columns - lanes), 0)
            _write_columns(addresses, start, places, first, stop, column, out)
