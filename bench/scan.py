"""A Parquet file larger than its memory's share: a pass beside bare scans, and a whole training.

The scans are what one would write with pyarrow, all its settings being the defaults, the batches
dropped. Scans and passes run in turn, each in a process of its own, which warms up and then times
one: in one process the scanner of `pyarrow.dataset` takes several times as long once other work has
left its marks on the allocator. The training is the command line. Writes results/scan.md.
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

import machine
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source

RESULTS = Path(__file__).parent / "results"
TARGET = "label"


def scan_dataset(path: Path) -> Callable[[], Any]:
    columns = pq.read_schema(path).names

    def scan() -> None:
        for _ in pyarrow.dataset.dataset(path).to_batches(columns=columns):
            pass

    return scan


def scan_batches(path: Path) -> Callable[[], Any]:
    columns = pq.read_schema(path).names

    def scan() -> None:
        for _ in pq.ParquetFile(path).iter_batches(columns=columns):
            pass

    return scan


def objective_of(path: Path) -> SoftmaxObjective:
    source = open_source(path, TARGET)
    return SoftmaxObjective.from_chunks(
        source, n_features=source.n_features, n_classes=len(source.classes), l2=1e-4
    )


def gradient(path: Path) -> Callable[[], Any]:
    objective = objective_of(path)
    return lambda: objective(objective.x0)


def product(path: Path) -> Callable[[], Any]:
    objective = objective_of(path)
    return lambda: objective.hessp(objective.x0, objective.x0)


PASSES = {
    "`dataset(path).to_batches(columns=...)`": scan_dataset,
    "`ParquetFile(path).iter_batches(columns=...)`": scan_batches,
    "loss and gradient, streamed": gradient,
    "Hessian times a vector, streamed": product,
}


def one_pass(path: Path, name: str) -> None:
    """Print the seconds of a warm pass, those of all cores, and the most memory held, in MiB."""
    task = PASSES[name](path)
    task()
    started, cpu_before = time.perf_counter(), time.process_time()
    task()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    # Not getrusage: its maximum may be the parent's.
    status = Path("/proc/self/status").read_text()
    print(seconds, cpu, int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024)


def passes(path: Path, repeats: int) -> list[str]:
    """Time scans and passes in turn; return a table."""
    seconds: dict[str, list[float]] = {name: [] for name in PASSES}
    cpu: dict[str, list[float]] = {name: [] for name in PASSES}
    memory: dict[str, int] = dict.fromkeys(PASSES, 0)
    for _ in range(repeats):
        for name in PASSES:
            command = [sys.executable, __file__, str(path), "--pass", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken, used, peak = done.stdout.split()
            seconds[name].append(float(taken))
            cpu[name].append(float(used))
            memory[name] = max(memory[name], int(peak))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    dataset, batches, *_ = medians.values()
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    return [
        f"{metadata.num_rows:,} rows x {metadata.num_columns - 1} {group.column(0).physical_type} "
        f"features, {path.stat().st_size / 1e9:.2f} GB in row groups of {group.num_rows:,} rows, "
        f"{group.column(0).compression.lower()}; pyarrow {pa.__version__}, {machine.N_THREADS} "
        f"cores, page cache warm, {repeats} times in turn, each in a process of its own.",
        "",
        "| pass over the file | seconds (median) | fastest | times `to_batches` "
        "| times `iter_batches` | seconds of all cores | peak MiB |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {median:.3f} | {min(seconds[name]):.3f} | {median / dataset:.2f} "
            f"| {median / batches:.2f} | {statistics.median(cpu[name]):.3f} | {memory[name]} |"
            for name, median in medians.items()
        ),
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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pass", dest="name_of_pass", choices=PASSES, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="scan", help="of the file in bench/results")
    a = parser.parse_args()
    if a.name_of_pass:
        one_pass(a.path, a.name_of_pass)
        return
    lines = ["# Training on a Parquet file by streaming it", ""]
    lines += [*passes(a.path, a.repeats), "", *training(a.path), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{a.name}.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
