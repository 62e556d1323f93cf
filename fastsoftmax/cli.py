"""The command line: ``fastsoftmax train | predict | evaluate | info | warmup``."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

try:
    import typer
    from rich.table import Table

    from fastsoftmax._cli_console import out
    from fastsoftmax._cli_predict import evaluate, predict
    from fastsoftmax._cli_train import train
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None

import fastsoftmax


def main() -> None:
    """Run the command line: errors are one line and exit status 2."""
    if _missing is not None:
        needed = 'pip install "fastsoftmax[train]"'
        print(f"error: the command line needs {needed} ({_missing})", file=sys.stderr)
        sys.exit(2)
    # click's own, wherever this release of typer keeps click.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        _application()(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except usage_error as error:
        if message := error.format_message():  # empty where help was shown instead
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _application() -> Any:
    summary = "Softmax regression on a CPU, on data of any size."
    application = typer.Typer(add_completion=False, no_args_is_help=True, help=summary)
    for command in (train, predict, evaluate, info, warmup):
        application.command()(command)
    return application


def info() -> None:
    """CPU features, lanes, threads, threading layer and cache directory."""
    import numba

    from fastsoftmax._kernels import driver, emit

    fastsoftmax.warmup((np.float32,))
    notable = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "neon", "sve")
    cache = getattr(driver.run_serial, "_cache", None)
    table = Table("what", "value", title=f"fastsoftmax {fastsoftmax.__version__}")
    table.add_row("CPU", emit.CPU_NAME)
    table.add_row("features", " ".join(name for name in notable if name in emit.FEATURES))
    lanes = f"{emit.VECTOR_BYTES // 4} float32, {emit.VECTOR_BYTES // 8} float64"
    table.add_row("lanes", lanes)
    table.add_row("register tile", f"{emit.HEIGHT} x {emit.WIDTH} vectors")
    table.add_row("threads", str(numba.get_num_threads()))
    try:
        table.add_row("threading layer", numba.threading_layer())
    except ValueError:
        table.add_row("threading layer", "none started (one thread)")
    path = getattr(cache, "cache_path", None)
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


if __name__ == "__main__":
    main()
