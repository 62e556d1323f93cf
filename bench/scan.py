"""A Parquet file larger than its memory's share: a pass beside bare scans, and a whole training.

Scans and passes run in turn in one process with the file in the page cache. The scans are what one
would write with pyarrow, all its settings being the defaults, the batches dropped. The training is
the command line in a process of its own, which tells its peak memory. Writes results/scan.md.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source

RESULTS = Path(__file__).parent / "results"
TARGET = "label"


def scan_dataset(path: Path, columns: list[str]) -> None:
    for _ in pyarrow.dataset.dataset(path).to_batches(columns=columns):
        pass


def scan_batches(path: Path, columns: list[str]) -> None:
    for _ in pq.ParquetFile(path).iter_batches(columns=columns):
        pass


def seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def describe(path: Path, objective: SoftmaxObjective) -> str:
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    return (
        f"{objective.n_rows:,} rows x {objective.n_features} features in {objective.dtype}, "
        f"{objective.n_classes} classes, {path.stat().st_size / 1e9:.2f} GB, row groups of "
        f"{group.num_rows:,} rows, compression {group.column(0).compression.lower()}"
    )


def passes(path: Path, repeats: int) -> list[str]:
    """Time scans and passes in turn; return a table."""
    source = open_source(path, TARGET)
    objective = SoftmaxObjective.from_chunks(
        source, n_features=source.n_features, n_classes=len(source.classes), l2=1e-4
    )
    columns, w = [*(source.feature_names or []), TARGET], objective.x0
    tasks: dict[str, Callable[[], Any]] = {
        "`dataset(path).to_batches(columns)`": lambda: scan_dataset(path, columns),
        "`ParquetFile(path).iter_batches(columns)`": lambda: scan_batches(path, columns),
        "loss and gradient, streamed": lambda: objective(w),
        "Hessian times a vector, streamed": lambda: objective.hessp(w, w),
    }
    objective.hessp(w, w)  # compiled before it is timed
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            times[name].append(seconds(task))
    medians = {name: statistics.median(values) for name, values in times.items()}
    bare, batches, *_ = medians.values()
    rows = (
        f"| {name} | {median:.3f} | {min(times[name]):.3f} | {median / bare:.2f} "
        f"| {median / batches:.2f} |"
        for name, median in medians.items()
    )
    return [
        f"{describe(path, objective)}; pyarrow {pa.__version__}, {os.cpu_count()} cores, page "
        f"cache warm, {repeats} times in turn.",
        "",
        "| pass over the file | seconds (median) | fastest | times `to_batches` "
        "| times `iter_batches` |",
        "|---|---|---|---|---|",
        *rows,
    ]


def training(path: Path) -> list[str]:
    """Train on the command line, and return what it reports."""
    with tempfile.TemporaryDirectory() as directory:
        files = ["--output", f"{directory}/model.npz", "--checkpoint", f"{directory}/state.npz"]
        command = [sys.executable, "-m", "fastsoftmax.cli", "train", str(path)]
        done = subprocess.run(
            [*command, "--target", TARGET, *files],
            check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
    measures = re.findall(r"│ (.+?) +│ (.+?) +│", done.stdout)
    warned = [f"    {line}" for line in done.stderr.splitlines()]
    return [
        f"`fastsoftmax train {path.name} --target {TARGET} --output ... --checkpoint ...`:",
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in measures),
        *warned,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--name", default="scan", help="of the file in bench/results")
    a = parser.parse_args()
    lines = ["# Training on a Parquet file by streaming it", ""]
    lines += [*passes(a.path, a.repeats), "", *training(a.path), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{a.name}.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
