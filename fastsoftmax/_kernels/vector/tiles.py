"""Tiles of vectors: transposition, and the micro-kernel.

`contract` is the micro-kernel of the package: every matrix product of softmax regression is a call
of it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import Vector, lanes_of

# -------------------------------------------------------------------------- transposition


@intrinsic
def transpose(typingctx, rows):
    """Transpose L vectors of L lanes, a UniTuple, in log₂ L stages.

    Each stage exchanges one bit of the row's number with one of the lane's. Those of the lane
    inside its 128 bits go first, by interleaving, then those of the 128 bits' place: both are one
    cheap instruction, where a stage that mixes the two takes a permutation by table.
    """
    sig = rows(rows)

    def codegen(context, builder, signature, args):
        lanes = rows.dtype.lanes
        inner = 128 // rows.dtype.dtype.bitwidth
        vectors = cgutils.unpack_tuple(builder, args[0])
        bits = [1 << i for i in range(lanes.bit_length() - 1)]
        stages = [bit for bit in reversed(bits) if bit < inner]
        stages += [bit for bit in bits if bit >= inner]
        for bit in stages:
            low, high = _interleaving(lanes, inner) if bit < inner else _halves(lanes, inner)
            for i in range(lanes):
                if i & bit == 0:
                    pair = vectors[i], vectors[i + bit]
                    vectors[i] = builder.shuffle_vector(*pair, emit.indices(low))
                    vectors[i + bit] = builder.shuffle_vector(*pair, emit.indices(high))
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


def _interleaving(lanes: int, inner: int) -> tuple[list[int], list[int]]:
    """a₀ b₀ a₁ b₁ … of the lower and of the upper halves of every ``inner`` lanes."""
    low = [
        group + i // 2 + (i % 2) * lanes for group in range(0, lanes, inner) for i in range(inner)
    ]
    return low, [i + inner // 2 for i in low]


def _halves(lanes: int, inner: int) -> tuple[list[int], list[int]]:
    """The even groups of ``inner`` lanes of a, then of b; and the odd ones."""
    even = [i for i in range(2 * lanes) if i // inner % 2 == 0]
    return even, [i + inner for i in even]


@intrinsic
def load_rows(typingctx, p, stride, like):
    """L vectors of L lanes from rows ``stride`` elements apart, as a UniTuple.

    Values are converted to the dtype at ``like``, whose lane count L is.
    """
    sig, lanes = _rows_signature(p, like, types.intp)

    def codegen(context, builder, signature, args):
        vectors = []
        for i in range(lanes):
            row = builder.gep(args[0], [builder.mul(args[1], emit.intp(i))])
            vectors.append(
                emit.convert(builder, emit.load(builder, row, lanes), p.dtype, like.dtype)
            )
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def load_rows_within(typingctx, p, stride, rows, columns, like):
    """`load_rows` of a corner: ``rows`` by ``columns`` are read and nothing else; the rest is 0."""
    sig, lanes = _rows_signature(p, like, types.intp, types.intp, types.intp)

    def codegen(context, builder, signature, args):
        vectors = []
        for i in range(lanes):
            row_exists = builder.icmp_signed("<", emit.intp(i), args[2])
            columns = builder.select(row_exists, args[3], emit.intp(0))
            mask = emit.first_lanes(builder, columns, lanes)
            row = builder.gep(args[0], [builder.mul(args[1], emit.intp(i))])
            vector = emit.masked_load(builder, row, mask)
            vectors.append(emit.convert(builder, vector, p.dtype, like.dtype))
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


def _rows_signature(p: Any, like: Any, *counts: types.Type) -> tuple[Any, int]:
    lanes = lanes_of(like.dtype)
    return types.UniTuple(Vector(like.dtype, lanes), lanes)(p, *counts, like), lanes


@intrinsic
def subtract_from_rows(typingctx, rows, v):
    """Every vector of a UniTuple minus one vector."""
    return _with_vector(rows, v, "fsub")


@intrinsic
def scale_rows(typingctx, rows, v):
    """Every vector of a UniTuple times one vector."""
    return _with_vector(rows, v, "fmul")


def _with_vector(rows: Any, v: Any, instruction: str) -> tuple[Any, Any]:
    def codegen(context, builder, signature, args):
        combine = getattr(builder, instruction)
        vectors = [combine(row, args[1]) for row in cgutils.unpack_tuple(builder, args[0])]
        return context.make_tuple(builder, signature.return_type, vectors)

    return rows(rows, v), codegen


@intrinsic
def square_rows(typingctx, rows):
    """Every vector of a UniTuple times itself."""
    sig = rows(rows)

    def codegen(context, builder, signature, args):
        vectors = [builder.fmul(row, row) for row in cgutils.unpack_tuple(builder, args[0])]
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def load_row_starts(typingctx, p, stride, columns, fill):
    """L vectors: the first ``columns`` values of L rows, and ``fill``'s lanes behind them."""
    lanes = fill.lanes
    sig = types.UniTuple(fill, lanes)(p, types.intp, types.intp, fill)

    def codegen(context, builder, signature, args):
        mask = emit.first_lanes(builder, args[2], lanes)
        vectors = []
        for i in range(lanes):
            row = builder.gep(args[0], [builder.mul(args[1], emit.intp(i))])
            vectors.append(emit.masked_load(builder, row, mask, args[3]))
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def larger_rows(typingctx, rows, others):
    """The larger of two UniTuples' values; the second's where either is NaN."""
    return _of_pairs(rows, others, emit.larger)


