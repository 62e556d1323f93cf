"""What exp and log need of LLVM: polynomials, and a float's exponent taken apart."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES


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
def look_up(typingctx, table, shifted):
    """Entries of a constant table, one a lane, by the lowest bits of ``shifted``: one permutation.

    The table has as many entries as a vector lanes. AVX-512 only.
    """
    sig = shifted(table, shifted)

    def codegen(context, builder, signature, args):
        vector = args[1].type
        entries = [
            context.cast(builder, entry, types.float64, shifted.dtype)
            for entry in cgutils.unpack_tuple(builder, args[0])
        ]
        values = ir.Constant(vector, ir.Undefined)
        for i, entry in enumerate(entries):
            values = builder.insert_element(values, entry, ir.Constant(ir.IntType(32), i))
        return emit.permute(builder, values, args[1])

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
