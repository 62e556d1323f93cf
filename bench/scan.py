"""A streamed evaluation beside a bare scan of the same Parquet columns; writes results/scan.md.

The scan is pyarrow's dataset scanner, its batches dropped. Both run in turn in one process with the
file in the page cache; the peak memory is a fresh process's, which only opens and evaluates.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import ChunkSource, open_source

RESULTS = Path(__file__).parent / "results" / "scan.md"


def prepare(path: Path) -> tuple[ChunkSource, SoftmaxObjective]:
    source = open_source(path, "label")
    n_classes = len(source.classes)
    return source, SoftmaxObjective.from_chunks(
        source, n_features=source.n_features, n_classes=n_classes, l2=1e-4
    )


def seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def scan(path: Path, columns: list[str]) -> None:
    for _ in pyarrow.dataset.dataset(path).scanner(columns=columns).to_batches():
        pass


def read_groups(path: Path, columns: list[str]) -> None:
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        file.read_row_group(group, columns=columns)


def peak(path: Path) -> None:
    """Print the peak memory of opening and evaluating twice, in MiB."""
    _, objective = prepare(path)
    for _ in range(2):
        objective(objective.x0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", action="store_true")
    a = parser.parse_args()
    if a.peak:
        peak(a.path)
        return
    source, objective = prepare(a.path)
    columns, w = [*(source.feature_names or []), "label"], objective.x0
    tasks: dict[str, Callable[[], Any]] = {
        "scan by pyarrow.dataset": lambda: scan(a.path, columns),
        "row groups read one by one": lambda: read_groups(a.path, columns),
        "loss and gradient, streamed": lambda: objective(w),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(a.repeats):
        for name, task in tasks.items():
            times[name].append(seconds(task))
    command = [sys.executable, __file__, str(a.path), "--peak"]
    memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    medians = {name: statistics.median(values) for name, values in times.items()}
    bare = medians["scan by pyarrow.dataset"]
    shape = f"{source.n_rows:,} x {source.n_features}, {len(source.classes)} classes"
    lines = [
        f"# One pass over a Parquet file, {shape}",
        "",
        f"pyarrow {pa.__version__}, medians of {a.repeats} in turn in one run, page cache warm.",
        "",
        "| pass | seconds (median) | fastest | times the scan |",
        "|---|---|---|---|",
        *(
            f"| {name} | {medians[name]:.3f} | {min(times[name]):.3f} "
            f"| {medians[name] / bare:.2f} |"
            for name in tasks
        ),
        "",
        f"Peak memory of a fresh process that opens and evaluates: {memory} MiB.",
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
