"""The two products of a sparse row, classes along the lanes.

A row's nonzeros (column, value) meet the rows of a matrix by features: `gather` adds those rows up
in registers, `scatter` adds a vector to each. A matrix has two parts: whole vectors of classes, and
the rest of the classes in a vector of 1, 2, 4, ... lanes. No row of either crosses a cache line
that it could do without, and nothing is masked: a masked vector that hangs over the end of a line
is as slow as one that needs both lines.

Column indices are the caller's memory and may change at any time, so each is checked between being
read and being used: one beyond D becomes column 0, and is reported. (Copying and checking them
beforehand took a tenth of the time.)
"""

from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import codegen
from fastsoftmax._kernels.vector.simd import lanes_of

# Whole vectors in registers at once; for more classes a row's nonzeros are gone through again.
MAX_VECTORS = 4
# Nonzeros of a row that are taken together.
SEGMENT = 64
# The rows of nonzeros so many places further on are prefetched. Slabs lie beyond the last cache:
# with 64 instead of 128 the gradient took a tenth longer, with 16 or 24 half as long again.
AHEAD = 128

_FALSE = ir.IntType(1)(0)


class Segment(NamedTuple):
    """Consecutive nonzeros of a row, at most SEGMENT of them."""

    n: int
    indices: Any  # pointer to their columns
    later: Any  # pointer to the columns of n later nonzeros, whose rows are prefetched
    n_columns: int
    values: Any  # pointer


@helper
def gather(width, rest, segment, matrices, start, total):
    """total[:] = start[:] + Σ_j values[j]·row(indices[j]); returns whether an index was wrong.

    ``matrices`` are (matrix, its row length, second matrix); a row is ``width`` vectors of the
    first followed by one of ``rest`` lanes, or none, which is the whole row of the second. With
    fewer vectors than the first one's row has, ``rest`` is 0.
    """
    return _gather(width, rest, segment, matrices, start, total)


@helper
def scatter(width, rest, segment, matrices, addend):
    """row(indices[j]) += values[j]·addend[:] for every j; returns whether an index was wrong."""
    return _scatter(width, rest, segment, matrices, addend)


@intrinsic
def _gather(typingctx, width, rest, segment, matrices, start, total):
    sig = types.intp(types.intp, types.intp, segment, matrices, start, total)
    return sig, _product_code(segment, start.dtype, _emit_gather)


def _emit_gather(row, for_each_nonzero, start, total):
    """Emit the sums of rows of a matrix times the nonzeros of a sparse row."""

    def add(column, value, sums):
        return row.add_product(value, row.load(row.of_column(column)), sums)

    zeros = [ir.VectorType(start.type.pointee, lanes)(0.0) for lanes in row.lanes]
    wrong, *sums = for_each_nonzero(zeros, add)
    first = row.load(row.in_order(start))
    added = [row.builder.fadd(a, b) for a, b in zip(first, sums, strict=True)]
    row.store(added, row.in_order(total))
    return wrong


@intrinsic
def _scatter(typingctx, width, rest, segment, matrices, addend):
    sig = types.intp(types.intp, types.intp, segment, matrices, addend)
    return sig, _product_code(segment, addend.dtype, _emit_scatter)


def _emit_scatter(row, for_each_nonzero, addend):
    """Emit the sums of a vector times each nonzero of a sparse row, added to rows of a matrix."""
    added = row.load(row.in_order(addend))

    def add(column, value, _):
        targets = row.of_column(column)
        row.store(row.add_product(value, added, row.load(targets)), targets)
        return []

    return for_each_nonzero([], add)[0]


