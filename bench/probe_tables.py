"""The report of probe.py: what its parts found, kept as JSON and written as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
from memory import MIB
from probe_data import WRONG

OURS = "fastsoftmax LogisticRegression"


def lowest(points: list[Any], seconds: float) -> float:
    """The lowest loss that had been reached by then."""
    return min((loss for when, loss in points if when <= seconds), default=math.inf)


def shown(number: float, form: str) -> str:
    return f"{number:{form}}" if math.isfinite(number) else "–"


def whole_table(found: dict[str, Any]) -> Iterator[str]:
    yield (
        "C | seconds | CPU seconds | iterations | passes | grew by | test accuracy | loss | excess "
        "| at most |"
    )
    for row in found["rows"]:
        excess = "" if row["best"] is None else f"{row['loss'] / row['best'] - 1:.1e}"
        yield (
            f"{row['C']:g} | {row['seconds']:.4g} | {row['cpu']:.4g} | {row['iterations']} | "
            f"{row['passes']} | {row['grown'] / MIB:,.0f} | {row['accuracy']:.4f} | "
            f"{row['loss']:.7g} | {excess} | {row['most']:.1e} |"
        )


def quarter_table(found: dict[str, Any]) -> Iterator[str]:
    rows = {name: row for name, row in found["rows"].items() if "failed" not in row}
    limit, ours = found["options"]["seconds"], rows.get(OURS, {"seconds": math.inf, "points": []})
    ends = [lowest(row["points"], math.inf) for row in rows.values()]
    best = min([*ends, *(row["best"] for row in rows.values() if row.get("best"))], default=0)
    yield (
        f"solver | ended after | because | iterations | passes | grew by | excess at {limit:g} s | "
        f"excess at {shown(ours['seconds'], '.3g')} s | ours was there after |"
    )
    for name, row in found["rows"].items():
        if "failed" in row:
            yield f"{name} | {row['failed']} |" + " |" * 7
            continue
        end = lowest(row["points"], limit)
        excesses = (lowest(row["points"], when) / best - 1 for when in (limit, ours["seconds"]))
        there = next((when for when, loss in ours["points"] if loss <= end), math.inf)
        yield (
            f"{name} | {row['seconds']:.3g} | {row['why']} | {row['iterations']} | {row['passes']} "
            f"| {row['grown'] / MIB:,.0f} | "
            f"{' | '.join(shown(e, '.1e') for e in excesses)} | {shown(there, '.3g')} |"
        )


HEADS = {
    "whole": "All rows in float16. Each C begins with the coefficients of the one before. The "
    "excess is that of the loss, relatively, over the end of a run from there to a hundredth of "
    "`tol`. The optimum is at most so far below as the last column says, by ‖∇J‖² / 4λ at the end "
    "of that run, or of the fit where there was none, b being taken for the best with its W.",
    "quarter": "The first quarter of the rows in float32, one C. Losses are those that each solver "
    "computes as it goes; ours at its end agrees with NumPy's in float64. The excess is relative, "
    "over the lowest loss of all, and of ours gone on with to a hundredth of `tol` where the "
    "options say excess; – stands for no loss yet, or for one that ours did not see.",
}
TABLES = {"whole": whole_table, "quarter": quarter_table}


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "# A linear probe",
        "",
        "Features like those of an image network, made up: classes around centres that overlap, "
        f"correlated features of unequal scales, {WRONG:.0%} of the labels drawn at random. "
        "Solvers ran in processes of their own, X in memory, kernels and libraries loaded. A pass "
        "is an evaluation, a Hessian product or a diagonal of the Hessian; what else "
        "preconditioners are made of is not counted. Memory is the growth of the peak "
        "beyond X in one fit, in MiB.",
        "",
    ]
    for part in filter(results.get, TABLES):
        found = results[part]
        on, options = found["machine"], found["options"]
        said = ", ".join(f"{key} {value}" for key, value in options.items())
        header, *rows = TABLES[part](found)
        lines += [
            f"## {part.capitalize()}: {found['shape']}",
            "",
            f"{on['cpu']}, {on['threads']} threads, {on['date']}; {said}; X takes "
            f"{found['bytes'] / MIB:,.0f} MiB. {HEADS[part]}",
            "",
            f"| {header}",
            "|---" * header.count("|") + "|",
            *(f"| {row}" for row in rows),
            "",
        ]
    return "\n".join([*lines, machine.foot(on), ""])


def keep(target: Path, part: str, found: dict[str, Any]) -> None:
    """Put what was found into the results, beside the other part."""
    file = target.with_suffix(".json")
    results = (json.loads(file.read_text()) if file.exists() else {}) | {part: found}
    file.write_text(json.dumps(results) + "\n")
    target.with_suffix(".md").write_text(markdown(results))
