"""The two products of a sparse row, classes along the lanes.

A row's nonzeros (column, value) meet the rows of a matrix by features: `gather` adds them up in
registers, `scatter` adds a vector to each. A matrix has two parts: whole vectors of classes, and
the rest of the classes in a vector of 1, 2, 4, ... lanes. No row of either crosses a cache line
that it could do without, and nothing is masked: a masked vector that hangs over the end of a line
is as slow as one that needs both.

Column indices are the caller's memory and may change under our hands, so each is checked between
being read and being used: one beyond D becomes column 0, and is reported. (Copied and checked
beforehand they took a tenth of the time.)
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.simd import lanes_of

# Whole vectors in registers at once; more classes go over the row's nonzeros again.
PANEL = 4
# Nonzeros of a row that are taken together.
CHUNK = 64
# How many later those nonzeros are whose rows are prefetched. Slabs lie beyond the last cache: with
# 64 instead of 128 the gradient took a tenth longer, with 16 or 24 half as long again.
AHEAD = 128


class _Panel:
    """Vectors of a matrix's row: ``width`` whole ones and one of ``rest`` lanes, or none (0).

    Unless it is ``wide``, the row has no more of them, so that where it lies takes a shift: with
    multiplications for both parts, two nonzeros ahead and here, they took most of the time.
    """

    def __init__(self, builder, width, rest, wide, lanes, matrices) -> None:
        self.builder, self.width, self.full = builder, width, lanes
        self.lanes = [lanes] * width + [rest] * (rest > 0)
        self.matrix, step, self.second = (builder.extract_value(matrices, i) for i in range(3))
        self.step = step if wide else emit.intp(width * lanes)
        self.second_step = emit.intp(rest)

    def of_column(self, column: ir.Value) -> list[ir.Value]:
        """Pointers to the vectors of a row of the two matrices."""
        first = self.builder.gep(self.matrix, [self.builder.mul(column, self.step)])
        pointers = self.in_order(first)
        if len(self.lanes) > self.width:
            at = self.builder.mul(column, self.second_step)
            pointers[-1] = self.builder.gep(self.second, [at])
        return pointers

    def in_order(self, p: ir.Value) -> list[ir.Value]:
        """Pointers to as many vectors that lie one after the other."""
        return [self.builder.gep(p, [emit.intp(i * self.full)]) for i in range(len(self.lanes))]

    def load(self, pointers: list[ir.Value]) -> list[ir.Value]:
        return [
            emit.load(self.builder, p, lanes) for p, lanes in zip(pointers, self.lanes, strict=True)
        ]

    def store(self, vectors: list[ir.Value], pointers: list[ir.Value]) -> None:
        for v, p in zip(vectors, pointers, strict=True):
            emit.store(self.builder, v, p)

    def add_product(
        self, scalar: ir.Value, factors: list[ir.Value], sums: list[ir.Value]
    ) -> list[ir.Value]:
        return [
            emit.fma(self.builder, emit.splat(self.builder, scalar, lanes), factor, total)
            for lanes, factor, total in zip(self.lanes, factors, sums, strict=True)
        ]


def _over_nonzeros(context, builder, sig, args, panel, initial, body):
    """Emit the loop over a row's nonzeros; return what is carried through it.

    ``body(column, value, carried)`` emits a step and returns what it carries on; first of all is
    carried whether an index was wrong. The rows of ``later`` nonzeros are asked for meanwhile,
    every cache line of them: with the first ones only, float64 of 20 classes and 50,000 features
    took three times as long.
    """
    count, indices, later, n_columns, values = args[2:7]
    before = builder.block
    loop = builder.append_basic_block("nonzeros.loop")
    end = builder.append_basic_block("nonzeros.end")
    zero, no = emit.intp(0), ir.Constant(ir.IntType(1), 0)
    builder.cbranch(builder.icmp_signed(">", count, zero), loop, end)
    builder.position_at_end(loop)
    j = builder.phi(zero.type)
    wrong, *carried = (builder.phi(v.type) for v in (no, *initial))
    for p in panel.of_column(_load_index(builder, later, j)):
        emit.prefetch(builder, builder.ptrtoint(p, ir.IntType(64)), locality=3)
    value = builder.load(builder.gep(values, [j]))
    value = context.cast(builder, value, sig.args[6].dtype, sig.args[8].dtype)
    column = _load_index(builder, indices, j)
    outside = builder.icmp_unsigned(">=", column, n_columns)
    updated = body(builder.select(outside, zero, column), value, carried)
    recurrences = [
        (j, zero, builder.add(j, emit.intp(1))),
        (wrong, no, builder.or_(wrong, outside)),
        *zip(carried, initial, updated, strict=True),
    ]
    for phi, first, following in recurrences:
        phi.add_incoming(first, before)
        phi.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", recurrences[0][2], count), loop, end)
    last = builder.block
    builder.position_at_end(end)
    results = []
    for _, first, following in recurrences[1:]:
        phi = builder.phi(first.type)
        phi.add_incoming(first, before)
        phi.add_incoming(following, last)
        results.append(phi)
    return results


def _load_index(builder, indices, j):
    index = builder.load(builder.gep(indices, [j]))
    return index if index.type.width == 64 else builder.sext(index, ir.IntType(64))


def _switched(builder, args, lanes, emit_case) -> None:
    """Branch on (whole vectors, lanes of the rest, whether the row is wide) to a loop each.

    Returns, as an integer, what the loop does: whether an index was wrong.
    """
    width, rest = args[:2]
    rests = [0, *(1 << i for i in range(lanes.bit_length() - 1))]
    cases = [(vectors, tail, False) for vectors in range(PANEL + 1) for tail in rests]
    cases += [(vectors, 0, True) for vectors in range(1, PANEL + 1)]

    def key(vectors, tail, wide):
        return (wide * (PANEL + 1) + vectors) * lanes + tail

    whole = builder.mul(width, emit.intp(lanes))
    is_wide = builder.icmp_signed("!=", whole, builder.extract_value(args[7], 1))
    is_wide = builder.and_(is_wide, builder.icmp_signed(">", width, emit.intp(0)))
    more = builder.select(is_wide, emit.intp(key(0, 0, True)), emit.intp(0))
    wrong = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(1), 0))
    done = builder.append_basic_block("panels.done")
    switch = builder.switch(builder.add(builder.add(whole, rest), more), done)
    for vectors, tail, wide in cases[1:]:  # but for the empty one
        block = builder.append_basic_block(f"panels.{vectors}.{tail}.{wide}")
        switch.add_case(emit.intp(key(vectors, tail, wide)), block)
        builder.position_at_end(block)
        builder.store(emit_case(vectors, tail, wide), wrong)
        builder.branch(done)
    builder.position_at_end(done)
    return builder.zext(builder.load(wrong), ir.IntType(64))


@intrinsic
def _gather(
    typingctx, width, rest, count, indices, later, n_columns, values, matrices, start, total
):
    intp = types.intp
    sig = intp(intp, intp, intp, indices, later, intp, values, matrices, start, total)

    def codegen(context, builder, signature, args):
        lanes = lanes_of(start.dtype)

        def emit_case(vectors: int, tail: int, wide: bool) -> ir.Value:
            panel = _Panel(builder, vectors, tail, wide, lanes, args[7])
            scalar_type = emit.ir_scalar(start.dtype)
            zeros = [emit.constant(ir.VectorType(scalar_type, n), 0.0) for n in panel.lanes]

            def body(column, value, sums):
                return panel.add_product(value, panel.load(panel.of_column(column)), sums)

            wrong, *sums = _over_nonzeros(context, builder, signature, args, panel, zeros, body)
            first = panel.load(panel.in_order(args[8]))
            added = [builder.fadd(a, b) for a, b in zip(first, sums, strict=True)]
            panel.store(added, panel.in_order(args[9]))
            return wrong

        return _switched(builder, args, lanes, emit_case)

    return sig, codegen


@intrinsic
def _scatter(typingctx, width, rest, count, indices, later, n_columns, values, matrices, addend):
    intp = types.intp
    sig = intp(intp, intp, intp, indices, later, intp, values, matrices, addend)

    def codegen(context, builder, signature, args):
        lanes = lanes_of(addend.dtype)

        def emit_case(vectors: int, tail: int, wide: bool) -> ir.Value:
            panel = _Panel(builder, vectors, tail, wide, lanes, args[7])
            added = panel.load(panel.in_order(args[8]))

            def body(column, value, carried):
                targets = panel.of_column(column)
                panel.store(panel.add_product(value, added, panel.load(targets)), targets)
                return []

            return _over_nonzeros(context, builder, signature, args, panel, [], body)[0]

        return _switched(builder, args, lanes, emit_case)

    return sig, codegen


@helper
def gather(width, rest, count, indices, later, n_columns, values, matrices, start, total):
    """total[:] = start[:] + Σ_j values[j]·row(indices[j]); returns whether an index was wrong.

    ``matrices`` are (matrix, its row length, second matrix); a row is ``width`` vectors of the
    first followed by one of ``rest`` lanes, or none, of the second, whose row it is. With fewer
    vectors than the first one's row has, ``rest`` is 0. The rows of as many columns at ``later``
    are prefetched.
    """
    return _gather(
        width, rest, count, indices, later, n_columns, values, matrices, start, total
    )  # fmt: skip


@helper
def scatter(width, rest, count, indices, later, n_columns, values, matrices, addend):
    """row(indices[j]) += values[j]·addend[:] for every j, rows as in `gather`."""
    return _scatter(width, rest, count, indices, later, n_columns, values, matrices, addend)
