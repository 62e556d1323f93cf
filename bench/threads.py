"""Evaluations on 1, 2, 4, ... threads, as many as the machine has: ``python bench/threads.py``.

The shapes of the tasks linear and batches, and functions of rows of logits. One process, in which
`numba.set_num_threads` sets the number and nobody else computes; the numbers take turns. Every
number must give the same bits. Writes results/threads.md and threads.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ceilings
import machine
import numba
import numpy as np
import registry

ROWS = ("softmax-axis1", "logsumexp-axis1", "cross_entropy")
# A turn lasts at least so long, in seconds, or one run.
TURN = 0.005


def problems(quick: bool) -> Iterator[registry.Problem]:
    for problem in registry.PROBLEMS:
        if problem.task in ("linear", "batches") or (
            problem.task in ROWS and problem.dtype == "float32"
        ):
            yield problem.scaled(0.01) if quick else problem


def counts() -> list[int]:
    """Powers of two, and all threads."""
    powers = (2**i for i in range(10))
    return sorted({n for n in powers if n < machine.N_THREADS} | {machine.N_THREADS})


def measure(problem: registry.Problem, turns: int) -> dict[str, Any]:
    """Median milliseconds on each number of threads, and the limit of one of them and of all."""
    run = registry.TASKS[problem.task].peers["fastsoftmax"](
        registry.TASKS[problem.task].make(problem)
    )
    time.sleep(machine.PAUSE)  # making the data left BLAS's threads spinning
    bits, times = set(), {n: [] for n in counts()}
    for n in times:
        numba.set_num_threads(n)
        bits.add(b"".join(np.asarray(part).tobytes() for part in run()))
    assert len(bits) == 1, f"{problem.name}: the bits depend on the number of threads"
    del bits
    for _ in range(turns):
        for n, found in times.items():
            numba.set_num_threads(n)
            found.append(_seconds(run))
    return {
        "problem": problem.name,
        "shape": problem.shape,
        "dtype": problem.dtype,
        "turns": turns,
        "ms": {n: 1e3 * statistics.median(found) for n, found in times.items()},
    }


def _seconds(run: registry.Run) -> float:
    """Seconds of one of several runs, after one that wakes the threads and is not counted."""
    started = time.perf_counter()
    run()
    repeats = max(1, min(int(TURN / (time.perf_counter() - started)), 1000))
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats


def limits() -> dict[str, dict[int, float]]:
    """What memory and the vector units allow, on one thread up to all."""
    found: dict[str, dict[int, float]] = {"read": {}, "float32": {}, "float64": {}}
    for n in counts():
        numba.set_num_threads(n)
        found["read"][n] = ceilings.read_bandwidth()
        for dtype in registry.DTYPES:
            found[dtype][n] = ceilings.multiply_add_peak(dtype)
    return found


def markdown(results: dict[str, Any]) -> str:
    on, numbers = results["machine"], [str(n) for n in results["threads"]]
    lines = [
        f"{on['cpu']}, {on['threads']} threads, {on['date']}.",
        "",
        "Milliseconds, medians; in brackets how many times as fast as on one thread, and what "
        "share that is of the number of threads. The numbers of threads take turns in one process, "
        "and all of them gave the same bits. Below stands how the machine's own limits grow, on "
        "threads of Numba.",
        "",
        "| | dtype | " + " | ".join(numbers) + " |",
        "|---" * (2 + len(numbers)) + "|",
    ]
    for row in results["rows"]:
        ms = {str(n): value for n, value in row["ms"].items()}
        shape = f"({', '.join(f'{n:,}' for n in row['shape'])})"
        cells = [f"{ms[n]:.3g}{_gain(ms['1'] / ms[n], int(n))}" for n in numbers]
        lines.append(
            f"| {row['problem'].split('-')[0]} {shape} | {row['dtype']} | {' | '.join(cells)} |"
        )
    for name, values in results["limits"].items():
        known = {str(n): value for n, value in values.items()}
        cells = [f"{known[n] / 1e9:.0f}{_gain(known[n] / known['1'], int(n))}" for n in numbers]
        label = "reading, GB/s | |" if name == "read" else f"multiply-adds, GFLOP/s | {name} |"
        lines.append(f"| {label} {' | '.join(cells)} |")
    return "\n".join([*lines, "", machine.foot(on), ""])


def _gain(faster: float, n: int) -> str:
    return f" ({faster:.2f}x, {100 * faster / n:.0f} %)" if n > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "machine": machine.description(),
        "threads": counts(),
        "limits": limits(),
        "rows": [],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for problem in problems(options.quick):
        if options.only not in problem.name:
            continue
        results["rows"].append(measure(problem, options.turns))
        print(problem.name, results["rows"][-1]["ms"], flush=True)
        (options.output / "threads.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.output / "threads.md").write_text(markdown(results))


if __name__ == "__main__":
    main()
