"""The commands ``info`` and ``warmup``: what is compiled, and for which machine."""

import time

import numba
import numpy as np
from rich.table import Table

import fastsoftmax
from fastsoftmax._kernels.linear.slots import draw_slots
from fastsoftmax._kernels.vector import emit
from fastsoftmax.cli._console import out


def info() -> None:
    """CPU features, lanes, threads, threading layer and cache directory."""
    fastsoftmax.warmup((np.float32,))
    notable = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "neon", "sve")
    table = Table("what", "value", title=f"fastsoftmax {fastsoftmax.__version__}")
    table.add_row("CPU", emit.CPU_NAME)
    table.add_row("features", " ".join(name for name in notable if name in emit.FEATURES))
    table.add_row("lanes", f"{emit.VECTOR_BYTES // 4} float32, {emit.VECTOR_BYTES // 8} float64")
    table.add_row("register tile", f"{emit.HEIGHT} x {emit.WIDTH} vectors")
    table.add_row("threads", str(numba.get_num_threads()))
    try:
        table.add_row("threading layer", numba.threading_layer())
    except ValueError:
        table.add_row("threading layer", "none started (one thread)")
    # Without JIT a kernel is a plain function; without a writable directory the path is None.
    path = getattr(getattr(draw_slots, "stats", None), "cache_path", None)
    table.add_row("cache directory", str(path) if path else "none is writable")
    table.add_row("numba", numba.__version__)
    table.add_row("numpy", np.__version__)
    out.print(table)


def warmup() -> None:
    """Compile the kernels now, or load them from the disk cache."""
    started = time.perf_counter()
    with out.status("compiling kernels"):
        fastsoftmax.warmup()
    out.print(f"kernels ready after {time.perf_counter() - started:.1f} s")
