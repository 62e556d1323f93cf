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

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES

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
    """Pointer to int64 values from an integer address, or from another pointer."""
    sig = types.CPointer(types.int64)(address)

    def codegen(context, builder, signature, args):
        target = context.get_value_type(signature.return_type)
        if isinstance(address, types.CPointer):
            return builder.bitcast(args[0], target)
        return builder.inttoptr(args[0], target)

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
    """Ask for the cache line at ``p`` in L2; harmless on any address."""
    return _prefetch(p, 2)


@intrinsic
def prefetch_near(typingctx, p):
    """Ask for the cache line at ``p`` in L1; harmless on any address."""
    return _prefetch(p, 3)


def _prefetch(p: Any, locality: int) -> tuple[Any, Any]:
    def codegen(context, builder, signature, args):
        emit.prefetch(builder, builder.ptrtoint(args[0], ir.IntType(64)), locality)
        return context.get_dummy_value()

    return types.void(p), codegen


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
