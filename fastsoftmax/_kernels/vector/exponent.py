"""What exp and log need of LLVM: polynomials, a table, and a float's exponent taken apart."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES, codegen


@intrinsic
def horner(typingctx, x, coefficients):
    """The polynomial with these coefficients (a constant tuple, highest power first) at ``x``."""

    def evaluate(builder, argument, constants):
        terms = [
            emit.splat(builder, emit.convert(builder, c, types.float64, x.dtype), x.lanes)
            for c in constants
        ]
        total = terms[0]
        for term in terms[1:]:
            total = emit.fma(builder, total, argument, term)
        return total

    return x(x, coefficients), codegen(evaluate)


@intrinsic
def look_up(typingctx, table, shifted):
    """Entries of a constant table, one for each lane, by the lowest bits of ``shifted``.

    The table has as many entries as a vector has lanes, so that one permutation of AVX-512 does it.
    """

    def permute(builder, entries, bits):
        values = ir.Constant(bits.type, ir.Undefined)
        for i, entry in enumerate(entries):
            narrow = emit.convert(builder, entry, types.float64, shifted.dtype)
            values = builder.insert_element(values, narrow, emit.I32(i))
        return emit.permute(builder, values, bits)

    return shifted(table, shifted), codegen(permute)


@intrinsic
def times_power_of_two(typingctx, x, shifted, n):
    """x·2ⁿ for n in [-1100, 0] and x in [½, 2), rounded once even where it is subnormal.

    ``shifted`` is n plus the magic number 1.5·2^(mantissa bits): n lies in its low bits.
    """
    return x(x, x, x), codegen(_scalef if VECTOR_BYTES == 64 else _lower_exponent)


def _scalef(builder, x, shifted, n):
    """AVX-512 has an instruction for this, which saves a third of exp's instructions."""
    suffix = "ps" if emit.bit_width(x.type.element) == 32 else "pd"
    name = f"llvm.x86.avx512.mask.scalef.{suffix}.512"
    every_lane = ir.IntType(x.type.count)(-1)
    current_rounding = emit.I32(4)
    return emit.call(builder, name, x.type, x, n, x, every_lane, current_rounding)


def _lower_exponent(builder, x, shifted, n):
    """Lower the exponent by ⌊n/2⌋ by integer addition (the result is still a normal number), and by
    the rest with a multiplication, which rounds at most once.
    """
    integer, mantissa, bias = _format(x.type)
    magic = builder.bitcast(x.type(1.5 * 2.0**mantissa), integer)
    n = builder.sub(builder.bitcast(shifted, integer), magic)
    half = builder.ashr(n, integer(1))
    rest = builder.add(builder.sub(n, half), integer(bias))
    shift = integer(mantissa)
    scaled = builder.add(builder.bitcast(x, integer), builder.shl(half, shift))
    factor = builder.bitcast(builder.shl(rest, shift), x.type)
    return builder.fmul(builder.bitcast(scaled, x.type), factor)


def _format(floats: ir.VectorType) -> tuple[ir.VectorType, int, int]:
    """(type of the bits of a vector, bits of the mantissa, bias of the exponent)."""
    mantissa, bias = (23, 127) if emit.bit_width(floats.element) == 32 else (52, 1023)
    return emit.integers(floats), mantissa, bias


@intrinsic
def split_exponent(typingctx, x):
    """(m, e) with x = m·2ᵉ, m in [√½, √2), e a float; x positive and normal."""
    return types.UniTuple(x, 2)(x), codegen(_split_exponent)


def _split_exponent(builder, x):
    """Emit m and e as floats with x = m·2ᵉ and m from √½ to √2."""
    integer, mantissa, _ = _format(x.type)
    # Subtracting the bits of √½ first makes the exponent field count from √½ instead of 1.
    root_half = integer(0x3F3504F3 if mantissa == 23 else 0x3FE6A09E667F3BCD)
    offset = builder.sub(builder.bitcast(x, integer), root_half)
    exponent = builder.ashr(offset, integer(mantissa))
    fraction = builder.and_(offset, integer((1 << mantissa) - 1))
    m = builder.bitcast(builder.add(fraction, root_half), x.type)
    # Before AVX-512 no instruction converts int64 to float64, and LLVM would go lane by lane: the
    # magic number does it for both dtypes.
    magic = x.type(1.5 * 2.0**mantissa)
    e = builder.bitcast(builder.add(exponent, builder.bitcast(magic, integer)), x.type)
    return [m, builder.fsub(e, magic)]
