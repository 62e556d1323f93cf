"""The two products of a sparse row, classes along the lanes.

A row's nonzeros (column, value) meet the rows of a (D, K) matrix: `gather` adds them up in
registers, `scatter` adds a vector to each. Column indices are the caller's memory and may change
under our hands, so they are checked where they are used: one beyond D is read as column 0, and
reported.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels import emit
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.simd import lanes_of

# Vectors of sums in registers at once; more classes go over the row's nonzeros again.
PANEL = 4


def _over_nonzeros(context, builder, sig, args, initial, body):
    """Emit the loop over a row's nonzeros; return what is carried through it, and the report.

    ``body(column, value, carried)`` emits a step and returns what it carries on.
    """
    count, indices, values, n_columns = args[:4]
    values_type, target = sig.args[5].dtype, sig.args[7].dtype
    before = builder.block
    loop = builder.append_basic_block("nonzeros.loop")
    end = builder.append_basic_block("nonzeros.end")
    zero = emit.intp(0)
    builder.cbranch(builder.icmp_signed(">", count, zero), loop, end)
    builder.position_at_end(loop)
    j, wrong = builder.phi(zero.type), builder.phi(zero.type)
    carried = [builder.phi(v.type) for v in initial]
    column = builder.load(builder.gep(indices, [j]))
    if column.type.width < 64:
        column = builder.sext(column, ir.IntType(64))
    outside = builder.icmp_unsigned(">=", column, n_columns)
    column = builder.select(outside, zero, column)
    value = context.cast(builder, builder.load(builder.gep(values, [j])), values_type, target)
    updated = body(column, value, carried)
    j_next = builder.add(j, emit.intp(1))
    wrong_next = builder.or_(wrong, builder.zext(outside, zero.type))
    for phi, first, following in [
        (j, zero, j_next),
        (wrong, zero, wrong_next),
        *zip(carried, initial, updated, strict=True),
    ]:
        phi.add_incoming(first, before)
        phi.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", j_next, count), loop, end)
    last = builder.block
    builder.position_at_end(end)
    results = []
    for first, following in [(zero, wrong_next), *zip(initial, updated, strict=True)]:
        phi = builder.phi(first.type)
        phi.add_incoming(first, before)
        phi.add_incoming(following, last)
        results.append(phi)
    return results[1:], results[0]


def _switched(context, builder, args, emit_case) -> ir.Value:
    """Branch on (width, whether the last vector is cut off) to one emitted loop each."""
    width, last, lanes = args[0], args[1], args[2]
    cut = builder.icmp_signed("<", last, emit.intp(lanes))
    key = builder.add(builder.mul(width, emit.intp(2)), builder.zext(cut, ir.IntType(64)))
    done = builder.append_basic_block("gather.done")
    nothing = builder.block
    switch = builder.switch(key, done)
    reports = [(emit.intp(0), nothing)]
    for vectors in range(1, PANEL + 1):
        for is_cut in (False, True):
            block = builder.append_basic_block(f"gather.{vectors}.{int(is_cut)}")
            switch.add_case(emit.intp(2 * vectors + is_cut), block)
            builder.position_at_end(block)
            mask = emit.first_lanes(builder, last, lanes) if is_cut else None
            reports.append((emit_case(vectors, mask), builder.block))
            builder.branch(done)
    builder.position_at_end(done)
    report = builder.phi(ir.IntType(64))
    for value, block in reports:
        report.add_incoming(value, block)
    return report


class _Row:
    """Vectors of a row of a matrix, the last of them possibly cut off."""

    def __init__(self, builder: ir.IRBuilder, width: int, lanes: int, mask: Any) -> None:
        self.builder, self.width, self.lanes, self.mask = builder, width, lanes, mask

    def _at(self, p: ir.Value, i: int) -> tuple[ir.Value, Any]:
        mask = self.mask if i == self.width - 1 else None
        return self.builder.gep(p, [emit.intp(i * self.lanes)]), mask

    def load(self, p: ir.Value) -> list[ir.Value]:
        vectors = []
        for i in range(self.width):
            at, mask = self._at(p, i)
            vectors.append(
                emit.load(self.builder, at, self.lanes)
                if mask is None
                else emit.masked_load(self.builder, at, mask)
            )
        return vectors

    def store(self, vectors: list[ir.Value], p: ir.Value) -> None:
        for i, v in enumerate(vectors):
            at, mask = self._at(p, i)
            if mask is None:
                emit.store(self.builder, v, at)
            else:
                emit.masked_store(self.builder, v, at, mask)


@intrinsic
def _gather(
    typingctx, width, last, count, n_columns, indices, values, step, matrix, start, total
):
    intp = types.intp
    sig = intp(intp, intp, intp, intp, indices, values, intp, matrix, start, total)

    def codegen(context, builder, signature, args):
        width, last, count, n_columns, indices, values, step, matrix, start, total = args
        lanes = lanes_of(signature.args[7].dtype)

        def emit_case(vectors: int, mask: Any) -> ir.Value:
            row = _Row(builder, vectors, lanes, mask)
            whole = _Row(builder, vectors, lanes, None)

            def body(column, value, sums):
                scalar = emit.splat(builder, value, lanes)
                terms = row.load(builder.gep(matrix, [builder.mul(column, step)]))
                return [
                    emit.fma(builder, scalar, term, s) for term, s in zip(terms, sums, strict=True)
                ]

            zeros = emit.constant(ir.VectorType(matrix.type.pointee, lanes), 0.0)
            nonzeros = (count, indices, values, n_columns)
            sums, wrong = _over_nonzeros(
                context, builder, signature, nonzeros, [zeros] * vectors, body
            )
            first = whole.load(start)
            whole.store([builder.fadd(a, b) for a, b in zip(first, sums, strict=True)], total)
            return wrong

        return _switched(context, builder, (width, last, lanes), emit_case)

    return sig, codegen


@intrinsic
def _scatter(
    typingctx, width, last, count, n_columns, indices, values, step, matrix, addend, squared
):
    intp = types.intp
    sig = intp(intp, intp, intp, intp, indices, values, intp, matrix, addend, types.boolean)

    def codegen(context, builder, signature, args):
        width, last, count, n_columns, indices, values, step, matrix, addend, squared = args
        lanes = lanes_of(signature.args[7].dtype)

        def emit_case(vectors: int, mask: Any) -> ir.Value:
            row = _Row(builder, vectors, lanes, mask)
            added = _Row(builder, vectors, lanes, None).load(addend)

            def body(column, value, carried):
                value = builder.select(squared, builder.fmul(value, value), value)
                scalar = emit.splat(builder, value, lanes)
                target = builder.gep(matrix, [builder.mul(column, step)])
                row.store(
                    [
                        emit.fma(builder, scalar, a, old)
                        for a, old in zip(added, row.load(target), strict=True)
                    ],
                    target,
                )
                return []

            nonzeros = (count, indices, values, n_columns)
            return _over_nonzeros(context, builder, signature, nonzeros, [], body)[1]

        return _switched(context, builder, (width, last, lanes), emit_case)

    return sig, codegen


@helper
def gather(width, last, count, n_columns, indices, values, step, matrix, start, total):
    """total[:] = start[:] + Σ_j values[j]·matrix[indices[j]·step : ], ``width`` vectors of it.

    Of the matrix, ``last`` lanes of the last vector are read. Returns whether an index was wrong.
    """
    return _gather(width, last, count, n_columns, indices, values, step, matrix, start, total)


@helper
def scatter(width, last, count, n_columns, indices, values, step, matrix, addend, squared):
    """matrix[indices[j]·step : ] += values[j]·addend[:] for every j, ``width`` vectors of it.

    Of the last vector ``last`` lanes are touched. With ``squared`` values count by their square.
    Returns whether an index was wrong.
    """
    return _scatter(width, last, count, n_columns, indices, values, step, matrix, addend, squared)