@intrinsic
def add_rows(typingctx, rows, others):
    """The sums of two UniTuples' values."""
    return _of_pairs(rows, others, lambda builder, a, b: builder.fadd(a, b))


def _of_pairs(rows: Any, others: Any, combine: Any) -> tuple[Any, Any]:
    def codegen(context, builder, signature, args):
        pairs = zip(*(cgutils.unpack_tuple(builder, rows) for rows in args), strict=True)
        vectors = [combine(builder, a, b) for a, b in pairs]
        return context.make_tuple(builder, signature.return_type, vectors)

    return rows(rows, others), codegen


@intrinsic
def ones_where_zero(typingctx, rows):
    """1 where a UniTuple's values are 0, else 0."""

    def codegen(context, builder, signature, args):
        vectors = cgutils.unpack_tuple(builder, args[0])
        one, zero = (emit.constant(vectors[0].type, value) for value in (1.0, 0.0))
        vectors = [builder.select(builder.fcmp_ordered("==", v, zero), one, zero) for v in vectors]
        return context.make_tuple(builder, signature.return_type, vectors)

    return rows(rows), codegen


@intrinsic
def largest_of_rows(typingctx, rows):
    """Lane i: the largest lane of vector i of L."""
    return _across_lanes(rows, emit.larger)


@intrinsic
def sums_of_rows(typingctx, rows):
    """Lane i: the sum of vector i of L; every one is added up in the same order."""
    return _across_lanes(rows, lambda builder, a, b: builder.fadd(a, b))


def _across_lanes(rows: Any, combine: Any) -> tuple[Any, Any]:
    """Halve the vectors' number again and again, each time two to one that holds half of both.

    That takes half the shuffles of a transposition.
    """
    lanes = rows.dtype.lanes
    inner = 128 // rows.dtype.dtype.bitwidth

    def codegen(context, builder, signature, args):
        vectors = cgutils.unpack_tuple(builder, args[0])
        while len(vectors) > 1:
            low, high = _two_halves(lanes, inner, len(vectors))
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [
                combine(
                    builder,
                    builder.shuffle_vector(a, b, emit.indices(low)),
                    builder.shuffle_vector(a, b, emit.indices(high)),
                )
                for a, b in pairs
            ]
        return vectors[0]

    return rows.dtype(rows), codegen


