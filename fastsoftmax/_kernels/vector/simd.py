"""Vectors for Numba: a `Vector` is an LLVM ``<L x float>`` held in a Numba type.

Arithmetic on it is one instruction per operator. Data is addressed through Numba's ``CPointer``: an
array in the argument list of an inlined helper would cost reference counts in the hot loop.

No fast-math flag appears anywhere: -inf logits are legal, so ``nnan`` and ``ninf`` would promise
what is not true, and ``reassoc`` would undo the magic-number rounding of exp.

In an intrinsic the names of its arguments stand for their Numba types.
"""

import functools
import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.numpy_support import from_dtype

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES, codegen

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


class Half(types.Type):
    """A float of 16 bits, which Numba has none of: read as an integer, and converted."""

    bitwidth = 16

    def __init__(self, name: str) -> None:
        super().__init__(name=name)


@register_model(Half)
class _HalfModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Half) -> None:
        super().__init__(dmm, fe_type, emit.I16)


# The dtypes that stand for halves in the arguments of a kernel.
FLOAT16, BFLOAT16 = np.dtype([("float16", "u2")]), np.dtype([("bfloat16", "u2")])
HALVES = {from_dtype(FLOAT16): Half("float16"), from_dtype(BFLOAT16): Half("bfloat16")}

# ---------------------------------------------------------------------------------- pointers


