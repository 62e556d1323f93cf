"""Squares: L vectors of L lanes as a UniTuple, where L is how many lanes a register has.

The vectors are called the rows of a square. Functions that take two squares take them row by row.
"""

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import codegen
from fastsoftmax._kernels.vector.simd import Vector, lanes_of

# --------------------------------------------------------------------------- loads and stores


def square_of(dtype: Any) -> types.UniTuple:
    """The type of a square."""
    return types.UniTuple(Vector(dtype, lanes_of(dtype)), lanes_of(dtype))


@intrinsic
def load_rows(typingctx, p, stride, like):
    """A square from rows ``stride`` elements apart, converted to the dtype at ``like``."""
    square = square_of(like.dtype)

    def load(builder, start, step, _):
        rows = [emit.row(builder, start, i, step) for i in range(square.count)]
        rows = [emit.load(builder, row, square.count) for row in rows]
        return [emit.convert(builder, row, p.dtype, like.dtype) for row in rows]

    return square(p, types.intp, like), codegen(load)


@intrinsic
def load_rows_within(typingctx, p, stride, rows, columns, like):
    """`load_rows` where only ``rows`` by ``columns`` values may be read; the others become 0."""
    square = square_of(like.dtype)

    def load(builder, start, step, n_rows, n_columns, _):
        loaded, zeros = [], ir.VectorType(start.type.pointee, square.count)(0)
        for i in range(square.count):
            row_exists = builder.icmp_signed("<", emit.I64(i), n_rows)
            n = builder.select(row_exists, n_columns, emit.I64(0))
            mask = emit.first_lanes(builder, n, square.count)
            row = emit.masked_load(builder, emit.row(builder, start, i, step), mask, zeros)
            loaded.append(emit.convert(builder, row, p.dtype, like.dtype))
        return loaded

    return square(p, types.intp, types.intp, types.intp, like), codegen(load)


