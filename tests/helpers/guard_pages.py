"""Every NumPy array between pages that may not be touched, fresh memory full of NaN.

`install` sets a memory handler (NEP 49) for arrays made from then on, by whatever code, in this
thread and in threads started later. Reading or writing past an array's guarded end is a
segmentation fault; a byte written at its other end aborts the process when the array is freed.
"""

import ctypes
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

AT_END, AT_BEGIN, EITHER = range(3)
SOURCE = Path(__file__).with_suffix(".c")
# Places in NumPy's C API; part of its ABI.
_SET_HANDLER = 304

_library = None


def compiler():
    """Path of a C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")


def build(folder):
    """Compile the handler; return the path of the library."""
    library = Path(folder) / "guard_pages.so"
    command = [compiler(), "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return library


def install(library):
    """Give this thread's arrays, and those of threads to come, guard pages."""
    global _library
    _library = ctypes.CDLL(str(library))
    _library.count_blocks.restype = ctypes.c_uint64
    _set_handler()
    run = threading.Thread.run

    def guarded_run(self):
        _set_handler()  # the handler is a context variable: each thread begins without
        run(self)

    threading.Thread.run = guarded_run


def place(mode):
    """Let arrays from now on end (AT_END) or begin (AT_BEGIN) at a guard page, or EITHER."""
    _library.set_mode(mode)


def count():
    """Arrays allocated so far."""
    return _library.count_blocks()


def _set_handler():
    python = ctypes.pythonapi
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    table = python.PyCapsule_GetPointer(np._core.multiarray._ARRAY_API, None)
    address = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[_SET_HANDLER]
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)
    handler = ctypes.addressof(ctypes.c_char.in_dll(_library, "handler"))
    set_handler(python.PyCapsule_New(handler, b"mem_handler", None))


def tight_scratch():
    """Let scratch of the package end at its guard page, too.

    `aligned` asks for 64 bytes more than it needs, to begin on a cache line; an array of whole
    cache lines that ends at a page begins on one by itself.
    """

    def tight(rows, row_length, dtype):
        size = rows * row_length * dtype.itemsize
        return np.empty(size + -size % 64, np.uint8)[:size].view(dtype).reshape(rows, row_length)

    for name, module in list(sys.modules.items()):
        if name.startswith("fastsoftmax.") and hasattr(module, "aligned"):
            module.aligned = tight