def _two_halves(lanes: int, inner: int, n_vectors: int) -> tuple[list[int], list[int]]:
    """Where the two parts of the lanes of a and b are that are combined next.

    Inside of 128 bits first, by interleaving, which is cheap. Then halves of what belongs to the
    same rows: those in a, and behind them those in b.
    """
    done = lanes // n_vectors  # rows that each vector holds parts of
    if done < inner:
        pairs = range(0, lanes, done)
        low = [
            i + of + j
            for i in pairs
            if i % inner < inner // 2
            for of in (0, lanes)
            for j in range(done)
        ]
        return low, [i + inner // 2 for i in low]
    width = n_vectors * inner
    low = [i for i in range(2 * lanes) if i % width < width // 2]
    return low, [i + width // 2 for i in low]


@intrinsic
def store_rows(typingctx, p, stride, vectors):
    """Write a UniTuple of vectors to rows ``stride`` elements apart."""
    sig = types.void(p, types.intp, vectors)

    def codegen(context, builder, signature, args):
        for i, v in enumerate(cgutils.unpack_tuple(builder, args[2])):
            emit.store(builder, v, builder.gep(args[0], [builder.mul(args[1], emit.intp(i))]))
        return context.get_dummy_value()

    return sig, codegen


# --------------------------------------------------------------------------- the micro-kernel


@intrinsic
def _contract(
    typingctx,
    height,
    width,
    depth,
    a,
    a_row,
    a_step,
    b,
    b_row,
    c,
    c_row,
    start,
    start_row,
    ahead,
    pace,
):
    intp = types.intp
    sig = types.void(height, width, intp, a, intp, intp, b, intp, c, intp, start, intp, intp, intp)

    def codegen(context, builder, signature, args):
        h, w = args[0], args[1]
        key = builder.add(builder.mul(h, emit.intp(WIDTH + 1)), w)
        done = builder.append_basic_block("contract.done")
        switch = builder.switch(key, done)
        for rows in range(1, HEIGHT + 1):
            for vectors in range(1, WIDTH + 1):
                block = builder.append_basic_block(f"contract.{rows}x{vectors}")
                switch.add_case(emit.intp(rows * (WIDTH + 1) + vectors), block)
                builder.position_at_end(block)
                _emit_contract(builder, rows, vectors, lanes_of(a.dtype), args[2:])
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return sig, codegen


def _emit_contract(builder, height, width, lanes, args):
    depth, a, a_row, a_step, b, b_row, c, c_row, start, start_row, ahead, pace = args
    tile = [(i, j) for i in range(height) for j in range(width)]
    a_rows = [builder.gep(a, [builder.mul(a_row, emit.intp(i))]) for i in range(height)]
    zeros = emit.constant(ir.VectorType(a.type.pointee, lanes), 0.0)

    before = builder.block
    loop = builder.append_basic_block("contract.loop")
    end = builder.append_basic_block("contract.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    p = builder.phi(ir.IntType(64))
    b_p = builder.phi(b.type)
    offset = builder.phi(ir.IntType(64))
    sums = [builder.phi(zeros.type) for _ in tile]
    line = builder.add(ahead, builder.mul(p, pace))
    emit.prefetch(builder, line)
    emit.prefetch(builder, builder.add(line, emit.intp(64)))
    b_vectors = [
        emit.load(builder, builder.gep(b_p, [emit.intp(j * lanes)]), lanes) for j in range(width)
    ]
    updated = []
    for i, row in enumerate(a_rows):  # one broadcast alive at a time: more would not fit
        scalar = emit.splat(builder, builder.load(builder.gep(row, [offset])), lanes)
        updated += [
            emit.fma(builder, scalar, b_vectors[j], sums[i * width + j]) for j in range(width)
        ]
    p_next = builder.add(p, emit.intp(1))
    recurrences = [
        (p, emit.intp(0), p_next),
        (offset, emit.intp(0), builder.add(offset, a_step)),
        (b_p, b, builder.gep(b_p, [b_row])),
    ]
    recurrences += zip(sums, [zeros] * len(sums), updated, strict=True)
    for phi, first, following in recurrences:
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", p_next, depth), loop, end)

    builder.position_at_end(end)
    from_scalars = builder.icmp_signed("==", start_row, emit.intp(0))
    with builder.if_else(from_scalars) as (scalar_case, vector_case):
        with scalar_case:
            for (i, j), total in zip(tile, updated, strict=True):
                first = emit.splat(builder, builder.load(builder.gep(start, [emit.intp(i)])), lanes)
                emit.store(
                    builder, builder.fadd(first, total), _at(builder, c, c_row, i, j * lanes)
                )
        with vector_case:
            for (i, j), total in zip(tile, updated, strict=True):
                first = emit.load(builder, _at(builder, start, start_row, i, j * lanes), lanes)
                emit.store(
                    builder, builder.fadd(first, total), _at(builder, c, c_row, i, j * lanes)
                )


def _at(builder, p, row, i, offset):
    return builder.gep(p, [builder.add(builder.mul(row, emit.intp(i)), emit.intp(offset))])


@helper
def contract(
    height, width, depth, a, a_row, a_step, b, b_row, c, c_row, start, start_row, ahead, pace
):
    """c[i, :] = start[i·start_row, :] + Σ_p a[i·a_row + p·a_step] · b[p·b_row, :] in registers.

    ``height`` (1 to HEIGHT) rows of ``width`` (1 to WIDTH) vectors are held in registers while p
    runs over ``depth`` (at least 1). With ``start_row`` = 0 the scalar start[i] is added to row i,
    otherwise the vectors at start[i·start_row]. It is added at the end: summed from there on,
    a million equal rows lost two of a float32's digits. At step p the two cache lines at byte
    address ``ahead`` + p·pace are prefetched: spread over the arithmetic, the traffic hides
    behind it, where a burst of prefetches stalls on the core's 16 line buffers.

    One loop a shape is emitted, behind a switch, which LLVM compiles faster than Numba types one
    specialisation a shape; and behind a function, so that all products share the loops.
    """
    _contract(
        height, width, depth, a, a_row, a_step, b, b_row, c, c_row, start, start_row, ahead, pace
    )
