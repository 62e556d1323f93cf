"""Vectors and register tiles for Numba: the only file that knows LLVM.

A `Vector` is an LLVM ``<L x float>`` held in a Numba type; arithmetic on it is one instruction
per operator. `contract` is the micro-kernel of the package: both matrix products of softmax
regression are calls of it. Data is addressed through Numba's ``CPointer``: an array in the
argument list of an inlined helper would cost reference counts in the hot loop.

No fast-math flag appears anywhere: -inf logits are legal, so ``nnan`` and ``ninf`` are lies, and
``reassoc`` would undo the magic-number rounding of exp.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

# Numba's own target decides, so that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are honoured.
TRIPLE, CPU_NAME, _feature_string = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(f[1:] for f in _feature_string.split(",") if f.startswith("+"))
_IS_ARM = TRIPLE.startswith(("aarch64", "arm64"))

VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
HAS_FMA = _IS_ARM or bool(FEATURES & {"fma", "avx512f"})
# A tile of HEIGHT x WIDTH accumulators, WIDTH vectors of b and a broadcast must fit the registers:
# 24 + 4 + 1 of 32, or 12 + 2 + 1 of 16.
HEIGHT = 6
WIDTH = 4 if _IS_ARM or "avx512f" in FEATURES else 2

LANES_64 = VECTOR_BYTES // 8


def lanes_of(dtype: types.Float) -> int:
    """Lanes of one vector register for a Numba float type."""
    return VECTOR_BYTES * 8 // dtype.bitwidth


class Vector(types.Type):
    """``lanes`` values of a float dtype, or a mask of as many booleans, in one register."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_ir_scalar(fe_type.dtype), fe_type.lanes))


def _ir_scalar(dtype: types.Type) -> ir.Type:
    if isinstance(dtype, types.Boolean):
        return ir.IntType(1)
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undef = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undef, scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, undef, mask)


def _constant(value_type: ir.Type, value: float) -> ir.Constant:
    if isinstance(value_type, ir.VectorType):
        return ir.Constant(value_type, [value] * value_type.count)
    return ir.Constant(value_type, value)


def _fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    if not HAS_FMA:  # llvm.fma would become one libm call a lane
        return builder.fadd(builder.fmul(a, b), c)
    fnty = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}{_kind(a.type.element)}"
    return builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), [a, b, c])


def _kind(scalar: ir.Type) -> str:
    """A scalar type's name inside the names of LLVM's intrinsics."""
    if isinstance(scalar, ir.IntType):
        return f"i{scalar.width}"
    return "f32" if isinstance(scalar, ir.FloatType) else "f64"


def _load(builder: ir.IRBuilder, p: ir.Value, lanes: int) -> ir.Value:
    vector = ir.VectorType(p.type.pointee, lanes)
    return builder.load(builder.bitcast(p, vector.as_pointer()), align=_align(p))


def _store(builder: ir.IRBuilder, v: ir.Value, p: ir.Value) -> None:
    builder.store(v, builder.bitcast(p, v.type.as_pointer()), align=_align(p))


def _align(p: ir.Value) -> int:
    return int(_kind(p.type.pointee)[1:]) // 8