@intrinsic
def columns_at_once(typingctx, p):
    """Columns that `load_columns` takes at most: as many as 128 bits hold."""
    n = emit.I64(128 // p.dtype.bitwidth)
    return types.intp(p), codegen(lambda builder, p: n)


@intrinsic
def load_columns(typingctx, p, stride, columns, like):
    """The first ``columns`` columns of L rows, at most `columns_at_once`; zeros behind them.

    Rows are ``stride`` elements apart, and converted to the dtype at ``like``. The starts of
    several rows share a vector, so that it takes far less than to transpose a square.
    """
    vector, n = Vector(like.dtype, lanes_of(like.dtype)), 128 // like.dtype.bitwidth

    def load(builder, start, step, n_columns, _):
        zeros = ir.VectorType(start.type.pointee, n)(0)
        mask = emit.first_lanes(builder, n_columns, n)
        rows = []
        for i in range(vector.lanes):
            part = emit.masked_load(builder, emit.row(builder, start, i, step), mask, zeros)
            rows.append(emit.convert(builder, part, p.dtype, like.dtype))
        columns = [_joined(builder, rows[i::n]) for i in range(n)]
        for bit in _bits_below(n):
            columns = _exchange(builder, columns, bit, *_interleaving(vector.lanes, n))
        return columns

    return types.UniTuple(vector, n)(p, types.intp, types.intp, like), codegen(load)


@intrinsic
def load_row_starts(typingctx, p, stride, columns, fill):
    """The first ``columns`` values of rows ``stride`` elements apart, and ``fill`` behind them."""
    square = square_of(fill.dtype)

    def load(builder, start, step, n_columns, rest):
        mask = emit.first_lanes(builder, n_columns, square.count)
        rows = [emit.row(builder, start, i, step) for i in range(square.count)]
        return [emit.masked_load(builder, row, mask, rest) for row in rows]

    return square(p, types.intp, types.intp, fill), codegen(load)


@intrinsic
def store_rows(typingctx, p, stride, square):
    """Write the rows of a square ``stride`` elements apart."""

    def store(builder, start, step, rows):
        for i, v in enumerate(rows):
            emit.store(builder, v, emit.row(builder, start, i, step))

    return types.void(p, types.intp, square), codegen(store)


@intrinsic
def store_row_starts(typingctx, p, stride, rows, columns, square):
    """Write the first ``columns`` values of the first ``rows`` rows, ``stride`` elements apart."""

    def store(builder, start, step, n_rows, n_columns, vectors):
        for i, v in enumerate(vectors):
            row_exists = builder.icmp_signed("<", emit.I64(i), n_rows)
            n = builder.select(row_exists, n_columns, emit.I64(0))
            mask = emit.first_lanes(builder, n, len(vectors))
            emit.masked_store(builder, v, emit.row(builder, start, i, step), mask)

    sig = types.void(p, types.intp, types.intp, types.intp, square)
    return sig, codegen(store)


# -------------------------------------------------------------------------------- row by row


@intrinsic
def subtract_from_rows(typingctx, square, v):
    """Every row minus one vector."""
    return square(square, v), codegen(lambda builder, rows, v: [builder.fsub(r, v) for r in rows])


@intrinsic
def square_rows(typingctx, square):
    """Every value times itself."""
    return square(square), codegen(lambda builder, rows: [builder.fmul(r, r) for r in rows])


@intrinsic
def ones_where_zero(typingctx, square):
    """1 where a value is 0, else 0."""

    def replace(builder, rows):
        one, zero = rows[0].type(1.0), rows[0].type(0.0)
        return [builder.select(builder.fcmp_ordered("==", r, zero), one, zero) for r in rows]

    return square(square), codegen(replace)


@intrinsic
def larger_rows(typingctx, square, other):
    """The larger of two squares' values; the second's where either is NaN."""
    return square(square, other), codegen(partial(_of_pairs, emit.larger))


@intrinsic
def add_rows(typingctx, square, other):
    """The sums of two squares' values."""
    return square(square, other), codegen(partial(_of_pairs, ir.IRBuilder.fadd))


def _of_pairs(combine, builder, *squares):
    return [combine(builder, a, b) for a, b in zip(*squares, strict=True)]


# ------------------------------------------------------------------------------- across lanes


@intrinsic
def transpose(typingctx, square):
    """Transpose a square, in log₂ L steps.

    Each step exchanges one bit of the row's number with one of the lane's. Those of the lane
    inside its 128 bits go first, by interleaving, then those of the 128 bits' place: both are one
    cheap instruction, where a step that mixes the two takes a permutation by table.
    """
    return square(square), codegen(_transpose)


def _transpose(builder, rows):
    """Transpose a square by exchanging the halves of pairs of its rows, once for each bit of L."""
    lanes, inner = len(rows), 128 // emit.bit_width(rows[0].type.element)
    for bit in _bits_below(inner):
        rows = _exchange(builder, rows, bit, *_interleaving(lanes, inner))
    for bit in reversed(_bits_below(lanes)):
        if bit >= inner:
            rows = _exchange(builder, rows, bit, *_halves(lanes, 2 * inner))
    return rows


def _bits_below(n: int) -> list[int]:
    """The powers of two below n, which is one as well, in descending order."""
    return [1 << i for i in reversed(range(n.bit_length() - 1))]


def _exchange(builder, rows, bit, low, high):
    """Rows of which those with numbers that differ in one bit are shuffled with each other."""
    rows = list(rows)
    for i in range(len(rows)):
        if i & bit == 0:
            pair = rows[i], rows[i + bit]
            rows[i], rows[i + bit] = _shuffle(builder, *pair, low, high)
    return rows


def _joined(builder, parts):
    """One vector of all lanes of several, whose number is a power of two."""
    while len(parts) > 1:
        every = emit.indices(range(2 * parts[0].type.count))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [builder.shuffle_vector(a, b, every) for a, b in pairs]
    return parts[0]


def _shuffle(builder, a, b, *choices):
    """Vectors of chosen lanes of a and b; the numbers of b's lanes go on from those of a."""
    return [builder.shuffle_vector(a, b, emit.indices(choice)) for choice in choices]


def _interleaving(lanes: int, inner: int) -> tuple[list[int], list[int]]:
    """a₀ b₀ a₁ b₁ … of the lower and of the upper halves of every ``inner`` lanes of a and b."""
    low = [start + i // 2 + i % 2 * lanes for start in range(0, lanes, inner) for i in range(inner)]
    return low, [i + inner // 2 for i in low]


def _halves(lanes: int, width: int) -> tuple[list[int], list[int]]:
    """The lower halves of every ``width`` lanes of a, then of b; and the upper halves."""
    low = [i for i in range(2 * lanes) if i % width < width // 2]
    return low, [i + width // 2 for i in low]


@intrinsic
def largest_of_rows(typingctx, square):
    """Lane i: the largest value of row i."""
    return square.dtype(square), codegen(partial(_combine_lanes, emit.larger))


@intrinsic
def sums_of_rows(typingctx, square):
    """Lane i: the sum of row i; every row is added up in the same order."""
    return square.dtype(square), codegen(partial(_combine_lanes, ir.IRBuilder.fadd))


def _combine_lanes(combine, builder, vectors):
    """Turn pairs of vectors into one that holds half of both, until one vector is left.

    That takes half the shuffles of a transposition.
    """
    lanes, inner = len(vectors), 128 // emit.bit_width(vectors[0].type.element)
    while len(vectors) > 1:
        choices = _halves_of_rows(lanes, inner, len(vectors))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [combine(builder, *_shuffle(builder, a, b, *choices)) for a, b in pairs]
    return vectors[0]


def _halves_of_rows(lanes: int, inner: int, n_vectors: int) -> tuple[list[int], list[int]]:
    """Which lanes of a and b are combined next: two halves of those that belong to the same row.

    Lanes inside 128 bits are combined first, by interleaving, which is cheap; then halves of longer
    stretches, those of a and behind them those of b.
    """
    rows = lanes // n_vectors  # that each vector holds values of
    if rows >= inner:
        return _halves(lanes, n_vectors * inner)
    starts = [i for i in range(0, lanes, rows) if i % inner < inner // 2]
    low = [i + vector + j for i in starts for vector in (0, lanes) for j in range(rows)]
    return low, [i + inner // 2 for i in low]
