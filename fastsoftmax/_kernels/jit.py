"""How kernels are compiled: one set of options, one rule for the disk cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numba
from numba.core.caching import IndexDataCacheFile

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


# Helpers are inlined by LLVM into the kernels that call them; they need no cache of their own.
helper = numba.njit(**OPTIONS)