def _intp(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


# ---------------------------------------------------------------------------------- pointers


@intrinsic
def pointer(typingctx, array):
    """Pointer to an array's first element."""
    sig = types.CPointer(array.dtype)(array)

    def codegen(context, builder, signature, args):
        return cgutils.create_struct_proxy(array)(context, builder, args[0]).data

    return sig, codegen


@intrinsic
def as_pointer(typingctx, address, like):
    """Pointer to ``like``'s dtype from an integer address."""
    sig = types.CPointer(like.dtype)(types.intp, like)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return sig, codegen


@intrinsic
def advance(typingctx, p, n):
    """``p + n``, counted in elements."""
    sig = p(p, types.intp)

    def codegen(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return sig, codegen


@intrinsic
def lane_count(typingctx, p):
    """Lanes of a vector at ``p``, a compile-time constant."""
    lanes = lanes_of(p.dtype)
    return types.intp(p), lambda context, builder, signature, args: _intp(lanes)


@intrinsic
def fetch_add(typingctx, p, n):
    """Add ``n`` to the integer at ``p`` atomically; return what it was."""
    sig = types.intp(p, types.intp)

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return sig, codegen


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for a cache line, into L2; harmless on any address."""
    i8p, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    fnty = ir.FunctionType(ir.VoidType(), [i8p, i32, i32, i32])
    fn = cgutils.get_or_insert_function(builder.module, fnty, "llvm.prefetch.p0")
    options = [ir.Constant(i32, value) for value in (0, 2, 1)]  # read, L2, data
    builder.call(fn, [builder.inttoptr(address, i8p), *options])


# ------------------------------------------------------------------------- vector arithmetic


def _elementwise(op: Any, instruction: str, ordered: bool = False) -> None:
    """Give a Python operator its vector instruction; comparisons are ordered (NaN: false)."""

    @infer_global(op)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                result = Vector(types.boolean, args[0].lanes) if ordered else args[0]
                return signature(result, *args)
            return None

    @lower_builtin(op, Vector, Vector)
    def lower(context, builder, sig, args):
        if ordered:
            return builder.fcmp_ordered(instruction, *args)
        return getattr(builder, instruction)(*args)


for _op, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _elementwise(_op, _instruction)
for _op, _instruction in ((operator.lt, "<"), (operator.gt, ">"), (operator.eq, "==")):
    _elementwise(_op, _instruction, ordered=True)


@intrinsic
def load(typingctx, p):
    """The vector at ``p``; no alignment beyond the element's."""
    sig = Vector(p.dtype, lanes_of(p.dtype))(p)

    def codegen(context, builder, signature, args):
        return _load(builder, args[0], lanes_of(p.dtype))

    return sig, codegen


@intrinsic
def load_double(typingctx, p):
    """As many values at ``p`` as a float64 vector has lanes, converted to float64."""
    sig = Vector(types.float64, LANES_64)(p)

    def codegen(context, builder, signature, args):
        v = _load(builder, args[0], LANES_64)
        wide = ir.VectorType(ir.DoubleType(), LANES_64)
        return v if v.type == wide else builder.fpext(v, wide)

    return sig, codegen


@intrinsic
def store(typingctx, p, v):
    """Write a vector at ``p``."""
    sig = types.void(p, v)

    def codegen(context, builder, signature, args):
        _store(builder, args[1], args[0])
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def splat(typingctx, scalar, like):
    """A vector of ``like``'s type with ``scalar`` in every lane."""
    sig = like(scalar, like)

    def codegen(context, builder, signature, args):
        value = context.cast(builder, args[0], scalar, like.dtype)
        return _splat(builder, value, like.lanes)

    return sig, codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a·b + c; one rounding where the target has FMA."""
    sig = a(a, a, a)

    def codegen(context, builder, signature, args):
        return _fma(builder, *args)

    return sig, codegen


@intrinsic
def select(typingctx, mask, a, b):
    """``a`` where the mask is set, else ``b``."""
    sig = a(mask, a, a)

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return sig, codegen


@intrinsic
def horner(typingctx, x, coefficients):
    """The polynomial with these coefficients (a constant tuple, highest power first) at ``x``."""
    sig = x(x, coefficients)

    def codegen(context, builder, signature, args):
        vector = args[0].type
        terms = [
            _splat(builder, context.cast(builder, c, types.float64, x.dtype), vector.count)
            for c in cgutils.unpack_tuple(builder, args[1])
        ]
        total = terms[0]
        for term in terms[1:]:
            total = _fma(builder, total, args[0], term)
        return total

    return sig, codegen


@intrinsic
def times_power_of_two(typingctx, x, shifted):
    """x·2ⁿ for n in [-1100, 0] and x in [½, 2), rounded once even where it is subnormal.

    ``shifted`` is n plus the magic number 1.5·2^(mantissa bits): n lies in its low bits. The
    exponent is lowered by ⌊n/2⌋ by integer addition (still a normal number), and the rest of it
    by an exact-or-once-rounded multiplication.
    """
    sig = x(x, x)

    def codegen(context, builder, signature, args):
        bits, mantissa, bias = (32, 23, 127) if x.dtype.bitwidth == 32 else (64, 52, 1023)
        integer = ir.VectorType(ir.IntType(bits), x.lanes)
        magic = builder.bitcast(_constant(args[1].type, 1.5 * 2.0**mantissa), integer)
        n = builder.sub(builder.bitcast(args[1], integer), magic)
        half = builder.ashr(n, _constant(integer, 1))
        rest = builder.add(builder.sub(n, half), _constant(integer, bias))
        shift = _constant(integer, mantissa)
        scaled = builder.add(builder.bitcast(args[0], integer), builder.shl(half, shift))
        factor = builder.bitcast(builder.shl(rest, shift), args[0].type)
        return builder.fmul(builder.bitcast(scaled, args[0].type), factor)

    return sig, codegen


@intrinsic
def split_exponent(typingctx, x):
    """(m, e) with x = m·2ᵉ, m in [√½, √2), e a float; x positive and normal."""
    sig = types.UniTuple(x, 2)(x)

    def codegen(context, builder, signature, args):
        bits, mantissa, bias = (32, 23, 127) if x.dtype.bitwidth == 32 else (64, 52, 1023)
        integer = ir.VectorType(ir.IntType(bits), x.lanes)
        # Subtracting √½'s bits first makes the exponent field count from √½ instead of 1.
        root_half = 0x3F3504F3 if bits == 32 else 0x3FE6A09E667F3BCD
        offset = builder.sub(builder.bitcast(args[0], integer), _constant(integer, root_half))
        exponent = builder.ashr(offset, _constant(integer, mantissa))
        fraction = builder.and_(offset, _constant(integer, (1 << mantissa) - 1))
        m = builder.bitcast(builder.add(fraction, _constant(integer, root_half)), args[0].type)
        # int64 -> float64 is one lane at a time before AVX-512: convert by the magic number.
        magic = 1.5 * 2.0**mantissa
        magic_bits = builder.bitcast(_constant(args[0].type, magic), integer)
        e = builder.bitcast(builder.add(exponent, magic_bits), args[0].type)
        e = builder.fsub(e, _constant(args[0].type, magic))
        return context.make_tuple(builder, signature.return_type, [m, e])

    return sig, codegen


@intrinsic
def sum_lanes(typingctx, v):
    """The sum of a vector's lanes, by halves: a fixed order."""
    sig = v.dtype(v)

    def codegen(context, builder, signature, args):
        total, lanes = args[0], v.lanes
        while lanes > 1:
            lanes //= 2
            low, high = (
                builder.shuffle_vector(total, total, _indices(range(start, start + lanes)))
                for start in (0, lanes)
            )
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return sig, codegen


def _indices(values: Any) -> ir.Constant:
    values = list(values)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), values)