@intrinsic
def pointer(typingctx, array):
    """Pointer to an array's first element."""

    def generate(context, builder, signature, args):
        return cgutils.create_struct_proxy(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def as_pointer(typingctx, address, like):
    """Pointer to ``like``'s dtype, or to halves where it stands for them, from an address."""
    dtype = HALVES[like.dtype] if isinstance(like.dtype, types.Record) else like.dtype
    return _cast_to_pointer(types.CPointer(dtype)(types.intp, like))


@intrinsic
def as_int64_pointer(typingctx, address):
    """Pointer to int64 values from an integer address, or from another pointer."""
    return _cast_to_pointer(types.CPointer(types.int64)(address))


@intrinsic
def as_float64_pointer(typingctx, address):
    """Pointer to float64 values from an integer address."""
    return _cast_to_pointer(types.CPointer(types.float64)(types.intp))


def _cast_to_pointer(sig: Any) -> Any:
    """What an intrinsic returns that turns its first argument into the pointer ``sig`` names."""

    def generate(context, builder, signature, args):
        is_pointer = isinstance(signature.args[0], types.CPointer)
        cast = builder.bitcast if is_pointer else builder.inttoptr
        return cast(args[0], context.get_value_type(signature.return_type))

    return sig, generate


@intrinsic
def advance(typingctx, p, n):
    """``p + n``, counted in elements."""
    return p(p, types.intp), codegen(lambda builder, p, n: builder.gep(p, [n]))


@intrinsic
def lane_count(typingctx, p):
    """Lanes of a vector at ``p``, a compile-time constant."""
    lanes = emit.I64(lanes_of(p.dtype))
    return types.intp(p), codegen(lambda builder, p: lanes)


@intrinsic
def misalignment(typingctx, p):
    """Elements from ``p`` to the next multiple of VECTOR_BYTES."""

    def count(builder, start):
        address = builder.ptrtoint(start, emit.I64)
        missing = builder.and_(builder.neg(address), emit.I64(VECTOR_BYTES - 1))
        return builder.udiv(missing, emit.I64(p.dtype.bitwidth // 8))

    return types.intp(p), codegen(count)


# ------------------------------------------------------------------------- vector arithmetic

_OPERATORS = {
    operator.add: ir.IRBuilder.fadd,
    operator.sub: ir.IRBuilder.fsub,
    operator.mul: ir.IRBuilder.fmul,
    operator.truediv: ir.IRBuilder.fdiv,
    # Ordered comparisons: false where either is NaN.
    operator.lt: lambda builder, a, b: builder.fcmp_ordered("<", a, b),
    operator.gt: lambda builder, a, b: builder.fcmp_ordered(">", a, b),
    operator.eq: lambda builder, a, b: builder.fcmp_ordered("==", a, b),
}


def _let_operator_take_vectors(op: Any, compares: bool) -> None:
    """Give a Python operator its instruction on two vectors; comparisons return a mask."""

    @infer_global(op)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                result = Vector(types.boolean, args[0].lanes) if compares else args[0]
                return signature(result, *args)
            return None

    lower_builtin(op, Vector, Vector)(codegen(_OPERATORS[op]))


for _op in _OPERATORS:
    _let_operator_take_vectors(_op, _op in (operator.lt, operator.gt, operator.eq))


@intrinsic
def fma(typingctx, a, b, c):
    """a·b + c; one rounding where the target has FMA."""
    return a(a, a, a), codegen(emit.fma)


@intrinsic
def select(typingctx, mask, a, b):
    """``a`` where the mask is set, else ``b``."""
    return a(mask, a, a), codegen(ir.IRBuilder.select)


@intrinsic
def splat(typingctx, scalar, like):
    """A vector of ``like``'s type with ``scalar`` in every lane."""

    def repeat(builder, value, _):
        return emit.splat(builder, emit.convert(builder, value, scalar, like.dtype), like.lanes)

    return like(scalar, like), codegen(repeat)


@intrinsic
def splat_double(typingctx, scalar):
    """A float64 vector with ``scalar`` in every lane."""
    sig = Vector(types.float64, LANES_64)(types.float64)
    return sig, codegen(lambda builder, value: emit.splat(builder, value, LANES_64))


# -------------------------------------------------------------------------- loads and stores


@intrinsic
def load(typingctx, p):
    """The vector at ``p``; no alignment beyond the element's is needed."""
    lanes = lanes_of(p.dtype)
    return Vector(p.dtype, lanes)(p), codegen(lambda builder, p: emit.load(builder, p, lanes))


@intrinsic
def load_double(typingctx, p):
    """As many values at ``p`` as a float64 vector has lanes, converted to float64."""

    def load_and_convert(builder, start):
        return emit.convert(builder, emit.load(builder, start, LANES_64), p.dtype, types.float64)

    return Vector(types.float64, LANES_64)(p), codegen(load_and_convert)


@intrinsic
def load_first(typingctx, p, n, fill):
    """The first ``n`` values at ``p``, and the lanes of ``fill`` behind them; reads no further."""

    def load_masked(builder, p, n, rest):
        return emit.masked_load(builder, p, emit.first_lanes(builder, n, fill.lanes), rest)

    return fill(p, types.intp, fill), codegen(load_masked)


@intrinsic
def load_labels(typingctx, p, n, like):
    """The first ``n`` int64 numbers at ``p`` as floats, and zeros behind them; reads no further.

    Of numbers that no int32 holds the lowest bits count.
    """

    def load_and_convert(builder, p, n, _):
        fill = ir.VectorType(emit.I64, like.lanes)([0] * like.lanes)
        labels = emit.masked_load(builder, p, emit.first_lanes(builder, n, like.lanes), fill)
        narrow = builder.trunc(labels, ir.VectorType(emit.I32, like.lanes))
        return emit.convert(builder, narrow, types.int32, like.dtype)

    return like(p, types.intp, like), codegen(load_and_convert)


@intrinsic
def store(typingctx, p, v):
    """Write a vector at ``p``."""
    return types.void(p, v), codegen(lambda builder, p, v: emit.store(builder, v, p))


@intrinsic
def store_narrow(typingctx, p, v):
    """Write a float64 vector at ``p`` in the dtype there."""

    def convert_and_store(builder, start, value):
        emit.store(builder, emit.convert(builder, value, v.dtype, p.dtype), start)

    return types.void(p, v), codegen(convert_and_store)


@intrinsic
def store_first(typingctx, p, n, v):
    """Write the first ``n`` lanes at ``p``."""

    def store_masked(builder, p, n, value):
        emit.masked_store(builder, value, p, emit.first_lanes(builder, n, v.lanes))

    return types.void(p, types.intp, v), codegen(store_masked)


@intrinsic
def stream(typingctx, p, v):
    """Write a vector past the caches; ``p`` must be a multiple of VECTOR_BYTES."""

    def store_past_caches(builder, p, v):
        target = builder.bitcast(p, v.type.as_pointer())
        written = builder.store(v, target, align=VECTOR_BYTES)
        written.set_metadata("nontemporal", builder.module.add_metadata([emit.I32(1)]))

    return types.void(p, v), codegen(store_past_caches)


@intrinsic
def fence(typingctx):
    """Order streamed writes before whatever this thread tells others."""
    return types.void(), codegen(lambda builder: builder.fence("seq_cst"))


@intrinsic
def prefetch(typingctx, p):
    """Ask for the cache line at ``p`` in L2; harmless on any address."""
    return types.void(p), codegen(emit.prefetch)


@intrinsic
def prefetch_near(typingctx, p):
    """Ask for the cache line at ``p`` in L1; harmless on any address."""
    return types.void(p), codegen(functools.partial(emit.prefetch, locality=3))
