"""How kernels are compiled: one set of options, one rule for the disk cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import cgutils
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic

# nogil: other Python threads go on. error_model: no branch on every division.
OPTIONS = {"nogil": True, "error_model": "numpy"}


@functools.cache
def source_stamp() -> str:
    """Hash of every kernel source, the stamp of the disk cache.

    Numba looks at a kernel's own file only; an edit in simd.py would leave dense.py's cached
    machine code in place.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kernel(function=None, *, parallel=False):
    """Decorate a kernel: ``njit`` cached on disk, or uncached where no directory is writable."""
    if function is None:
        return functools.partial(kernel, parallel=parallel)
    try:
        dispatcher = numba.njit(cache=True, parallel=parallel, **OPTIONS)(function)
    except RuntimeError:  # Numba: "no locator available"
        return numba.njit(parallel=parallel, **OPTIONS)(function)
    cache = dispatcher._cache
    cache._cache_file = IndexDataCacheFile(
        cache_path=cache._cache_path,
        filename_base=cache._impl.filename_base,
        source_stamp=source_stamp(),
    )
    return dispatcher


_addresses: dict[tuple[Any, ...], int] = {}


def native_address(kernel, arguments):
    """Address of a kernel's machine code for such arguments, which is compiled or loaded first.

    Arguments are arrays, scalars and tuples of them; from call to call arrays differ in dtype only.
    """
    # Numba's own types of them would take 84 us an evaluation.
    kinds = [kernel]
    for argument in arguments:
        values = argument if isinstance(argument, tuple) else (argument,)
        kinds += [type(argument), *(getattr(value, "dtype", type(value)) for value in values)]
    key = tuple(kinds)
    if key not in _addresses:
        signature = tuple(kernel.typeof_pyval(argument) for argument in arguments)
        kernel.compile(signature)
        compiled = kernel.overloads[signature]
        name = compiled.fndesc.llvm_func_name
        _addresses[key] = compiled.library.get_pointer_to_function(name)
    return _addresses[key]


@intrinsic
def call_native(typingctx, address, arguments):
    """Call what is at a `native_address` with a tuple of arguments of the very same types.

    Numba optimises and translates anew, for every function on the way up, all that it calls, and a
    parallel loop has four of them: with a plain call the first evaluation compiled for 17 s. A
    kernel never raises, so its status is not looked at.
    """
    sig = types.none(types.intp, arguments)

    def codegen(context, builder, signature, args):
        function = context.call_conv.get_function_type(types.none, arguments.types)
        callee = builder.inttoptr(args[0], function.as_pointer())
        values = cgutils.unpack_tuple(builder, args[1])
        context.call_conv.call_function(builder, callee, types.none, arguments.types, values)
        return context.get_dummy_value()

    return sig, codegen


# Helpers are inlined by LLVM into the kernels that call them; they need no cache of their own, nor
# be callable from Python: without the wrappers for it compiling takes a tenth less.
helper = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
# Inlined by Numba, before anything is compiled: one level less, see `call_native`.
inlined = numba.njit(inline="always", **OPTIONS)
