"""How kernels are compiled: one set of options, and one rule for the disk cache."""

import functools
import gc
from typing import Any

import numba
from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.runtime import rtsys

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
    dispatcher.compile = _without_collecting(dispatcher.compile)
    cache = dispatcher._cache
    cache.load_overload = functools.partial(_load, cache._load_overload)
    cache._cache_file = KernelCacheFiles(
        cache._cache_path, cache._impl.filename_base, numba.__version__
    )
    return dispatcher


def _load(load_overload: Any, signature: Any, context: Any) -> Any:
    """Load a kernel from the disk cache, without what Numba needs to compile.

    Numba would import all of that before, SciPy's linear algebra as well, which is half of the time
    that a first call takes.
    """
    rtsys.initialize(context)
    return load_overload(signature, context)


def _without_collecting(compile: Any) -> Any:
    """Keep the garbage collector from looking through what Numba makes: a seventh of the time."""

    @functools.wraps(compile)
    def compile_without_collecting(signature: Any) -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            return compile(signature)
        finally:
            if collects:
                gc.enable()

    return compile_without_collecting


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


def native_address(dispatcher: Any, arguments: tuple[Any, ...]) -> Any:
    """Address of a kernel's machine code for arguments like these."""
    signature = tuple(dispatcher.typeof_pyval(argument) for argument in arguments)
    dispatcher.compile(signature)
    compiled = dispatcher.overloads[signature]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
