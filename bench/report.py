"""Run the benchmarks, peers in turns, and write the tables: ``python bench/report.py``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import ceilings
import registry
from worker import Worker

LIBRARIES = ("fastsoftmax", "numpy", "numba", "scipy", "scikit-learn", "torch", "jax",
             "scikit-learn-intelex")  # fmt: skip


def measure(problem: registry.Problem, rounds: int) -> dict[str, Any]:
    """Median seconds of every peer, timed in turns; or why a peer has none."""
    task = registry.TASKS[problem.task]
    seconds: dict[str, float] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        arrays = task.make(problem)
        for name, array in arrays.items():
            np.save(f"{directory}/{name}.npy", array)
        for i, array in enumerate(task.truth(arrays)):
            np.save(f"{directory}/truth{i}.npy", array)
        del arrays
        workers: dict[str, Worker] = {}
        for peer in task.peers:
            if not registry.available(peer):
                absent[peer] = "not installed"
                continue
            worker = Worker(problem, peer, directory)
            if worker.status == "ready":
                workers[peer] = worker
            else:
                absent[peer] = worker.status
                worker.close()
        times: dict[str, list[float]] = {peer: [] for peer in workers}
        started = time.perf_counter()
        for done in range(rounds):
            if done >= 3 and time.perf_counter() - started > 60:
                break
            for peer, worker in workers.items():
                times[peer].append(worker.time())
        for worker in workers.values():
            worker.close()
    seconds = {peer: statistics.median(values) for peer, values in times.items()}
    return {"seconds": seconds, "absent": absent, "rounds": done + 1}


def row_of(problem: registry.Problem, result: dict[str, Any], limits: dict[str, float]) -> Any:
    """The table's row: milliseconds, ratios and the share of the machine's limit."""
    moved, flops = registry.TASKS[problem.task].work(problem)
    floor = max(moved / limits["read"], flops / limits[problem.dtype])
    ours = result["seconds"]["fastsoftmax"]
    if "copy" in result["seconds"]:  # the limit is a plain copy; of half of it, without a result
        reads_only = problem.task.startswith("logsumexp")
        floor = moved / limits["read"] if reads_only else result["seconds"]["copy"]
    return {
        "problem": problem.name,
        "shape": problem.shape,
        "dtype": problem.dtype,
        "floor_ms": 1e3 * floor,
        "ns_per_element": 1e9 * ours / float(np.prod(problem.shape)),
        "bound_by": "memory" if moved / limits["read"] > flops / limits[problem.dtype] else "fma",
        "share_of_limit": floor / ours,
        "ms": {peer: 1e3 * value for peer, value in result["seconds"].items()},
        "ratio": {
            peer: value / ours for peer, value in result["seconds"].items() if peer != "fastsoftmax"
        },
        "absent": result["absent"],
        "rounds": result["rounds"],
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as tables: one a task."""
    limits = report["limits"]
    lines = [
        f"{report['cpu']}, {report['threads']} threads, {report['date']}. Read bandwidth "
        f"{limits['read'] / 1e9:.1f} GB/s, multiply-add peak {limits['float32'] / 1e9:.0f} GFLOP/s "
        f"in float32 and {limits['float64'] / 1e9:.0f} in float64, all measured in this run.",
        "",
        "Medians in milliseconds, each peer in its own process, timed in turns; in brackets how "
        "many times as long as fastsoftmax. Of linear problems the floor is the time to read the "
        "data once or to do the products at the peak, whichever is longer; of rows of logits the "
        "share is that of a plain copy (of reading once, for logsumexp).",
    ]
    for task in registry.TASKS:
        rows = [row for row in report["rows"] if row["problem"].startswith(f"{task}-")]
        if not rows:
            continue
        copied = "copy" in rows[0]["ms"]
        peers = [p for p in registry.TASKS[task].peers if any(p in row["ms"] for row in rows)]
        others = [p for p in peers if p != "fastsoftmax"]
        limit = "ns an element" if copied else "floor"
        lines += ["", f"### {task}", "", f"| shape | dtype | {limit} | share | fastsoftmax | "
                  + " | ".join(others) + " |", "|---" * (5 + len(others)) + "|"]  # fmt: skip
        for row in rows:
            cells = [
                "(" + ", ".join(f"{n:,}" for n in row["shape"]) + ")",
                row["dtype"],
                f"{row['ns_per_element'] if copied else row['floor_ms']:.3g}",
                f"{100 * row['share_of_limit']:.0f} %",
                f"**{row['ms']['fastsoftmax']:.3g}**",
            ]
            for peer in others:
                known = peer in row["ms"]
                cells.append(f"{row['ms'][peer]:.3g} ({row['ratio'][peer]:.1f}x)" if known else "")
            lines.append("| " + " | ".join(cells) + " |")
    absent = {f"{peer}: {why}" for row in report["rows"] for peer, why in row["absent"].items()}
    if absent:
        lines += ["", "Left out: " + "; ".join(sorted(absent)) + "."]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return "\n".join([*lines, "", f"Versions: {versions}.", ""])


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def raise_limits(limits: dict[str, float], threads: int) -> None:
    """Measure the ceilings again before each problem and keep the best: neighbours make noise."""
    limits["read"] = max(limits["read"], ceilings.read_bandwidth(threads))
    for dtype in ("float32", "float64"):
        limits[dtype] = max(limits[dtype], ceilings.multiply_add_peak(threads, dtype))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows, 3 rounds")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--name", default="report")
    options = parser.parse_args()
    threads = registry.N_THREADS
    limits = {"read": 0.0, "float32": 0.0, "float64": 0.0}
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "threads": threads,
        "versions": versions(),
        "limits": limits,
        "rows": [],
    }
    results: dict[registry.Problem, dict[str, Any]] = {}
    for problem in registry.PROBLEMS:
        if options.only not in problem.name:
            continue
        sized = problem.scaled(0.01) if options.quick else problem
        raise_limits(limits, threads)
        results[sized] = measure(sized, 3 if options.quick else options.rounds)
        report["rows"] = [row_of(one, result, limits) for one, result in results.items()]
        row = report["rows"][-1]
        shown = ", ".join(f"{peer} {ratio:.2f}x" for peer, ratio in row["ratio"].items())
        print(f"{sized.name}: {row['ms']['fastsoftmax']:.2f} ms; {shown}", flush=True)
        options.output.mkdir(parents=True, exist_ok=True)
        target = options.output / options.name
        target.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        target.with_suffix(".md").write_text(markdown(report))
    print(f"written: {options.output / options.name}.md")


if __name__ == "__main__":
    main()
