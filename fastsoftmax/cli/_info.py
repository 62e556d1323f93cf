"""The commands ``info`` and ``warmup``: a model, or what is compiled and for which machine."""

import time
from pathlib import Path
from typing import Annotated

import numba
import numpy as np
import typer
from rich.table import Table

import fastsoftmax
from fastsoftmax._evaluation.threads import n_threads, uses_team
from fastsoftmax._kernels.linear.slots import run_slots
from fastsoftmax._kernels.vector import emit
from fastsoftmax._warmup import KERNELS
from fastsoftmax.cli._console import out, print_table, printable
from fastsoftmax.cli._model_files import SavedModel, load_model
from fastsoftmax.cli._tables import describe_column

# So many classes are named.
_MOST_CLASSES = 20


def info(
    model: Annotated[Path | None, typer.Argument(help="Model file to describe.")] = None,
) -> None:
    """Describe a model; or else CPU features, lanes, threads and cache directory."""
    if model is None:
        _describe_machine()
    else:
        _describe_model(model, load_model(model))


def _describe_model(path: Path, saved: SavedModel) -> None:
    """Print a model's classes and columns, how they are read, and how it was made."""
    model = saved.model
    some = [str(label) for label in model.classes_[:_MOST_CLASSES].tolist()]
    more = ", ..." * (len(model.classes_) > len(some))
    rows = {"classes": f"{len(model.classes_):,}: {', '.join(some)}{more}"}
    if saved.target:
        rows["label column"] = saved.target
    rows |= {"features": f"{model.n_features_in_:,}", "precision": str(model.coef_.dtype)}
    made = saved.made or {"iterations": f"{model.n_iter_:,}"}
    rows |= {name: text for name, text in made.items() if name != "classes"}
    print_table(str(path), rows, head="what")
    if saved.columns is None:
        return
    table = Table("column", "read as", "features", title="columns")
    for column in saved.columns.columns:
        how = describe_column(column)
        table.add_row(printable(column.name), printable(how), f"{column.n_features:,}")
    out.print(table)


def _describe_machine() -> None:
    """Print CPU features, lanes, threads and cache directory."""
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
