"""The commands ``info`` and ``warmup``: what is compiled, and for which machine."""

import time

import numba
import numpy as np

import fastsoftmax
from fastsoftmax._evaluation.threads import n_threads, uses_team
from fastsoftmax._kernels.linear.slots import run_slots
from fastsoftmax._kernels.vector import emit
from fastsoftmax._warmup import KERNELS
from fastsoftmax.cli._console import out, print_table


def info() -> None:
    """CPU features, lanes, threads and cache directory."""
    fastsoftmax.warmup((np.float32,), ("dense",))
    notable = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "neon", "sve")
    # Without JIT a kernel is a plain function; without a writable directory the path is None.
    path = getattr(getattr(run_slots, "stats", None), "cache_path", None)
    rows = {
        "CPU": emit.CPU_NAME,
        "features": " ".join(name for name in notable if name in emit.FEATURES),
        "lanes": f"{emit.VECTOR_BYTES // 4} float32, {emit.VECTOR_BYTES // 8} float64",
        "register tile": f"{emit.HEIGHT} x {emit.WIDTH} vectors",
        "threads": str(n_threads()),
        "they are": "fastsoftmax's own team" if uses_team() else "Numba's",
        "cache directory": str(path) if path else "none is writable",
        "numba": numba.__version__,
        "numpy": np.__version__,
    }
    print_table(f"fastsoftmax {fastsoftmax.__version__}", rows, head="what")


def warmup() -> None:
    """Compile the kernels now, or load them from the disk cache."""
    started = time.perf_counter()
    kinds = ", ".join(KERNELS)
    with out.status(f"compiling kernels: {kinds}, in float32 and float64"):
        fastsoftmax.warmup()
    out.print(f"kernels ready after {time.perf_counter() - started:.1f} s: {kinds}")
