"""How kernels are compiled: one set of options, one rule for the disk cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic

# nogil: other Python threads go on. error_model: no branch on every division.
OPTIONS = {"nogil": True, "error_model": "numpy"}


@functools.cache
def source_stamp(root: Path = Path(__file__).parent) -> str:
    """Hash of every kernel source below ``root``, which stamps the entries of the disk cache.

    Numba looks at a kernel's own file only, so an edit of ``vector/simd.py`` would leave the cached
    machine code of ``linear/dense.py`` in place.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


class _KernelCacheFile(IndexDataCacheFile):
    """Numba's cache files of a kernel; an index that cannot be read counts as empty.

    An index of an older release may name classes that are gone.
    """

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except Exception:
            return {}


def kernel(function=None, *, parallel=False):
    """Decorate a kernel: ``njit`` cached on disk, or uncached where no directory is writable."""
    if function is None:
        return functools.partial(kernel, parallel=parallel)
    try:
        dispatcher = numba.njit(cache=True, parallel=parallel, **OPTIONS)(function)
    except RuntimeError:  # Numba: "no locator available"
        return numba.njit(parallel=parallel, **OPTIONS)(function)
    cache = dispatcher._cache
    cache._cache_file = _KernelCacheFile(
        cache_path=cache._cache_path,
        filename_base=cache._impl.filename_base,
        source_stamp=source_stamp(),
    )
    return dispatcher


_addresses: dict[tuple[Any, ...], int] = {}


def native_address(kernel, arguments):
    """Address of a kernel's machine code for such arguments, which is compiled or loaded first.

    Arguments are arrays, scalars, and tuples of arguments; all that may change from call to call
    without another compilation are the values of scalars, and the shapes and places of arrays.
    """
    key = kernel, _kind(arguments)  # Numba's own types would take 84 us an evaluation
    if key not in _addresses:
        signature = tuple(kernel.typeof_pyval(argument) for argument in arguments)
        kernel.compile(signature)
        compiled = kernel.overloads[signature]
        name = compiled.fndesc.llvm_func_name
        _addresses[key] = compiled.library.get_pointer_to_function(name)
    return _addresses[key]


def _kind(argument: Any) -> Any:
    """What decides the Numba type of an argument."""
    if isinstance(argument, tuple):
        return type(argument), *map(_kind, argument)
    return getattr(argument, "dtype", type(argument)), getattr(argument, "ndim", 0)


@intrinsic
def pack_call(typingctx, address, arguments):
    """Make a call of a `native_address` that another thread can make by `make_call`.

    Returns a function's address and the address of its data, which lives as long as the caller's
    stack frame. Numba optimises and translates anew, for every function on the way up, all that it
    calls, and a parallel loop has four of them: with a plain call in the loop the first evaluation
    compiled for 17 s. A kernel never raises, so its status is not looked at.
    """
    sig = types.UniTuple(types.intp, 2)(types.intp, arguments)

    def codegen(context, builder, signature, args):
        pointer_type = ir.IntType(8).as_pointer()
        data = cgutils.make_anonymous_struct(builder, args)
        place = cgutils.alloca_once_value(builder, data)
        name = builder.module.get_unique_name("fastsoftmax.call")
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [pointer_type]), name)
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block())
        loaded = inner.load(inner.bitcast(function.args[0], place.type))
        target, values = inner.extract_value(loaded, 0), inner.extract_value(loaded, 1)
        callee_type = context.call_conv.get_function_type(types.none, arguments.types)
        callee = inner.inttoptr(target, callee_type.as_pointer())
        values = cgutils.unpack_tuple(inner, values)
        context.call_conv.call_function(inner, callee, types.none, arguments.types, values)
        inner.ret_void()
        ends = [builder.ptrtoint(value, ir.IntType(64)) for value in (function, place)]
        return context.make_tuple(builder, signature.return_type, ends)

    return sig, codegen


@intrinsic
def make_call(typingctx, function, data):
    """Make a call that `pack_call` has packed."""

    def codegen(context, builder, signature, args):
        pointer_type = ir.IntType(8).as_pointer()
        callee_type = ir.FunctionType(ir.VoidType(), [pointer_type]).as_pointer()
        callee = builder.inttoptr(args[0], callee_type)
        builder.call(callee, [builder.inttoptr(args[1], pointer_type)])
        return context.get_dummy_value()

    return types.none(types.intp, types.intp), codegen


# Helpers are inlined by LLVM into the kernels that call them; they need no cache of their own, nor
# be callable from Python: without the wrappers for it compiling takes a tenth less.
helper = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
# Inlined by Numba, before anything is compiled: one level less, see `pack_call`.
inlined = numba.njit(inline="always", **OPTIONS)
