"""Run the benchmarks, peers in turns, and write tables and pictures: ``python bench/report.py``.

``--draw`` draws the pictures again from the JSON files that are there, without a new run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ceilings
import machine
import numpy as np
import registry
from worker import Worker

# Long problems have fewer turns: what a minute allows, but no fewer than these.
FEWEST_TURNS, SECONDS = 5, 60


def measure(
    problem: registry.Problem, turns: int, peers: Iterable[str] | None = None
) -> dict[str, Any]:
    """Median milliseconds of every peer, timed in turns; or why a peer has none."""
    task = registry.TASKS[problem.task]
    absent: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as directory:
        arrays = task.make(problem)
        for name, array in arrays.items():
            np.save(f"{directory}/{name}.npy", array)
        for i, array in enumerate(task.truth(arrays)):
            np.save(f"{directory}/truth{i}.npy", array)
        del arrays
        for peer in task.peers if peers is None else peers:
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
    for done in range(turns):
        if done >= FEWEST_TURNS and time.perf_counter() - started > SECONDS:
            break
        for peer, worker in workers.items():
            times[peer].append(worker.time())
    for worker in workers.values():
        worker.close()
    return {
        "ms": {peer: 1e3 * statistics.median(values) for peer, values in times.items()},
        "turns": min(map(len, times.values()), default=0),
        "notes": {peer: worker.note for peer, worker in workers.items() if worker.note},
        "absent": absent,
    }


def row_of(problem: registry.Problem, found: dict[str, Any], limits: dict[str, float]) -> Any:
    """The table's row: milliseconds, ratios and the share of the machine's limit."""
    moved, flops = registry.TASKS[problem.task].work(problem)
    reading, multiplying = 1e3 * moved / limits["read"], 1e3 * flops / limits[problem.dtype]
    floor = max(reading, multiplying)
    ms, ours = found["ms"], found["ms"]["fastsoftmax"]
    if "copy" in ms:  # the limit is a plain copy; of half of it, without a result
        floor = reading if problem.task.startswith("logsumexp") else ms["copy"]
    return {
        "problem": problem.name,
        "shape": problem.shape,
        "dtype": problem.dtype,
        "floor_ms": floor,
        "ns_per_element": 1e6 * ours / float(np.prod(problem.shape)),
        "bound_by": "memory" if reading > multiplying else "fma",
        "share_of_limit": floor / ours,
        "ratio": {peer: value / ours for peer, value in ms.items() if peer != "fastsoftmax"},
        **found,
    }


def table(name: str, rows: list[Any]) -> list[str]:
    """A task's table."""
    task = registry.TASKS[name]
    copied = any("copy" in row["ms"] for row in rows)
    peers = [p for p in task.peers if any(p in row["ms"] for row in rows)]
    others = [p for p in peers if p != "fastsoftmax"]
    heads = ["shape", "dtype", "turns", "ns an element" if copied else "floor", "share"]
    lines = ["", f"### {name}", "", "| " + " | ".join([*heads, "fastsoftmax", *others]) + " |"]
    lines += ["|---" * (6 + len(others)) + "|"]
    for row in rows:
        cells = [
            "(" + ", ".join(f"{n:,}" for n in row["shape"]) + ")",
            row["dtype"],
            str(row["turns"]),
            f"{row['ns_per_element'] if copied else row['floor_ms']:.3g}",
            f"{100 * row['share_of_limit']:.0f} %",
            f"**{shown(row['ms']['fastsoftmax'])}**",
        ]
        for peer in others:
            note = f"; {row['notes'][peer]}" if peer in row["notes"] else ""
            known = peer in row["ms"]
            cells += [
                f"{shown(row['ms'][peer])} ({row['ratio'][peer]:.1f}x{note})" if known else ""
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def shown(ms: float) -> str:
    return f"{ms:.3g}" if ms < 100 else f"{ms:,.0f}"


def markdown(report: dict[str, Any]) -> str:
    """The report as tables: one a task."""
    limits, ours = report["limits"], report["machine"]
    lines = [
        f"{ours['cpu']}, {ours['threads']} threads, {ours['date']}. Read bandwidth "
        f"{limits['read'] / 1e9:.1f} GB/s, multiply-add peak {limits['float32'] / 1e9:.0f} GFLOP/s "
        f"in float32 and {limits['float64'] / 1e9:.0f} in float64, all measured in this run.",
        "",
        "Milliseconds, medians of the number of turns given, and in brackets how many times as "
        "long as fastsoftmax. Each peer has a process of its own and all threads, and its result "
        f"was checked before it was timed; turns are {machine.PAUSE} s apart. Of linear problems "
        "the floor is the time to read the data once or to do the products at the peak, whichever "
        "is longer; of rows of logits the share is that of a plain copy (of reading once, for "
        "logsumexp).",
    ]
    for task in registry.TASKS:
        rows = [row for row in report["rows"] if row["problem"].startswith(f"{task}-")]
        if rows:
            run = (f"- {peer}: {text}" for peer, text in registry.TASKS[task].about().items())
            # What is the same as in a table before is not said again.
            lines += [*table(task, rows), "", *(line for line in run if line not in lines)]
    absent = {f"{peer}: {why}" for row in report["rows"] for peer, why in row["absent"].items()}
    if absent:
        lines += ["", "Left out: " + "; ".join(sorted(absent)) + "."]
    return "\n".join([*lines, "", machine.foot(ours), ""])


def raise_limits(limits: dict[str, float]) -> None:
    """Measure the ceilings again before each problem and keep the best: neighbours make noise."""
    limits["read"] = max(limits["read"], ceilings.read_bandwidth())
    for dtype in registry.DTYPES:
        limits[dtype] = max(limits[dtype], ceilings.multiply_add_peak(dtype))


def draw(report: dict[str, Any], directory: Path) -> None:
    """Draw each task of a report, where matplotlib is installed."""
    if not importlib.util.find_spec("matplotlib"):
        print('no pictures: they need matplotlib, pip install "fastsoftmax[bench]"')
        return
    import pictures

    for picture in pictures.report(report, directory):
        print(f"drawn: {picture}")


def draw_again(directory: Path, only: str) -> None:
    """Draw what the JSON files of a folder hold, if their names contain ``only``."""
    for path in sorted(directory.glob(f"*{only}*.json")):
        report = json.loads(path.read_text())
        if "problem" in report.get("rows", [{}])[0]:
            draw(report, directory)


def main(arguments: list[str] | None = None) -> Path:
    """Measure, and return where the tables were written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each task's first shape in float32")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--turns", type=int, default=11, help="at most; long problems have fewer")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--name", default="report")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)  # few rows
    parser.add_argument("--draw", action="store_true", help="only draw again what was measured")
    options = parser.parse_args(arguments)
    if options.draw:
        draw_again(options.output, options.only)
        return options.output
    limits = {"read": 0.0, "float32": 0.0, "float64": 0.0}
    report = {"machine": machine.description(), "limits": limits, "rows": []}
    measured = []
    for problem in registry.PROBLEMS:
        task = registry.TASKS[problem.task]
        first = problem.shape == task.shapes[0] and problem.dtype == task.dtypes[0]
        if options.only not in problem.name or (options.quick and not first):
            continue
        sized = problem.scaled(0.001) if options.smoke else problem
        raise_limits(limits)
        measured.append((sized, measure(sized, options.turns)))
        report["rows"] = [row_of(*one, limits) for one in measured]
        row = report["rows"][-1]
        others = ", ".join(f"{peer} {ratio:.2f}x" for peer, ratio in row["ratio"].items())
        print(f"{sized.name}: {row['ms']['fastsoftmax']:.2f} ms; {others}", flush=True)
        options.output.mkdir(parents=True, exist_ok=True)
        target = options.output / options.name
        target.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        target.with_suffix(".md").write_text(markdown(report))
    written = options.output / f"{options.name}.md"
    print(f"written: {written}")
    draw(report, options.output)
    return written


if __name__ == "__main__":
    main()