# -------------------------------------------------------------------------- transposition


@intrinsic
def transpose(typingctx, rows):
    """Transpose L vectors of L lanes, a UniTuple, in log₂ L stages of interleaving."""
    sig = rows(rows)

    def codegen(context, builder, signature, args):
        lanes = rows.dtype.lanes
        vectors = cgutils.unpack_tuple(builder, args[0])
        low = _indices(i // 2 + (i % 2) * lanes for i in range(lanes))
        high = _indices((lanes + i) // 2 + (i % 2) * lanes for i in range(lanes))
        # Interleaving vector i with vector i + L/2 rotates the bits of (row, lane) by one;
        # after log₂ L rounds rows and lanes have changed places.
        for _ in range(lanes.bit_length() - 1):
            half = lanes // 2
            vectors = [
                builder.shuffle_vector(vectors[i], vectors[i + half], order)
                for i in range(half)
                for order in (low, high)
            ]
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def load_rows(typingctx, p, stride, like):
    """L vectors of L lanes from rows ``stride`` elements apart, as a UniTuple.

    Values are converted to the dtype at ``like``, whose lane count L is.
    """
    sig, lanes = _rows_signature(p, like, types.intp)

    def codegen(context, builder, signature, args):
        vectors = []
        for i in range(lanes):
            row = builder.gep(args[0], [builder.mul(args[1], _intp(i))])
            vectors.append(_convert(builder, _load(builder, row, lanes), p.dtype, like.dtype))
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def load_rows_within(typingctx, p, stride, rows, columns, like):
    """`load_rows` of a corner: ``rows`` by ``columns`` are read and nothing else; the rest is 0."""
    sig, lanes = _rows_signature(p, like, types.intp, types.intp, types.intp)

    def codegen(context, builder, signature, args):
        lane = ir.Constant(ir.VectorType(ir.IntType(64), lanes), list(range(lanes)))
        vectors = []
        for i in range(lanes):
            row_exists = builder.icmp_signed("<", _intp(i), args[2])
            columns = builder.select(row_exists, args[3], _intp(0))
            mask = builder.icmp_signed("<", lane, _splat(builder, columns, lanes))
            row = builder.gep(args[0], [builder.mul(args[1], _intp(i))])
            vector = _masked_load(builder, row, mask)
            vectors.append(_convert(builder, vector, p.dtype, like.dtype))
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


def _rows_signature(p: Any, like: Any, *counts: types.Type) -> tuple[Any, int]:
    lanes = lanes_of(like.dtype)
    return types.UniTuple(Vector(like.dtype, lanes), lanes)(p, *counts, like), lanes


def _convert(
    builder: ir.IRBuilder, v: ir.Value, source: types.Type, target: types.Type
) -> ir.Value:
    result = ir.VectorType(_ir_scalar(target), v.type.count)
    if isinstance(source, types.Integer):
        return (builder.sitofp if source.signed else builder.uitofp)(v, result)
    return v if v.type == result else builder.fpext(v, result)


def _masked_load(builder: ir.IRBuilder, p: ir.Value, mask: ir.Value) -> ir.Value:
    vector = ir.VectorType(p.type.pointee, mask.type.count)
    i32 = ir.IntType(32)
    fnty = ir.FunctionType(vector, [vector.as_pointer(), i32, mask.type, vector])
    name = f"llvm.masked.load.v{vector.count}{_kind(vector.element)}.p0"
    fn = cgutils.get_or_insert_function(builder.module, fnty, name)
    address = builder.bitcast(p, vector.as_pointer())
    zeros = ir.Constant(vector, [0] * vector.count)
    return builder.call(fn, [address, ir.Constant(i32, _align(p)), mask, zeros])


@intrinsic
def subtract_from_rows(typingctx, rows, v):
    """Every vector of a UniTuple minus one vector."""
    sig = rows(rows, v)

    def codegen(context, builder, signature, args):
        vectors = [builder.fsub(row, args[1]) for row in cgutils.unpack_tuple(builder, args[0])]
        return context.make_tuple(builder, signature.return_type, vectors)

    return sig, codegen


@intrinsic
def store_rows(typingctx, p, stride, vectors):
    """Write a UniTuple of vectors to rows ``stride`` elements apart."""
    sig = types.void(p, types.intp, vectors)

    def codegen(context, builder, signature, args):
        for i, v in enumerate(cgutils.unpack_tuple(builder, args[2])):
            _store(builder, v, builder.gep(args[0], [builder.mul(args[1], _intp(i))]))
        return context.get_dummy_value()

    return sig, codegen


# --------------------------------------------------------------------------- the micro-kernel


@intrinsic
def contract(
    typingctx, height, width, depth, a, a_row, b, b_row, c, c_row, start, start_row, ahead, pace
):
    """c[i, :] = start[i·start_row, :] + Σ_p a[i·a_row + p] · b[p·b_row, :] in registers.

    ``height`` (1 to HEIGHT) rows of ``width`` (1 to WIDTH) vectors are held in registers while p
    runs over ``depth`` (at least 1). With ``start_row`` = 0 the scalar start[i] is added to row i,
    otherwise the vectors at start[i·start_row]. It is added at the end: summed from there on,
    a million equal rows lost two of a float32's digits. At step p the two cache lines at byte
    address ``ahead`` + p·pace are prefetched: spread over the arithmetic, the traffic hides
    behind it, where a burst of prefetches stalls on the core's 16 line buffers.

    One loop a shape is emitted here, behind a switch, which LLVM compiles faster than Numba types
    one specialisation a shape.
    """
    intp = types.intp
    sig = types.void(height, width, intp, a, intp, b, intp, c, intp, start, intp, intp, intp)

    def codegen(context, builder, signature, args):
        h, w = args[0], args[1]
        key = builder.add(builder.mul(h, _intp(WIDTH + 1)), w)
        done = builder.append_basic_block("contract.done")
        switch = builder.switch(key, done)
        for rows in range(1, HEIGHT + 1):
            for vectors in range(1, WIDTH + 1):
                block = builder.append_basic_block(f"contract.{rows}x{vectors}")
                switch.add_case(_intp(rows * (WIDTH + 1) + vectors), block)
                builder.position_at_end(block)
                _emit_contract(builder, rows, vectors, lanes_of(a.dtype), args[2:])
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return sig, codegen


def _emit_contract(builder, height, width, lanes, args):
    depth, a, a_row, b, b_row, c, c_row, start, start_row, ahead, pace = args
    tile = [(i, j) for i in range(height) for j in range(width)]
    a_rows = [builder.gep(a, [builder.mul(a_row, _intp(i))]) for i in range(height)]
    zeros = _constant(ir.VectorType(a.type.pointee, lanes), 0.0)

    before = builder.block
    loop = builder.append_basic_block("contract.loop")
    end = builder.append_basic_block("contract.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    p = builder.phi(ir.IntType(64))
    b_p = builder.phi(b.type)
    sums = [builder.phi(zeros.type) for _ in tile]
    line = builder.add(ahead, builder.mul(p, pace))
    _prefetch(builder, line)
    _prefetch(builder, builder.add(line, _intp(64)))
    b_vectors = [_load(builder, builder.gep(b_p, [_intp(j * lanes)]), lanes) for j in range(width)]
    updated = []
    for i, row in enumerate(a_rows):  # one broadcast alive at a time: more would not fit
        scalar = _splat(builder, builder.load(builder.gep(row, [p])), lanes)
        updated += [_fma(builder, scalar, b_vectors[j], sums[i * width + j]) for j in range(width)]
    p_next = builder.add(p, _intp(1))
    recurrences = [(p, _intp(0), p_next), (b_p, b, builder.gep(b_p, [b_row]))]
    recurrences += zip(sums, [zeros] * len(sums), updated, strict=True)
    for phi, first, following in recurrences:
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", p_next, depth), loop, end)

    builder.position_at_end(end)
    from_scalars = builder.icmp_signed("==", start_row, _intp(0))
    with builder.if_else(from_scalars) as (scalar_case, vector_case):
        with scalar_case:
            for (i, j), total in zip(tile, updated, strict=True):
                first = _splat(builder, builder.load(builder.gep(start, [_intp(i)])), lanes)
                _store(builder, builder.fadd(first, total), _at(builder, c, c_row, i, j * lanes))
        with vector_case:
            for (i, j), total in zip(tile, updated, strict=True):
                first = _load(builder, _at(builder, start, start_row, i, j * lanes), lanes)
                _store(builder, builder.fadd(first, total), _at(builder, c, c_row, i, j * lanes))


def _at(builder, p, row, i, offset):
    return builder.gep(p, [builder.add(builder.mul(row, _intp(i)), _intp(offset))])
