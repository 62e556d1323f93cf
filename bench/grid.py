"""Shapes that nobody tuned for, beside the best of the peers: ``python bench/grid.py``.

About sixty of them, drawn once with a fixed seed (grid_points.py), float32 and float64. Each peer
has a process of its own and its result is checked before it is timed. ``--points 12`` takes the
first twelve for a quick look. Writes results/grid.md and grid.json, after each point anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import grid_points
import machine
import registry
import report

# What the project promises of every point, and what it must never fall below.
WANTED, EQUAL = 1.3, 1.0


def measure(shape: grid_points.Shape, dtype: str, turns: int) -> dict[str, Any]:
    """A point's row: everybody's milliseconds, and the best peer beside ours."""
    problem = registry.Problem("grid", shape, dtype)
    found = report.measure(problem, turns, grid_points.peers(shape))
    others = {peer: ms for peer, ms in found["ms"].items() if peer != "fastsoftmax"}
    row = {"shape": shape, "dtype": dtype, **found}
    if "fastsoftmax" in found["ms"] and others:
        best = min(others, key=others.__getitem__)
        row |= {"best": best, "ratio": others[best] / found["ms"]["fastsoftmax"]}
    return row


def summary(rows: list[Any]) -> str:
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if not ratios:
        return "No point was measured."
    under = {limit: sum(ratio < limit for ratio in ratios) for limit in (EQUAL, WANTED)}
    return (
        f"{len(ratios)} points; the best peer takes less than {EQUAL} times as long as fastsoftmax "
        f"at {under[EQUAL]} of them, less than {WANTED} times at {under[WANTED]}; lowest "
        f"{min(ratios):.2f}, geometric mean {statistics.geometric_mean(ratios):.2f}."
    )


def markdown(results: dict[str, Any]) -> str:
    """The points, the worst first."""
    on, rows = results["machine"], results["rows"]
    lines = [
        f"{on['cpu']}, {on['threads']} threads, {on['date']}.",
        "",
        f"**{summary(rows)}**",
        "",
        "Loss and gradients of dense features at shapes that nobody tuned for. Milliseconds, "
        f"medians of the turns given, which are {machine.PAUSE} s apart; in brackets how many "
        "times as long as fastsoftmax. Each peer has a process of its own, and its result was "
        "checked before it was timed. The worst points come first; torch runs in chunks as well "
        "where there are many logits.",
        "",
        "| N, D, K | dtype | turns | best peer's ratio | fastsoftmax | best peer | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.get("ratio", 0.0)):
        lines.append("| " + " | ".join(_cells(row)) + " |")
    lines += ["", "What each runs:", ""]
    lines += [f"- {peer}: {text}" for peer, text in registry.TASKS["grid"].about().items()]
    return "\n".join([*lines, "", machine.foot(on), ""])


def _cells(row: dict[str, Any]) -> list[str]:
    shape, absent = ", ".join(f"{n:,}" for n in row["shape"]), row["absent"]
    missing = [f"{peer}: {why}" for peer, why in absent.items() if why != "not installed"]
    if "ratio" not in row:
        return [shape, row["dtype"], str(row["turns"]), "", "", "", "; ".join(missing)]
    ours, best = row["ms"]["fastsoftmax"], row["best"]
    times = {
        peer: f"{peer} {report.shown(ms)} ({ms / ours:.2f}x)" for peer, ms in row["ms"].items()
    }
    others = [text for peer, text in times.items() if peer not in ("fastsoftmax", best)]
    return [
        shape,
        row["dtype"],
        str(row["turns"]),
        f"**{row['ratio']:.2f}**" if row["ratio"] < WANTED else f"{row['ratio']:.2f}",
        report.shown(ours),
        times[best],
        "; ".join(others + missing),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=grid_points.N_POINTS, help="the first ones")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    started = time.perf_counter()
    results: dict[str, Any] = {"machine": machine.description(), "rows": []}
    for shape, dtype in grid_points.points(options.points):
        row = measure(shape, dtype, options.turns)
        results["rows"].append(row)
        print(f"{time.perf_counter() - started:.0f} s: " + " | ".join(_cells(row)), flush=True)
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "grid.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.output / "grid.md").write_text(markdown(results))
    print(summary(results["rows"]))


if __name__ == "__main__":
    main()
