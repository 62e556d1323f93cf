"""Columns that lie apart in memory, put side by side in rows."""

from __future__ import annotations

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.simd import Vector, advance, lane_count, lanes_of, pointer
from fastsoftmax._kernels.vector.tiles import transpose

# Rows of a group of columns that are written at a time: the lines of the output stay in L2 until
# the other groups have written their part of them, and a group's columns are few enough streams for
# the hardware's prefetching.
_ROWS = 1024


@intrinsic
def _load_row_starts(typingctx, addresses, row, like):
    """L vectors of L lanes from ``row`` on of the columns at L addresses, as a UniTuple."""
    lanes = lanes_of(like.dtype)
    sig = types.UniTuple(Vector(like.dtype, lanes), lanes)(addresses, types.intp, like)

    def codegen(context, builder, signature, args):
        vectors = []
        for i in range(lanes):
            address = builder.load(builder.gep(args[0], [emit.intp(i)]))
            column = builder.inttoptr(address, args[2].type)
            vectors.append(emit.load(builder, builder.gep(column, [args[1]]), lanes))
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def _store_rows_at(typingctx, p, stride, places, columns, vectors):
    """Write ``columns`` lanes of vector i to row ``places[i]``; rows are ``stride`` apart."""
    sig = types.void(p, types.intp, places, types.intp, vectors)

    def codegen(context, builder, signature, args):
        lanes = vectors.dtype.lanes
        whole = builder.icmp_signed("==", args[3], emit.intp(lanes))
        mask = emit.first_lanes(builder, args[3], lanes)
        rows = []
        for i in range(lanes):
            place = builder.load(builder.gep(args[2], [emit.intp(i)]))
            rows.append(builder.gep(args[0], [builder.mul(place, args[1])]))
        pairs = list(zip(cgutils.unpack_tuple(builder, args[4]), rows, strict=True))
        with builder.if_else(whole) as (all_lanes, some_lanes):
            with all_lanes:
                for v, row in pairs:
                    emit.store(builder, v, row)
            with some_lanes:
                for v, row in pairs:
                    emit.masked_store(builder, v, row, mask)
        return context.get_dummy_value()

    return sig, codegen


@helper
def _interleave_group(addresses, start, places, first, stop, column, out):
    """Write rows ``first`` to ``stop`` of L columns, in squares of L rows."""
    lanes, n_columns = lane_count(pointer(out)), out.shape[1]
    for i in range(first, stop, lanes):
        row = min(i, stop - lanes)
        square = _load_row_starts(advance(pointer(addresses), column), start + row, pointer(out))
        _store_rows_at(
            advance(pointer(out), column), n_columns, advance(pointer(places), row),
            min(lanes, n_columns), transpose(square),
        )  # fmt: skip


@kernel
def interleave_columns(addresses, start, places, out):
    """Write row ``start`` + i of the columns at ``addresses`` into row ``places[i]`` of ``out``.

    There are at least L rows, and as many addresses at least, valid ones behind those of the
    columns. The last squares overlap others, instead of being smaller.
    """
    lanes, n_rows, n_columns = lane_count(pointer(out)), len(places), out.shape[1]
    for first in range(0, n_rows, _ROWS):
        stop = max(min(first + _ROWS, n_rows), lanes)
        for c in range(0, n_columns, lanes):
            column = max(min(c, n_columns - lanes), 0)
            _interleave_group(addresses, start, places, first, stop, column, out)
