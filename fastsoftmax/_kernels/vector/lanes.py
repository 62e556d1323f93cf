"""What is done across the lanes of a vector: permutations, counts, sums and maxima."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import codegen


@intrinsic
def permute(typingctx, v, index):
    """Lane j of v in lane i, where j are the lowest bits of lane i of ``index``."""
    return v(v, index), codegen(emit.permute)


@intrinsic
def lane_numbers(typingctx, like):
    """0, 1, 2, … as floats."""
    return like(like), codegen(lambda builder, v: v.type(list(range(like.lanes))))


@intrinsic
def integer_bits(typingctx, v):
    """The integer parts of small lanes ≥ 0 as the bits of integers, for `permute`."""

    def convert(builder, v):
        return builder.bitcast(builder.fptosi(v, emit.integers(v.type)), v.type)

    return v(v), codegen(convert)


@intrinsic
def count_lanes(typingctx, mask):
    """How many lanes of a mask are set."""

    def count(builder, lanes):
        bits = builder.bitcast(lanes, ir.IntType(mask.lanes))
        return builder.zext(builder.ctpop(bits), emit.I64)

    return types.intp(mask), codegen(count)


@intrinsic
def lane(typingctx, v, i):
    """Lane ``i`` of a vector."""
    return v.dtype(v, types.intp), codegen(ir.IRBuilder.extract_element)


@intrinsic
def sum_lanes(typingctx, v):
    """The sum of a vector's lanes, in a fixed order: halves are added, and halves of those."""
    return v.dtype(v), codegen(partial(_combine_halves, ir.IRBuilder.fadd))


@intrinsic
def max_lanes(typingctx, v):
    """The largest lane; a NaN may be passed over."""
    return v.dtype(v), codegen(partial(_combine_halves, emit.larger))


def _combine_halves(combine, builder, v):
    """Combine the two halves of a vector again and again, until one lane is left."""
    lanes = v.type.count
    while lanes > 1:
        lanes //= 2
        low = builder.shuffle_vector(v, v, emit.indices(range(lanes)))
        high = builder.shuffle_vector(v, v, emit.indices(range(lanes, 2 * lanes)))
        v = combine(builder, low, high)
    return builder.extract_element(v, emit.I32(0))
