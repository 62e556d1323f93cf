"""Dask's workers beside one process: time of an evaluation, and what it is made of.

Runs a LocalCluster of processes with one thread each on this machine, and writes
results/cluster.md. Rows are made inside the workers, seeded by partition. Needs 4 GB of memory.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask import delayed
from distributed import Client, LocalCluster

from fastsoftmax import SoftmaxObjective
from fastsoftmax.dask import SoftmaxObjective as DaskObjective

RESULTS = Path(__file__).parent / "results" / "cluster.md"
SHAPE = (4_000_000, 100, 10)
ROWS = 1_000_000  # of a partition: few and large, as each costs the kernel a start
# What the projection is for; the network is an assumption, all else is measured here.
N_ROWS, N_MACHINES, NETWORK = 1_000_000_000, 64, 1.25e9


def make_rows(partition: int, n_rows: int, n_features: int, n_classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(partition)
    X = rng.standard_normal((n_rows, n_features), dtype=np.float32)
    return X, rng.integers(0, n_classes, n_rows)


def in_memory(shape: tuple[int, int, int]) -> SoftmaxObjective:
    n_rows, n_features, n_classes = shape
    X, y = np.empty((n_rows, n_features), np.float32), np.empty(n_rows, np.int64)
    for partition in range(n_rows // ROWS):
        rows = slice(partition * ROWS, (partition + 1) * ROWS)
        X[rows], y[rows] = make_rows(partition, ROWS, n_features, n_classes)
    return SoftmaxObjective(X, y, n_classes=n_classes)


def spread(shape: tuple[int, int, int], rows: int = ROWS, n_shares: int | None = None) -> Any:
    n_rows, n_features, n_classes = shape
    chunks = [delayed(make_rows)(i, rows, n_features, n_classes) for i in range(n_rows // rows)]
    return DaskObjective.from_chunks(chunks, n_classes=n_classes, n_shares=n_shares)


def point(objective: Any) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(objective.size)


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds; each run is the second of two, as threads that slept wake in the first."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return times


def median(objective: Any, rounds: int) -> float:
    w = point(objective)
    objective(w)
    return statistics.median(in_turns({"": lambda: objective(w)}, rounds)[""])


def loopback() -> int:
    """Bytes that went through the loopback interface so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split()[1])
    return 0


def compare(rounds: int) -> list[str]:
    """One process of two threads, and two processes of one: the same numbers, then times."""
    local, remote = in_memory(SHAPE), spread(SHAPE)
    w = point(local)
    (loss, gradient), (loss_there, gradient_there) = local(w), remote(w)
    apart = np.abs(gradient - gradient_there).max() / np.abs(gradient).max()
    assert abs(loss - loss_there) < 1e-6 * loss, (loss, loss_there)
    assert apart < 1e-5, apart
    times = in_turns({"in memory": lambda: local(w), "workers": lambda: remote(w)}, rounds)
    a, b = (statistics.median(t) for t in times.values())
    lines = [
        "| where | milliseconds (median) | fastest |",
        "|---|---|---|",
        f"| in memory, 2 threads | {1e3 * a:.1f} | {1e3 * min(times['in memory']):.1f} |",
        f"| 2 processes of 1 thread | {1e3 * b:.1f} | {1e3 * min(times['workers']):.1f} |",
        "",
        f"Ratio of medians **{b / a:.3f}**, of the fastest "
        f"{min(times['workers']) / min(times['in memory']):.3f}. Checked first: losses agree to "
        f"{abs(loss / loss_there - 1):.0e}, gradients to {apart:.0e} of the largest entry.",
    ]
    return lines


