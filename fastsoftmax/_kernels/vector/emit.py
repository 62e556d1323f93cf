"""Fragments of LLVM IR that intrinsics are made of, and what the target CPU can do.

A type of LLVM's that is called with a number, or a list of them, makes a constant of it. Everything
is emitted for Numba's own target, so NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are honoured.
"""

from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

TRIPLE, CPU_NAME, _feature_string = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(f[1:] for f in _feature_string.split(",") if f.startswith("+"))
IS_ARM = TRIPLE.startswith(("aarch64", "arm64"))

VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
HAS_FMA = IS_ARM or bool(FEATURES & {"fma", "avx512f"})
# A register tile of HEIGHT x WIDTH accumulators, WIDTH vectors of b and a broadcast scalar must fit
# the registers: 24 + 4 + 1 of 32, or 12 + 2 + 1 of 16.
HEIGHT = 6
WIDTH = 4 if IS_ARM or "avx512f" in FEATURES else 2
# Vectors that the rows of a tile fill, a multiple of WIDTH. With two on AVX2, as many as registers
# hold, (1M, 20, 3) took a seventh longer, in float64 half as long again, and wide problems a tenth.
# With eight, (60k, 784, 10) took a tenth longer: a tile of its features did not stay in L2.
TILE_VECTORS = 4

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
BYTE_POINTER = ir.IntType(8).as_pointer()
HAS_HALVES = IS_ARM or bool(FEATURES & {"f16c", "avx512f"})


def codegen(emit: Callable[..., Any]) -> Callable[..., ir.Value]:
    """Make the code generator of an intrinsic from ``emit(builder, *arguments)``.

    Tuples among the arguments are unpacked into lists. The intrinsic's value is what ``emit``
    returns: an LLVM value, a list for a tuple, or nothing.
    """

    def generate(context, builder, signature, args):
        unpacked = (
            cgutils.unpack_tuple(builder, arg) if isinstance(arg_type, types.BaseTuple) else arg
            for arg, arg_type in zip(args, signature.args, strict=True)
        )
        result = emit(builder, *unpacked)
        if signature.return_type == types.void:
            return context.get_dummy_value()
        if isinstance(signature.return_type, types.BaseTuple):
            return context.make_tuple(builder, signature.return_type, result)
        return result

    return generate


def ir_scalar(dtype: types.Type) -> ir.Type:
    """LLVM's type of a float, or of a boolean in a mask."""
    if isinstance(dtype, types.Boolean):
        return ir.IntType(1)
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def bit_width(scalar: ir.Type) -> int:
    return int(scalar.intrinsic_name[1:])  # such as f32


def name_of(vector: ir.VectorType) -> str:
    """A vector type's name inside the names of LLVM's intrinsics, such as v16f32."""
    return f"v{vector.count}{vector.element.intrinsic_name}"


def integers(floats: ir.VectorType) -> ir.VectorType:
    """The type of the bits of a vector of floats, as integers."""
    return ir.VectorType(ir.IntType(bit_width(floats.element)), floats.count)


def indices(values: Iterable[int]) -> ir.Constant:
    """A constant vector of 32-bit integers, which lanes are chosen by."""
    values = list(values)
    return ir.VectorType(I32, len(values))(values)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    """Call one of LLVM's intrinsics."""
    fnty = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), args)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undef = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undef, scalar, I32(0))
    return builder.shuffle_vector(one, undef, indices([0] * lanes))


def fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    if not HAS_FMA:  # llvm.fma would become one call of libm for each lane
        return builder.fadd(builder.fmul(a, b), c)
    return call(builder, f"llvm.fma.{name_of(a.type)}", a.type, a, b, c)


