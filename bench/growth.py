"""Time per row as N, D and K grow: ``python bench/growth.py``; ``--draw`` draws the figures again.

Along each line one of the three grows and the others stay; nowhere should a cliff stand. Peers run
as in grid.py. Writes results/growth.json and growth.svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import grid
import grid_points
import machine
import pictures


def measure(turns: int, most: int, kept: Path) -> None:
    """Measure every line, at most so many of its shapes, and keep the results as they come."""
    results: dict[str, Any] = {"machine": machine.description(), "dtype": "float32", "lines": {}}
    for letter, shapes in grid_points.LINES.items():
        rows = results["lines"][letter] = []
        for shape in shapes[:most]:
            rows.append(grid.measure(shape, results["dtype"], turns))
            print(shape, {peer: round(ms, 4) for peer, ms in rows[-1]["ms"].items()}, flush=True)
            kept.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="draw growth.json again, no new run")
    parser.add_argument("--points", type=int, default=99, help="of each line, the smallest ones")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    kept = options.output / "growth.json"
    if not options.draw:
        options.output.mkdir(parents=True, exist_ok=True)
        measure(options.turns, options.points, kept)
    print(f"drawn: {pictures.growth(json.loads(kept.read_text()), options.output)}")


if __name__ == "__main__":
    main()
