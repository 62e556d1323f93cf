"""A table with columns of text: passes beside bare scans, and a whole training.

    python bench/tables.py --rows 5000000 --name tables

The table has six columns of text with 5 to 1,000 values, four of numbers and a label, as Parquet
and as CSV. Scans are what one would write with pyarrow or pandas, their settings being the
defaults, the batches dropped. Scans and passes run in turn, each in a process of its own, which
warms up and then times one. The training is the command line. Given ``--name tables`` it writes
results/tables.md.
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
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq

from fastsoftmax import SoftmaxObjective
from fastsoftmax.sources import open_source

RESULTS = Path(__file__).parent / "results"
TARGET = "label"
VALUES = {"colour": 5, "plan": 12, "region": 50, "branch": 200, "model": 500, "town": 1000}
NUMBERS = ("age", "income", "hours", "score")
GROUP_ROWS = 500_000


def make(folder: Path, n_rows: int) -> None:
    """Write the table in both formats, row group by row group, the same for the same size."""
    texts = {name: np.array([f"{name} {i}" for i in range(n)]) for name, n in VALUES.items()}
    effects = {name: np.random.default_rng(0).standard_normal(n) for name, n in VALUES.items()}
    writer: Any = None
    for group, start in enumerate(range(0, n_rows, GROUP_ROWS)):
        rng, n = np.random.default_rng((1, group)), min(GROUP_ROWS, n_rows - start)
        codes = {name: rng.integers(0, size, n) for name, size in VALUES.items()}
        columns: dict[str, Any] = {name: pa.array(texts[name][codes[name]]) for name in VALUES}
        columns |= {name: rng.standard_normal(n).astype(np.float32).round(4) for name in NUMBERS}
        z = sum(effects[name][codes[name]] for name in VALUES) + columns["score"]
        columns[TARGET] = np.where(z + rng.logistic(size=n) > 0, "yes", "no")
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(folder / "table.parquet", table.schema)
        writer.write_table(table)
        mode, header = ("a", False) if group else ("w", True)
        table.to_pandas().to_csv(folder / "table.csv", mode=mode, header=header, index=False)
    writer.close()


def scan_texts(folder: Path) -> Callable[[], Any]:
    def scan() -> None:
        for _ in pq.ParquetFile(folder / "table.parquet").iter_batches(columns=list(VALUES)):
            pass

    return scan


def scan_batches(folder: Path) -> Callable[[], Any]:
    def scan() -> None:
        for _ in pq.ParquetFile(folder / "table.parquet").iter_batches():
            pass

    return scan


def scan_pyarrow_csv(folder: Path) -> Callable[[], Any]:
    def scan() -> None:
        for _ in pyarrow.csv.open_csv(folder / "table.csv"):
            pass

    return scan


def scan_pandas_csv(folder: Path) -> Callable[[], Any]:
    def scan() -> None:
        with pd.read_csv(folder / "table.csv", chunksize=1 << 18) as frames:
            for _ in frames:
                pass

    return scan


def learning(name: str) -> Callable[[Path], Callable[[], Any]]:
    return lambda folder: open_source(folder / name, TARGET, learn=False).learn_columns


def encoding(name: str) -> Callable[[Path], Callable[[], Any]]:
    def prepare(folder: Path) -> Callable[[], Any]:
        source = open_source(folder / name, TARGET)
        source.dtype = np.dtype(np.float32)

        def encode() -> None:
            for _ in source.features():
                pass

        return encode

    return prepare


def gradient(name: str) -> Callable[[Path], Callable[[], Any]]:
    def prepare(folder: Path) -> Callable[[], Any]:
        source = open_source(folder / name, TARGET)
        source.dtype = np.dtype(np.float32)
        objective = SoftmaxObjective.from_chunks(
            source, n_features=source.n_features, n_classes=len(source.classes), l2=1e-4
        )
        return lambda: objective(objective.x0)

    return prepare


PARQUET = {
    "pyarrow: `iter_batches(columns=<the texts>)`": scan_texts,
    "pyarrow: `iter_batches()`": scan_batches,
    "learning the values": learning("table.parquet"),
    "making features": encoding("table.parquet"),
    "loss and gradient": gradient("table.parquet"),
}
CSV = {
    "pyarrow: `csv.open_csv()`": scan_pyarrow_csv,
    "pandas: `read_csv(chunksize=...)`": scan_pandas_csv,
    "learning the values, from CSV": learning("table.csv"),
    "making features, from CSV": encoding("table.csv"),
    "loss and gradient, from CSV": gradient("table.csv"),
}


def one_pass(folder: Path, name: str) -> None:
    """Print the seconds of a warm pass and the most memory held, in MiB."""
    task = {**PARQUET, **CSV}[name](folder)
    task()
    started = time.perf_counter()
    task()
    print(time.perf_counter() - started, peak_memory())


def peak_memory() -> int:
    # Not getrusage: its maximum may be the parent's.
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024


def passes(folder: Path, tasks: dict[str, Any], repeats: int) -> list[str]:
    """Time scans and passes in turn; return a table."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    memory: dict[str, int] = dict.fromkeys(tasks, 0)
    for _ in range(repeats):
        for name in tasks:
            command = [sys.executable, __file__, "--folder", str(folder), "--pass", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken, peak = done.stdout.split()
            seconds[name].append(float(taken))
            memory[name] = max(memory[name], int(peak))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first, second, *_ = medians.values()
    names = list(medians)[:2]
    return [
        f"| pass over the file | seconds (median) | times {names[0]} | times {names[1]} "
        "| peak MiB |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {median:.3f} | {median / first:.2f} | {median / second:.2f} "
            f"| {memory[name]} |"
            for name, median in medians.items()
        ),
    ]


def training(path: Path) -> list[str]:
    """Train on the command line, and return what it reports."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "fastsoftmax.cli", "train", str(path), "--stream"]
        done = subprocess.run(
            [*command, "--target", TARGET, "--output", f"{directory}/model.npz"],
            check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
    measures = re.findall(r"│ (.+?) +│ (.+?) +│", done.stdout)
    return [
        f"`fastsoftmax train {path.name} --target {TARGET} --stream --output ...`:",
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in measures),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write the table, or has been")
    parser.add_argument("--pass", dest="name_of_pass", help=argparse.SUPPRESS)
    parser.add_argument("--name", help="of the file in bench/results; without it none is written")
    a = parser.parse_args()
    if a.name_of_pass:
        one_pass(a.folder, a.name_of_pass)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.folder or Path(temporary)
        if not (folder / "table.csv").exists():
            make(folder, a.rows)
        sizes = [(folder / f"table.{kind}").stat().st_size / 1e6 for kind in ("parquet", "csv")]
        lines = [
            "# Training on a table with columns of text", "",
            f"{a.rows:,} rows: {len(VALUES)} columns of text with {min(VALUES.values())} to "
            f"{max(VALUES.values()):,} values, {len(NUMBERS)} of float32, and a label of text; "
            f"Parquet of {sizes[0]:.0f} MB in row groups of {GROUP_ROWS:,} rows, CSV of "
            f"{sizes[1]:.0f} MB; pyarrow {pa.__version__}, pandas {pd.__version__}, "
            f"{machine.N_THREADS} cores, page cache warm, {a.repeats} times in turn, each in a "
            "process of its own.", "",
            *passes(folder, PARQUET, a.repeats), "", *passes(folder, CSV, a.repeats), "",
            *training(folder / "table.parquet"), *training(folder / "table.csv"),
        ]  # fmt: skip
    if a.name:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{a.name}.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