def larger(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The larger of two; ``b`` where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def convert(builder: ir.IRBuilder, v: ir.Value, source: types.Type, target: types.Type) -> ir.Value:
    """Convert a number or a vector from one type of Numba's to another, which is a float."""
    result = ir_scalar(target)
    if isinstance(v.type, ir.VectorType):
        result = ir.VectorType(result, v.type.count)
    if isinstance(source, types.Integer):
        return (builder.sitofp if source.signed else builder.uitofp)(v, result)
    if source.name in ("float16", "bfloat16"):
        v, source = widen_halves(builder, v, source.name), types.float32
        if target == source:
            return v
    return (builder.fptrunc if source.bitwidth > target.bitwidth else builder.fpext)(v, result)


def widen_halves(builder: ir.IRBuilder, v: ir.Value, name: str) -> ir.Value:
    """Convert a vector of halves, as integers of 16 bits, to float32."""
    floats = ir.VectorType(ir.FloatType(), v.type.count)
    if name == "float16" and HAS_HALVES:
        return builder.fpext(builder.bitcast(v, ir.VectorType(ir.HalfType(), v.type.count)), floats)
    integers_type = integers(floats)
    bits = builder.zext(v, integers_type)
    if name == "bfloat16":
        return builder.bitcast(builder.shl(bits, integers_type(16)), floats)
    # Without the instruction LLVM would call a function for each lane. Exponents of 5 bits are read
    # as such of 8 bits, which makes numbers 2^-112 times as large, zero and subnormal ones as well.
    magnitude = builder.shl(builder.and_(bits, integers_type(0x7FFF)), integers_type(13))
    value = builder.fmul(builder.bitcast(magnitude, floats), floats(2.0**112))
    endless = builder.icmp_unsigned(">=", magnitude, integers_type(0x7C00 << 13))
    exponent = builder.select(endless, integers_type(0xFF << 23), integers_type(0))
    sign = builder.shl(builder.and_(bits, integers_type(0x8000)), integers_type(16))
    result = builder.or_(builder.bitcast(value, integers_type), builder.or_(exponent, sign))
    return builder.bitcast(result, floats)


def permute(builder: ir.IRBuilder, v: ir.Value, index: ir.Value) -> ir.Value:
    """v[index[i]] in every lane i; of an index only the bits count that v's lanes are numbered by.

    The index is a vector of integers, or of floats whose bits are taken as integers.
    """
    lanes, bits = v.type.count, bit_width(v.type.element)
    index = builder.bitcast(index, integers(v.type))
    if VECTOR_BYTES == 64:
        suffix = "sf" if bits == 32 else "df"
        return call(builder, f"llvm.x86.avx512.permvar.{suffix}.512", v.type, v, index)
    if lanes == 8 and "avx2" in FEATURES:
        return call(builder, "llvm.x86.avx2.permps", v.type, v, index)
    index = builder.and_(index, index.type(lanes - 1))
    result = ir.Constant(v.type, ir.Undefined)
    for i in range(lanes):  # LLVM takes this through memory: SSE2, float64 on AVX2, ARM
        value = builder.extract_element(v, builder.extract_element(index, I32(i)))
        result = builder.insert_element(result, value, I32(i))
    return result


def row(builder: ir.IRBuilder, p: ir.Value, i: ir.Value | int, stride: ir.Value) -> ir.Value:
    """Pointer to row i of those that lie ``stride`` elements apart from ``p`` on."""
    return builder.gep(p, [builder.mul(I64(i) if isinstance(i, int) else i, stride)])


def align(p: ir.Value) -> int:
    return bit_width(p.type.pointee) // 8


def load(builder: ir.IRBuilder, p: ir.Value, lanes: int) -> ir.Value:
    vector = ir.VectorType(p.type.pointee, lanes)
    return builder.load(builder.bitcast(p, vector.as_pointer()), align=align(p))


def store(builder: ir.IRBuilder, v: ir.Value, p: ir.Value) -> None:
    builder.store(v, builder.bitcast(p, v.type.as_pointer()), align=align(p))


def first_lanes(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """Mask of the first ``count`` lanes."""
    count = builder.select(builder.icmp_signed("<", count, I64(lanes)), count, I64(lanes))
    narrow = builder.trunc(count, I32)  # 64 bits a lane would take twice the registers
    return builder.icmp_signed("<", indices(range(lanes)), splat(builder, narrow, lanes))


def masked_load(builder: ir.IRBuilder, p: ir.Value, mask: ir.Value, fill: ir.Value) -> ir.Value:
    """Load the lanes that the mask has; the others are those of ``fill``."""
    address = builder.bitcast(p, fill.type.as_pointer())
    name = f"llvm.masked.load.{name_of(fill.type)}.p0"
    return call(builder, name, fill.type, address, I32(align(p)), mask, fill)


def masked_store(builder: ir.IRBuilder, v: ir.Value, p: ir.Value, mask: ir.Value) -> None:
    address = builder.bitcast(p, v.type.as_pointer())
    name = f"llvm.masked.store.{name_of(v.type)}.p0"
    call(builder, name, ir.VoidType(), v, address, I32(align(p)), mask)


def prefetch(builder: ir.IRBuilder, p: ir.Value, locality: int = 2) -> None:
    """Ask for a cache line, into L2 or, with a ``locality`` of 3, L1; harmless on any address."""
    options = I32(0), I32(locality), I32(1)  # to be read; data, not instructions
    call(builder, "llvm.prefetch.p0", ir.VoidType(), builder.bitcast(p, BYTE_POINTER), *options)


def loop(builder, count, initial, body):
    """Emit a loop of ``count`` steps, at least one; return the values that its last step leaves.

    ``body(i, values)`` emits step i and returns the values for the next; step 0 gets ``initial``.
    """
    before = builder.block
    start, end = builder.append_basic_block("loop"), builder.append_basic_block("loop.end")
    builder.branch(start)
    builder.position_at_end(start)
    i, *values = phis = [builder.phi(value.type) for value in (count, *initial)]
    left = body(i, values)
    following = builder.add(i, I64(1))
    for phi, first, later in zip(phis, (I64(0), *initial), (following, *left), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), start, end)
    builder.position_at_end(end)
    return left


def switch(builder, key, cases):
    """Emit a branch on an integer; ``cases`` are pairs (value, function that emits code)."""
    done = builder.append_basic_block("switch.done")
    branches = builder.switch(key, done)
    for value, emit_case in cases:
        block = builder.append_basic_block("switch.case")
        branches.add_case(I64(value), block)
        builder.position_at_end(block)
        emit_case()
        builder.branch(done)
    builder.position_at_end(done)
