"""How kernels are compiled: one set of options, and one rule for the disk cache."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.cache import KernelCacheFiles

# nogil: other Python threads go on. error_model: no branch at every division.
OPTIONS = {"nogil": True, "error_model": "numpy"}


def kernel(function=None, *, parallel=False):
    """Decorate a kernel: ``njit`` cached on disk, or uncached where no directory is writable."""
    if function is None:
        return functools.partial(kernel, parallel=parallel)
    try:
        dispatcher = numba.njit(cache=True, parallel=parallel, **OPTIONS)(function)
    except RuntimeError:  # Numba: "no locator available"
        return numba.njit(parallel=parallel, **OPTIONS)(function)
    cache = dispatcher._cache
    cache._cache_file = KernelCacheFiles(
        cache._cache_path, cache._impl.filename_base, f"{numba.__version__} {np.__version__}"
    )
    return dispatcher


# Helpers are inlined by LLVM into the kernels that call them. They need no cache of their own, nor
# be callable from Python: without the wrappers for that, compiling takes a tenth less.
helper = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
# These are inlined by Numba before anything is compiled, which saves a level of functions that are
# compiled again for each caller, see `pack_call`.
inlined = numba.njit(inline="always", **OPTIONS)

_addresses: dict[tuple[Any, ...], int] = {}


def native_address(dispatcher, arguments):
    """Address of a kernel's machine code for arguments like these, compiled or loaded if need be.

    Arguments are arrays, scalars, and tuples of arguments. From call to call only the values of
    scalars and the shapes and places of arrays may change without another compilation.
    """
    key = dispatcher, _type_key(arguments)
    if key not in _addresses:
        signature = tuple(dispatcher.typeof_pyval(argument) for argument in arguments)
        dispatcher.compile(signature)
        compiled = dispatcher.overloads[signature]
        symbol = compiled.fndesc.llvm_func_name
        _addresses[key] = compiled.library.get_pointer_to_function(symbol)
    return _addresses[key]


def _type_key(argument: Any) -> Any:
    """What decides the Numba type of an argument; to ask Numba took 84 us an evaluation."""
    if isinstance(argument, tuple):
        return type(argument), *map(_type_key, argument)
    return getattr(argument, "dtype", type(argument)), getattr(argument, "ndim", 0)


@intrinsic
def pack_call(typingctx, address, arguments):
    """Pack a call of the kernel at a `native_address`; any thread can make it by `make_call`.

    Returns two addresses: of a function that takes a pointer, and of the packed data that it takes.
    The data, which are the kernel's address and arguments, lie in the stack frame of the function
    that packs: the call can be made until that returns. No status is looked at, as kernels never
    raise.

    A plain call in the parallel loop would be simpler. But Numba optimises and translates a
    function again for each that calls it, directly or through others, and a parallel loop has four
    levels of them: with a plain call the first evaluation compiled for 17 s.
    """
    byte_pointer, intp = ir.IntType(8).as_pointer(), ir.IntType(64)

    def codegen(context, builder, signature, args):
        data = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, args))
        unpacker_type = ir.FunctionType(ir.VoidType(), [byte_pointer])
        name = builder.module.get_unique_name("fastsoftmax.unpack_and_call")
        unpacker = ir.Function(builder.module, unpacker_type, name)
        unpacker.linkage = "internal"
        inside = ir.IRBuilder(unpacker.append_basic_block())
        unpacked = inside.load(inside.bitcast(unpacker.args[0], data.type))
        kernel_address, values = (inside.extract_value(unpacked, i) for i in range(2))
        values = cgutils.unpack_tuple(inside, values)
        kernel_type = context.call_conv.get_function_type(types.none, arguments.types)
        kernel = inside.inttoptr(kernel_address, kernel_type.as_pointer())
        context.call_conv.call_function(inside, kernel, types.none, arguments.types, values)
        inside.ret_void()
        addresses = [builder.ptrtoint(value, intp) for value in (unpacker, data)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return types.UniTuple(types.intp, 2)(types.intp, arguments), codegen


@intrinsic
def make_call(typingctx, unpacker, data):
    """Make a call, given the two addresses that `pack_call` has returned."""
    byte_pointer = ir.IntType(8).as_pointer()

    def codegen(context, builder, signature, args):
        unpacker_type = ir.FunctionType(ir.VoidType(), [byte_pointer])
        function = builder.inttoptr(args[0], unpacker_type.as_pointer())
        builder.call(function, [builder.inttoptr(args[1], byte_pointer)])
        return context.get_dummy_value()

    return types.none(types.intp, types.intp), codegen
