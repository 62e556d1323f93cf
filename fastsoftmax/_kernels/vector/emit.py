"""Pieces of LLVM IR, and what the target can do.

Emitted for Numba's own target, so that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are honoured.
"""

from __future__ import annotations

from collections.abc import Iterable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

TRIPLE, CPU_NAME, _feature_string = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(f[1:] for f in _feature_string.split(",") if f.startswith("+"))
_IS_ARM = TRIPLE.startswith(("aarch64", "arm64"))

VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
HAS_FMA = _IS_ARM or bool(FEATURES & {"fma", "avx512f"})
# A tile of HEIGHT x WIDTH accumulators, WIDTH vectors of b and a broadcast must fit the registers:
# 24 + 4 + 1 of 32, or 12 + 2 + 1 of 16.
HEIGHT = 6
WIDTH = 4 if _IS_ARM or "avx512f" in FEATURES else 2


def ir_scalar(dtype: types.Type) -> ir.Type:
    if isinstance(dtype, types.Boolean):
        return ir.IntType(1)
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undef = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undef, scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, undef, mask)


def constant(value_type: ir.Type, value: float) -> ir.Constant:
    if isinstance(value_type, ir.VectorType):
        return ir.Constant(value_type, [value] * value_type.count)
    return ir.Constant(value_type, value)


def fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    if not HAS_FMA:  # llvm.fma would become one libm call a lane
        return builder.fadd(builder.fmul(a, b), c)
    fnty = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}{kind(a.type.element)}"
    return builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), [a, b, c])


def larger(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The larger; ``b`` where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def kind(scalar: ir.Type) -> str:
    """A scalar type's name inside the names of LLVM's intrinsics."""
    if isinstance(scalar, ir.IntType):
        return f"i{scalar.width}"
    return "f32" if isinstance(scalar, ir.FloatType) else "f64"


def load(builder: ir.IRBuilder, p: ir.Value, lanes: int) -> ir.Value:
    vector = ir.VectorType(p.type.pointee, lanes)
    return builder.load(builder.bitcast(p, vector.as_pointer()), align=align(p))


def store(builder: ir.IRBuilder, v: ir.Value, p: ir.Value) -> None:
    builder.store(v, builder.bitcast(p, v.type.as_pointer()), align=align(p))


def align(p: ir.Value) -> int:
    return int(kind(p.type.pointee)[1:]) // 8


def intp(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


def prefetch(builder: ir.IRBuilder, address: ir.Value, locality: int = 2) -> None:
    """Ask for a cache line, into L2 or, with a ``locality`` of 3, L1; harmless on any address."""
    i8p, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    fnty = ir.FunctionType(ir.VoidType(), [i8p, i32, i32, i32])
    fn = cgutils.get_or_insert_function(builder.module, fnty, "llvm.prefetch.p0")
    options = [ir.Constant(i32, value) for value in (0, locality, 1)]  # read; data
    builder.call(fn, [builder.inttoptr(address, i8p), *options])


def indices(values: Iterable[int]) -> ir.Constant:
    values = list(values)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), values)


def permute(builder: ir.IRBuilder, v: ir.Value, index: ir.Value) -> ir.Value:
    """v[index[i]] in every lane i; only as many low bits of an index count as v has lanes."""
    lanes, bits = v.type.count, int(kind(v.type.element)[1:])
    index = builder.bitcast(index, ir.VectorType(ir.IntType(bits), lanes))
    if VECTOR_BYTES == 64 or (lanes == 8 and "avx2" in FEATURES):
        wide = "avx512.permvar.%s.512" % ("sf" if bits == 32 else "df")
        fnty = ir.FunctionType(v.type, [v.type, index.type])
        name = "llvm.x86." + (wide if VECTOR_BYTES == 64 else "avx2.permps")
        return builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), [v, index])
    index = builder.and_(index, constant(index.type, lanes - 1))
    result = ir.Constant(v.type, ir.Undefined)
    for i in range(lanes):  # LLVM takes this through memory: SSE2, float64 on AVX2, ARM
        place = ir.Constant(ir.IntType(32), i)
        value = builder.extract_element(v, builder.extract_element(index, place))
        result = builder.insert_element(result, value, place)
    return result


def convert(builder: ir.IRBuilder, v: ir.Value, source: types.Type, target: types.Type) -> ir.Value:
    result = ir.VectorType(ir_scalar(target), v.type.count)
    if isinstance(source, types.Integer):
        return (builder.sitofp if source.signed else builder.uitofp)(v, result)
    return v if v.type == result else builder.fpext(v, result)


def first_lanes(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """Mask of the first ``count`` lanes."""
    all_lanes = intp(lanes)
    count = builder.select(builder.icmp_signed("<", count, all_lanes), count, all_lanes)
    lane = indices(range(lanes))  # 32 bits: half the registers of 64
    narrow = builder.trunc(count, ir.IntType(32))
    return builder.icmp_signed("<", lane, splat(builder, narrow, lanes))


def masked_load(
    builder: ir.IRBuilder, p: ir.Value, mask: ir.Value, fill: ir.Value | None = None
) -> ir.Value:
    vector = ir.VectorType(p.type.pointee, mask.type.count)
    i32 = ir.IntType(32)
    fnty = ir.FunctionType(vector, [vector.as_pointer(), i32, mask.type, vector])
    name = f"llvm.masked.load.v{vector.count}{kind(vector.element)}.p0"
    fn = cgutils.get_or_insert_function(builder.module, fnty, name)
    address = builder.bitcast(p, vector.as_pointer())
    zeros = ir.Constant(vector, [0] * vector.count) if fill is None else fill
    return builder.call(fn, [address, ir.Constant(i32, align(p)), mask, zeros])


def masked_store(builder: ir.IRBuilder, v: ir.Value, p: ir.Value, mask: ir.Value) -> None:
    i32 = ir.IntType(32)
    fnty = ir.FunctionType(ir.VoidType(), [v.type, v.type.as_pointer(), i32, mask.type])
    name = f"llvm.masked.store.v{v.type.count}{kind(v.type.element)}.p0"
    fn = cgutils.get_or_insert_function(builder.module, fnty, name)
    address = builder.bitcast(p, v.type.as_pointer())
    builder.call(fn, [v, address, ir.Constant(i32, align(p)), mask])
