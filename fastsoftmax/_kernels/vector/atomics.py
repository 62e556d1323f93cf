"""Integers that threads share, and how a thread waits for another one."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import codegen


@intrinsic
def fetch_add(typingctx, p, n):
    """Add ``n`` to the integer at ``p`` atomically; return what it was."""

    def add(builder, p, n):
        return builder.atomic_rmw("add", p, n, "seq_cst")

    return types.intp(p, types.intp), codegen(add)


@intrinsic
def load_shared(typingctx, p):
    """Return the integer at ``p`` as other threads have left it."""

    def load(builder, p):
        return builder.load_atomic(p, "seq_cst", 8)

    return types.intp(p), codegen(load)


@intrinsic
def replace(typingctx, p, old, new):
    """Set the integer at ``p`` to ``new`` if it is ``old``, atomically; return whether it was."""

    def exchange(builder, p, old, new):
        return builder.extract_value(builder.cmpxchg(p, old, new, "seq_cst", "seq_cst"), 1)

    return types.boolean(p, types.intp, types.intp), codegen(exchange)


@intrinsic
def pause(typingctx):
    """Tell the core that this thread is in a loop that waits."""

    def wait(builder):
        if emit.IS_ARM:
            emit.call(builder, "llvm.aarch64.hint", ir.VoidType(), emit.I32(1))  # yield
        else:
            emit.call(builder, "llvm.x86.sse2.pause", ir.VoidType())

    return types.void(), codegen(wait)
