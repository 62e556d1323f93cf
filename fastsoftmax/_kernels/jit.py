"""How kernels are compiled: one set of options, and one rule for the disk cache."""

from __future__ import annotations

import functools
import gc
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from fastsoftmax._kernels.cache import KernelCacheFiles

# nogil: other Python threads go on. error_model: no branch at every division.
OPTIONS = {"nogil": True, "error_model": "numpy"}


def kernel(function=None, *, parallel=False):
    """Decorate a kernel: ``njit`` cached on disk, or uncached where no directory is writable."""
    if function is None:
        return functools.partial(kernel, parallel=parallel)
    if numba.config.DISABLE_JIT:
        return function
    try:
        dispatcher = numba.njit(cache=True, parallel=parallel, **OPTIONS)(function)
    except RuntimeError:  # Numba: "no locator available"
        return numba.njit(parallel=parallel, **OPTIONS)(function)
    cache = dispatcher._cache
    cache._cache_file = KernelCacheFiles(
        cache._cache_path, cache._impl.filename_base, f"{numba.__version__} {np.__version__}"
    )
    return dispatcher


class _HelperLibrary(JITCodeLibrary):
    """A helper's code as it was lowered, to be linked into the kernels that call the helper.

    Numba would optimise each helper, with all that it calls, and translate it to machine code that
    nobody calls, and again in every caller: that was 60 % of the time that compiling took.
    """

    def add_llvm_module(self, module):
        module.data_layout = self._final_module.data_layout
        self._final_module.link_in(module)

    def finalize(self):
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name):
        """Numba asks for the wrapper that Python would call: there is none."""
        return 0

    @property
    def codegen(self):
        """Numba sets the environment of a function here, which only Python objects need."""
        return _NoEnvironment


class _NoEnvironment:
    @staticmethod
    def set_env(name, environment):
        """Do nothing."""


class _HelperCompiler(Compiler):
    def define_pipelines(self):
        name = self.state.func_id.func_qualname
        self.state.library = _HelperLibrary(self.state.targetctx.codegen(), name)
        self.state.library.enable_object_caching()
        return super().define_pipelines()


# What a helper's decorator is given, and that of a function which is a helper in kernels.
HELPER_OPTIONS = OPTIONS | {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _HelperCompiler,
}


def helper(function=None, **options):
    """Decorate a function that kernels and other helpers call; from Python it cannot be called."""
    if function is None:
        return functools.partial(helper, **options)
    if numba.config.DISABLE_JIT:
        return function
    dispatcher = numba.njit(**HELPER_OPTIONS, **options)(function)
    find_template = dispatcher.get_call_template

    def find_template_without_literals(args, kws):
        return find_template(tuple(map(types.unliteral, args)), kws)

    # Numba would compile a helper again for each constant that a caller hands to it.
    dispatcher.get_call_template = find_template_without_literals
    return dispatcher


# LLVM must inline these, whatever it thinks of their size: left to it, rows of 160 logits took a
# fifth longer.
inlined = helper(forceinline=True)

_entry_points: dict[tuple[Any, ...], Any] = {}


def entry_point(dispatcher: Any, arguments: tuple[Any, ...]) -> Any:
    """Compiled function for arguments like these, to be called with them from Python.

    To call the dispatcher would look up the Numba type of each argument, which takes 84 us for an
    evaluation. Arguments are arrays, scalars, and tuples of arguments. From call to call only the
    values of scalars and the shapes and places of arrays may change without another compilation.
    """
    key = dispatcher, *map(_type_key, arguments)
    if key not in _entry_points:
        _entry_points[key] = _compiled(dispatcher, arguments).entry_point
    return _entry_points[key]


def native_address(dispatcher: Any, arguments: tuple[Any, ...]) -> Any:
    """Address of a kernel's machine code for arguments like these, to be called from a kernel."""
    compiled = _compiled(dispatcher, arguments)
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _compiled(dispatcher: Any, arguments: tuple[Any, ...]) -> Any:
    """What Numba has compiled, or loaded from its cache, for arguments like these."""
    signature = tuple(dispatcher.typeof_pyval(argument) for argument in arguments)
    collects = gc.isenabled()
    gc.disable()  # it would look through what Numba makes again and again: a seventh of the time
    try:
        dispatcher.compile(signature)
    finally:
        if collects:
            gc.enable()
    return dispatcher.overloads[signature]


def _type_key(argument: Any) -> Any:
    """What decides the Numba type of an argument."""
    if isinstance(argument, tuple):
        return type(argument), *map(_type_key, argument)
    return getattr(argument, "dtype", type(argument)), getattr(argument, "ndim", 0)
