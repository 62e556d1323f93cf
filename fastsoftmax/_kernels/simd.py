"""Vectors for Numba: a `Vector` is an LLVM ``<L x float>`` held in a Numba type.

Arithmetic on it is one instruction per operator. Data is addressed through Numba's ``CPointer``: an
array in the argument list of an inlined helper would cost reference counts in the hot loop.

No fast-math flag appears anywhere: -inf logits are legal, so ``nnan`` and ``ninf`` are lies, and
``reassoc`` would undo the magic-number rounding of exp.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from fastsoftmax._kernels import emit
from fastsoftmax._kernels.emit import VECTOR_BYTES

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
        super().__init__(dmm, fe_type, ir.VectorType(emit.ir_scalar(fe_type.dtype), fe_type.lanes))


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
def as_int64_pointer(typingctx, address):
    """Pointer to int64 values from an integer address."""
    sig = types.CPointer(types.int64)(types.intp)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return sig, codegen


@intrinsic
def as_float64_pointer(typingctx, address):
    """Pointer to float64 values from an integer address."""
    sig = types.CPointer(types.float64)(types.intp)

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
    return types.intp(p), lambda context, builder, signature, args: emit.intp(lanes)


@intrinsic
def fetch_add(typingctx, p, n):
    """Add ``n`` to the integer at ``p`` atomically; return what it was."""
    sig = types.intp(p, types.intp)

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return sig, codegen


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
        return emit.load(builder, args[0], lanes_of(p.dtype))

    return sig, codegen


@intrinsic
def load_double(typingctx, p):
    """As many values at ``p`` as a float64 vector has lanes, converted to float64."""
    sig = Vector(types.float64, LANES_64)(p)

    def codegen(context, builder, signature, args):
        v = emit.load(builder, args[0], LANES_64)
        wide = ir.VectorType(ir.DoubleType(), LANES_64)
        return v if v.type == wide else builder.fpext(v, wide)

    return sig, codegen


@intrinsic
def load_first(typingctx, p, n, fill):
    """The first ``n`` values at ``p``, and the lanes of ``fill`` behind them; reads no further."""
    sig = fill(p, types.intp, fill)

    def codegen(context, builder, signature, args):
        mask = emit.first_lanes(builder, args[1], fill.lanes)
        return emit.masked_load(builder, args[0], mask, args[2])

    return sig, codegen


@intrinsic
def store_first(typingctx, p, n, v):
    """Write the first ``n`` lanes at ``p``."""
    sig = types.void(p, types.intp, v)

    def codegen(context, builder, signature, args):
        mask = emit.first_lanes(builder, args[1], v.lanes)
        emit.masked_store(builder, args[2], args[0], mask)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def stream(typingctx, p, v):
    """Write a vector past the caches; ``p`` must be a multiple of VECTOR_BYTES."""
    sig = types.void(p, v)

    def codegen(context, builder, signature, args):
        target = builder.bitcast(args[0], args[1].type.as_pointer())
        written = builder.store(args[1], target, align=VECTOR_BYTES)
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        written.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def fence(typingctx):
    """Order streamed writes before whatever this thread tells others."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def prefetch(typingctx, p):
    """Ask for the cache line at ``p``; harmless on any address."""
    sig = types.void(p)

    def codegen(context, builder, signature, args):
        emit.prefetch(builder, builder.ptrtoint(args[0], ir.IntType(64)))
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def misalignment(typingctx, p):
    """Elements from ``p`` to the next multiple of VECTOR_BYTES."""
    sig = types.intp(p)

    def codegen(context, builder, signature, args):
        address = builder.ptrtoint(args[0], ir.IntType(64))
        missing = builder.and_(builder.neg(address), emit.intp(VECTOR_BYTES - 1))
        return builder.udiv(missing, emit.intp(p.dtype.bitwidth // 8))

    return sig, codegen


@intrinsic
def store(typingctx, p, v):
    """Write a vector at ``p``."""
    sig = types.void(p, v)

    def codegen(context, builder, signature, args):
        emit.store(builder, args[1], args[0])
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def store_narrow(typingctx, p, v):
    """Write a float64 vector at ``p`` in the dtype there."""
    sig = types.void(p, v)

    def codegen(context, builder, signature, args):
        narrow = ir.VectorType(args[0].type.pointee, v.lanes)
        value = args[1] if narrow == args[1].type else builder.fptrunc(args[1], narrow)
        emit.store(builder, value, args[0])
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def splat(typingctx, scalar, like):
    """A vector of ``like``'s type with ``scalar`` in every lane."""
    sig = like(scalar, like)

    def codegen(context, builder, signature, args):
        value = context.cast(builder, args[0], scalar, like.dtype)
        return emit.splat(builder, value, like.lanes)

    return sig, codegen


@intrinsic
def splat_double(typingctx, scalar):
    """A float64 vector with ``scalar`` in every lane."""
    sig = Vector(types.float64, LANES_64)(types.float64)

    def codegen(context, builder, signature, args):
        return emit.splat(builder, args[0], LANES_64)

    return sig, codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a·b + c; one rounding where the target has FMA."""
    sig = a(a, a, a)

    def codegen(context, builder, signature, args):
        return emit.fma(builder, *args)

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
            emit.splat(builder, context.cast(builder, c, types.float64, x.dtype), vector.count)
            for c in cgutils.unpack_tuple(builder, args[1])
        ]
        total = terms[0]
        for term in terms[1:]:
            total = emit.fma(builder, total, args[0], term)
        return total

    return sig, codegen


@intrinsic
def times_power_of_two(typingctx, x, shifted, n):
    """x·2ⁿ for n in [-1100, 0] and x in [½, 2), rounded once even where it is subnormal.

    ``shifted`` is n plus the magic number 1.5·2^(mantissa bits): n lies in its low bits.
    """
    sig = x(x, x, x)

    def codegen(context, builder, signature, args):
        if VECTOR_BYTES == 64:
            return _scalef(builder, args[0], args[2])
        return _lower_exponent(builder, args[0], args[1])

    return sig, codegen


def _scalef(builder: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """AVX-512's own instruction for it: a third of exp's instructions less."""
    suffix = "ps" if isinstance(x.type.element, ir.FloatType) else "pd"
    mask, i32 = ir.IntType(x.type.count), ir.IntType(32)
    fnty = ir.FunctionType(x.type, [x.type, x.type, x.type, mask, i32])
    name = f"llvm.x86.avx512.mask.scalef.{suffix}.512"
    fn = cgutils.get_or_insert_function(builder.module, fnty, name)
    current_rounding = ir.Constant(i32, 4)
    return builder.call(fn, [x, n, x, ir.Constant(mask, -1), current_rounding])


def _lower_exponent(builder: ir.IRBuilder, x: ir.Value, shifted: ir.Value) -> ir.Value:
    """Lower the exponent by ⌊n/2⌋ by integer addition (the result is still a normal number), and by
    the rest with a multiplication, which rounds at most once.
    """
    bits, mantissa, bias = (32, 23, 127) if emit.kind(x.type.element) == "f32" else (64, 52, 1023)
    integer = ir.VectorType(ir.IntType(bits), x.type.count)
    magic = builder.bitcast(emit.constant(x.type, 1.5 * 2.0**mantissa), integer)
    n = builder.sub(builder.bitcast(shifted, integer), magic)
    half = builder.ashr(n, emit.constant(integer, 1))
    rest = builder.add(builder.sub(n, half), emit.constant(integer, bias))
    shift = emit.constant(integer, mantissa)
    scaled = builder.add(builder.bitcast(x, integer), builder.shl(half, shift))
    factor = builder.bitcast(builder.shl(rest, shift), x.type)
    return builder.fmul(builder.bitcast(scaled, x.type), factor)


@intrinsic
def split_exponent(typingctx, x):
    """(m, e) with x = m·2ᵉ, m in [√½, √2), e a float; x positive and normal."""
    sig = types.UniTuple(x, 2)(x)

    def codegen(context, builder, signature, args):
        bits, mantissa, bias = (32, 23, 127) if x.dtype.bitwidth == 32 else (64, 52, 1023)
        integer = ir.VectorType(ir.IntType(bits), x.lanes)
        # Subtracting √½'s bits first makes the exponent field count from √½ instead of 1.
        root_half = 0x3F3504F3 if bits == 32 else 0x3FE6A09E667F3BCD
        offset = builder.sub(builder.bitcast(args[0], integer), emit.constant(integer, root_half))
        exponent = builder.ashr(offset, emit.constant(integer, mantissa))
        fraction = builder.and_(offset, emit.constant(integer, (1 << mantissa) - 1))
        m = builder.bitcast(builder.add(fraction, emit.constant(integer, root_half)), args[0].type)
        # int64 -> float64 is one lane at a time before AVX-512: convert by the magic number.
        magic = 1.5 * 2.0**mantissa
        magic_bits = builder.bitcast(emit.constant(args[0].type, magic), integer)
        e = builder.bitcast(builder.add(exponent, magic_bits), args[0].type)
        e = builder.fsub(e, emit.constant(args[0].type, magic))
        return context.make_tuple(builder, signature.return_type, [m, e])

    return sig, codegen


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
        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        return _by_halves(builder, args[0], larger)

    return sig, codegen
