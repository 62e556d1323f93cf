"""Vectors lane by lane: permutations, numbers and counts of lanes, reductions across them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit


@intrinsic
def permute(typingctx, v, index):
    """Lane j of v in lane i, j the lowest bits of lane i of ``index``."""
    sig = v(v, index)
    return sig, lambda context, builder, signature, args: emit.permute(builder, *args)


@intrinsic
def lane_numbers(typingctx, like):
    """0, 1, 2, … as floats."""

    def codegen(context, builder, signature, args):
        vector = context.get_value_type(like)
        return ir.Constant(vector, [float(i) for i in range(like.lanes)])

    return like(like), codegen


@intrinsic
def integer_bits(typingctx, v):
    """The integer parts of small lanes ≥ 0 as the bits of integers, for `permute`."""

    def codegen(context, builder, signature, args):
        bits = ir.VectorType(ir.IntType(v.dtype.bitwidth), v.lanes)
        return builder.bitcast(builder.fptosi(args[0], bits), args[0].type)

    return v(v), codegen


@intrinsic
def count_lanes(typingctx, mask):
    """How many lanes of a mask are set."""

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.intp(mask), codegen


@intrinsic
def lane(typingctx, v, i):
    """Lane ``i`` of a vector."""
    sig = v.dtype(v, types.intp)

    def codegen(context, builder, signature, args):
        return builder.extract_element(*args)

    return sig, codegen


def _by_halves(builder: ir.IRBuilder, v: ir.Value, combine: Any) -> ir.Value:
    lanes = v.type.count
    while lanes > 1:
        lanes //= 2
        low, high = (
            builder.shuffle_vector(v, v, emit.indices(range(start, start + lanes)))
            for start in (0, lanes)
        )
        v = combine(low, high)
    return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))


@intrinsic
def sum_lanes(typingctx, v):
    """The sum of a vector's lanes, by halves: a fixed order."""
    sig = v.dtype(v)

    def codegen(context, builder, signature, args):
        return _by_halves(builder, args[0], builder.fadd)

    return sig, codegen


@intrinsic
def max_lanes(typingctx, v):
    """The largest lane; a NaN may be passed over."""
    sig = v.dtype(v)

    def codegen(context, builder, signature, args):
        return _by_halves(builder, args[0], lambda a, b: emit.larger(builder, a, b))

    return sig, codegen