def by_rows(rounds: int) -> tuple[list[str], float, float]:
    """Time as N grows; seconds of an evaluation without rows, and of a row."""
    _, n_features, n_classes = SHAPE
    counts = [500_000, 1_000_000, 2_000_000, 3_000_000]
    seconds = [median(spread((n, n_features, n_classes), n // 2), rounds) for n in counts]
    slope, constant = np.polyfit(counts, seconds, 1)
    lines = ["| rows | milliseconds |", "|---|---|"]
    lines += [f"| {n:,} | {1e3 * t:.1f} |" for n, t in zip(counts, seconds, strict=True)]
    lines += [
        "",
        f"A line through them: {1e3 * constant:.1f} ms and {1e9 * slope:.1f} ns a row; the "
        f"former weighs as much as the latter at {constant / slope / 2:,.0f} rows a worker.",
    ]
    return lines, float(constant), float(slope)


def by_parameters(rounds: int) -> list[str]:
    """Time and bytes as K·D grows, with next to no rows."""
    lines = [
        "| K x D | milliseconds | KiB moved | KiB of W, of one gradient |",
        "|---|---|---|---|",
    ]
    sizes, seconds = [], []
    for n_classes, n_features in ((10, 100), (100, 1000), (1000, 1000), (1000, 4000)):
        objective = spread((128, n_features, n_classes), rows=64)
        t, w = median(objective, rounds), point(objective)
        before = loopback()
        for _ in range(rounds):
            objective(w)
        moved = (loopback() - before) / rounds
        sizes.append(4 * n_classes * n_features)
        seconds.append(t)
        lines.append(
            f"| {n_classes} x {n_features} | {1e3 * t:.1f} | {moved / 1024:,.0f} | "
            f"{sizes[-1] / 1024:,.0f}, {2 * sizes[-1] / 1024:,.0f} |"
        )
    slope = (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])
    lines += ["", f"From the first to the last: {1e9 * slope:.2f} ns a byte of W."]
    return lines


def by_tasks(rounds: int) -> tuple[list[str], float]:
    """Time as the number of shares grows, with next to no rows; seconds a task."""
    counts = [2, 16, 64, 128]
    objectives = [spread((128 * 16, 20, 3), rows=16, n_shares=n) for n in counts]
    seconds = [median(objective, rounds) for objective in objectives]
    slope = (seconds[-1] - seconds[0]) / (counts[-1] - counts[0])
    lines = ["| tasks | milliseconds |", "|---|---|"]
    lines += [f"| {n} | {1e3 * t:.1f} |" for n, t in zip(counts, seconds, strict=True)]
    lines += ["", f"From the first to the last: {1e3 * slope:.2f} ms a task."]
    return lines, slope


def by_workers(rounds: int) -> list[str]:
    """Time of half the rows with one worker and with two."""
    shape = (SHAPE[0] // 2, *SHAPE[1:])
    seconds = {}
    for n_workers in (1, 2):
        with cluster(n_workers) as workers, Client(workers):
            seconds[n_workers] = median(spread(shape), rounds)
    lines = ["| workers | milliseconds |", "|---|---|"]
    lines += [f"| {n} | {1e3 * t:.1f} |" for n, t in seconds.items()]
    return lines


def project(constant: float, task: float, rows: dict[tuple[int, int], float]) -> list[str]:
    """Evaluations that were not measured, from what was."""
    levels = math.ceil(math.log(N_MACHINES, 4))
    lines = [
        f"Projected: {N_ROWS:,} rows on {N_MACHINES} machines like this one, {NETWORK / 1e9} GB/s "
        "between them; seconds of an evaluation. "
        "In the last column: how many rows a worker must have for W and gradients to take less "
        "than the work.",
        "",
        "| K x D | work | tasks | W and gradients | rows |",
        "|---|---|---|---|---|",
    ]
    for (n_classes, n_features), row in rows.items():
        # Down: W in float32, the number of its holders doubling. Up: at each level of the tree one
        # worker receives three sums in float64.
        size = n_classes * n_features * (4 * math.log2(N_MACHINES) + 8 * 3 * levels)
        # The tree's levels wait for each other, and the scheduler takes its time for every task.
        tasks = (1 + levels) * constant + N_MACHINES * task
        lines.append(
            f"| {n_classes} x {n_features} | {N_ROWS / N_MACHINES * row:.2f} | {tasks:.3f} | "
            f"{size / NETWORK:.4f} | {size / NETWORK / row:,.0f} |"
        )
    return lines


def cluster(n_workers: int) -> LocalCluster:
    return LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    _, n_features, n_classes = SHAPE
    with cluster(2) as workers, Client(workers):
        compared = compare(rounds)
        rows, constant, row = by_rows(rounds)
        parameters = by_parameters(rounds)
        tasks, task = by_tasks(rounds)
        wide = median(spread((16_000, 1000, 1000), rows=4000), 3) / 16_000
    of_workers = by_workers(rounds)
    projection = project(constant, task, {(n_classes, n_features): row, (1000, 1000): wide})
    shape = " x ".join(f"{n:,}" for n in SHAPE)
    lines = [
        f"# Rows on Dask's workers, {shape}, float32",
        "",
        f"dask {dask.__version__}; medians of {rounds} in turn in one run on one machine.",
    ]
    for section in (compared, rows, of_workers, tasks, parameters, projection):
        lines += ["", *section]
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
