"""What the benchmarks run on. To be imported before NumPy, which it lets choose its own kernels.

Where OPENBLAS_CORETYPE or OPENBLAS_L2_SIZE are set, scikit-learn loses a quarter to a third of its
speed and NumPy up to a half. OpenBLAS reads them when it is loaded. Every process that a benchmark
starts imports this module too, and inherits the environment without them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    if os.environ.pop(_name, None) and "numpy" in sys.modules:
        raise RuntimeError(f"{_name} is set, and NumPy was imported before it could be dropped")

N_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
# Seconds of silence before anything is timed: OpenBLAS's threads spin for 0.1 s after a call.
PAUSE = 0.16
LIBRARIES = ("fastsoftmax", "numpy", "numba", "scipy", "scikit-learn", "torch", "jax",
             "scikit-learn-intelex", "onnxruntime", "cyanure")  # fmt: skip
# Names in /proc/cpuinfo of what decides how wide a CPU's vectors are, the widest first.
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse2": "SSE2", "asimd": "NEON"}


def description() -> dict[str, Any]:
    """The machine, the day and the versions, for the head of a report."""
    return {
        "cpu": _cpu_name() + _vectors(),
        "threads": N_THREADS,
        "date": time.strftime("%Y-%m-%d"),
        "blas": _blas(),
        "versions": dict(_versions()),
    }


def foot(machine: dict[str, Any]) -> str:
    """The last line of a report."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"Versions: {versions}; NumPy's BLAS: {machine['blas']}, chosen by itself."


def _versions() -> Any:
    yield "python", platform.python_version()
    for name in LIBRARIES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _blas() -> str:
    """The library that NumPy has loaded, and the kernels that it has chosen."""
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    pools = (pool for pool in threadpool_info() if pool["user_api"] == "blas")
    pool = next(pools, {"internal_api": "not known"})
    return f"{pool['internal_api']} {pool.get('architecture', '')}".strip()


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor()


def _vectors() -> str:
    """How wide the CPU's vectors are: a name alone, as "AMD EPYC", is that of several machines."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return next((f" with {name}" for flag, name in VECTORS.items() if flag in flags), "")


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(": ")[2] for line in lines if line.startswith(key)), "")