def _product_code(segment, dtype, emit_product):
    """Code generator of a product: for every shape of a row a loop, behind a switch.

    A shape is (whole vectors, lanes of the rest, whether the row is wide). The generated code's
    value is an integer: whether an index was wrong.
    """
    lanes = lanes_of(dtype)
    dtypes = segment[Segment._fields.index("values")].dtype, dtype
    rests = [0, *(1 << i for i in range(lanes.bit_length() - 1))]
    shapes = [(width, rest, False) for width in range(MAX_VECTORS + 1) for rest in rests]
    shapes += [(width, 0, True) for width in range(1, MAX_VECTORS + 1)]

    def key(width, rest, wide):
        return (wide * (MAX_VECTORS + 1) + width) * lanes + rest

    def switch(builder, width, rest, nonzeros, matrices, *vectors):
        wrong = cgutils.alloca_once_value(builder, _FALSE)

        def emit_shape(*shape):
            row = _Row(builder, lanes, matrices, *shape)
            loop = partial(_for_each_nonzero, row, nonzeros, dtypes)
            builder.store(emit_product(row, loop, *vectors), wrong)

        whole = builder.mul(width, emit.I64(lanes))
        is_wide = builder.icmp_signed("!=", whole, matrices[1])
        is_wide = builder.and_(is_wide, builder.icmp_signed(">", width, emit.I64(0)))
        more = builder.select(is_wide, emit.I64(key(0, 0, True)), emit.I64(0))
        cases = [(key(*shape), partial(emit_shape, *shape)) for shape in shapes[1:]]  # not (0, 0)
        emit.switch(builder, builder.add(builder.add(whole, rest), more), cases)
        return builder.zext(builder.load(wrong), emit.I64)

    return codegen(switch)


class _Row:
    """Emits what is done with a row of ``width`` whole vectors and one of ``rest`` lanes, if any.

    Unless it is ``wide``, the first matrix has no more vectors in a row, so that finding a row
    takes a shift: with multiplications for both matrices, for the nonzero here and the one that is
    prefetched, these took most of the time.
    """

    def __init__(self, builder, lanes, matrices, width, rest, wide) -> None:
        self.builder, self.width, self.full = builder, width, lanes
        self.lanes = [lanes] * width + [rest] * (rest > 0)
        self.matrix, step, self.second = matrices
        self.step = step if wide else emit.I64(width * lanes)
        self.second_step = emit.I64(rest)

    def of_column(self, column):
        """Pointers to the vectors of a row of the two matrices."""
        pointers = self.in_order(emit.row(self.builder, self.matrix, column, self.step))
        if len(self.lanes) > self.width:
            pointers[-1] = emit.row(self.builder, self.second, column, self.second_step)
        return pointers

    def in_order(self, p):
        """Pointers to as many vectors that lie one after the other."""
        return [self.builder.gep(p, [emit.I64(i * self.full)]) for i in range(len(self.lanes))]

    def load(self, pointers):
        return [emit.load(self.builder, p, n) for p, n in zip(pointers, self.lanes, strict=True)]

    def store(self, vectors, pointers):
        for v, p in zip(vectors, pointers, strict=True):
            emit.store(self.builder, v, p)

    def add_product(self, scalar, factors, sums):
        """``sums`` plus ``scalar`` times ``factors``, which both are the vectors of a row."""
        scalars = [emit.splat(self.builder, scalar, lanes) for lanes in self.lanes]
        return [emit.fma(self.builder, *abc) for abc in zip(scalars, factors, sums, strict=True)]


def _for_each_nonzero(row, segment, dtypes, initial, body):
    """Emit the loop over nonzeros; return whether an index was wrong, and what is carried through.

    ``body(column, value, carried)`` emits a step and returns what it carries on. The rows of
    nonzeros that come later are prefetched meanwhile, every cache line of them: with the first
    lines only, float64 of 20 classes and 50,000 features took three times as long.
    """
    builder = row.builder
    n, indices, later, n_columns, values = segment

    def step(j, carried):
        for p in row.of_column(_load_index(builder, later, j)):
            emit.prefetch(builder, p, locality=3)
        value = emit.convert(builder, builder.load(builder.gep(values, [j])), *dtypes)
        column = _load_index(builder, indices, j)
        outside = builder.icmp_unsigned(">=", column, n_columns)
        wrong, *others = carried
        others = body(builder.select(outside, emit.I64(0), column), value, others)
        return [builder.or_(wrong, outside), *others]

    initial = [_FALSE, *initial]
    before = builder.block
    with builder.if_then(builder.icmp_signed(">", n, emit.I64(0))):
        left = emit.loop(builder, n, initial, step)
        last = builder.block
    results = [builder.phi(value.type) for value in initial]
    for phi, without, after in zip(results, initial, left, strict=True):
        phi.add_incoming(without, before)
        phi.add_incoming(after, last)
    return results


def _load_index(builder, indices, j):
    """Index j, of 32 or 64 bits, as 64 bits."""
    return builder.sext(builder.load(builder.gep(indices, [j])), emit.I64)
