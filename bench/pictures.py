"""Pictures of what was measured, by matplotlib, from the JSON files that the benchmarks write."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

# Colours that colour-blind readers tell apart (Okabe and Ito's), one for each library.
COLOURS = {
    "fastsoftmax": "#000000",
    "NumPy": "#999999",
    "SciPy": "#F0E442",
    "scikit-learn": "#E69F00",
    "torch": "#D55E00",
    "torch compiled": "#CC79A7",
    "torch chunked": "#8B3A00",
    "torch linear_cross_entropy": "#8B3A00",  # its name in older files
    "JAX": "#0072B2",
    "sklearnex": "#009E73",
    "onnxruntime": "#56B4E9",
    "copy": "#DDDDDD",
}
# An opaque white ground is read on light and dark pages alike. The same figures, the same file.
STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.hashsalt": "fastsoftmax",
}
LIMIT = "#C00000"


def report(report: dict[str, Any], target: Path) -> list[Path]:
    """A picture of each task of a report, as bars; returns the files."""
    tasks: dict[str, list[Any]] = {}
    for row in report["rows"]:
        tasks.setdefault(row["problem"].rsplit("-", 2)[0], []).append(row)
    return [_bars(task, rows, report, target) for task, rows in tasks.items()]


def _bars(task: str, rows: list[Any], report: dict[str, Any], target: Path) -> Path:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(dtypes), 1, figsize=(11, 3.1 * len(dtypes) + 1.5), squeeze=False, sharey=True
        )
        handles: dict[str, Any] = {}
        for axes, dtype in zip(panels[:, 0], dtypes, strict=True):
            _panel(axes, [row for row in rows if row["dtype"] == dtype], handles)
            axes.set_title(dtype, loc="left", fontweight="bold")
        panels[0, 0].set_ylim(*_range(rows))
        figure.suptitle(
            f"{task}: time as a multiple of fastsoftmax's (bars above 1 are slower, below 1 faster)"
        )
        return _finish(figure, handles, report, target / f"{task}.svg")


def _range(rows: list[Any]) -> tuple[float, float]:
    values = [value for row in rows for value in (*row["ratio"].values(), row["share_of_limit"])]
    return min(min(values), 1) / 1.25, max(max(values), 1) * 1.4


def _panel(axes: Any, rows: list[Any], handles: dict[str, Any]) -> None:
    """A group of bars for each row, all from 1, which is our own time."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row["ratio"]))
    width = 0.86 / max(len(peers), 1)
    for group, row in enumerate(rows):
        best = min((r for p, r in row["ratio"].items() if p != "copy"), default=None)
        for i, peer in enumerate(peers):
            if peer not in row["ratio"]:
                continue
            ratio, at = row["ratio"][peer], group + (i + 0.5) * width - 0.43
            handles[peer] = axes.bar(
                at, ratio - 1, width, 1, color=colour(peer), edgecolor="white", linewidth=0.4
            )
            text = {"weight": "bold", "size": 8} if ratio == best else {"size": 6.5}
            side = "bottom" if ratio >= 1 else "top"
            shift = (0, 1 if ratio >= 1 else -1)
            axes.annotate(
                f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}", (at, ratio), shift,
                textcoords="offset points", ha="center", va=side, **text,
            )  # fmt: skip
        ends = (group - 0.43, group + 0.43)
        handles["fastsoftmax"] = axes.plot(ends, (1, 1), color=colour("fastsoftmax"), lw=2.5)[0]
        share = (row["share_of_limit"],) * 2
        handles["the machine's limit"] = axes.plot(ends, share, color=LIMIT, lw=1.5, ls="--")[0]
    axes.set_yscale("log")
    axes.set_ylabel("times fastsoftmax's time")
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    labels = [
        f"({', '.join(f'{n:,}' for n in row['shape'])})\n"
        f"{row['ms']['fastsoftmax']:.3g} ms, {100 * row['share_of_limit']:.0f} % of the limit"
        for row in rows
    ]
    axes.set_xticks(range(len(rows)), labels, fontsize=8 if len(rows) < 7 else 6)
    axes.set_xlim(-0.6, len(rows) - 0.4)


def growth(results: dict[str, Any], target: Path) -> Path:
    """Time per row along each line on which N, D or K grows."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(results["lines"]), figsize=(11, 4.4))
        handles: dict[str, Any] = {}
        for axes, (letter, rows) in zip(panels, results["lines"].items(), strict=True):
            index = "NDK".index(letter)
            for peer in dict.fromkeys(peer for row in rows for peer in row["ms"]):
                known = [row for row in rows if peer in row["ms"]]
                ours = peer == "fastsoftmax"
                handles[peer] = axes.plot(
                    [row["shape"][index] for row in known],
                    [1e6 * row["ms"][peer] / row["shape"][0] for row in known],
                    color=colour(peer), marker="o", ms=3.5, lw=2.2 if ours else 1.3,
                    zorder=3 if ours else 2,
                )[0]  # fmt: skip
            stay = {name: n for name, n in zip("NDK", rows[0]["shape"], strict=True)}
            del stay[letter]
            fixed = ", ".join(f"{name} = {n:,}" for name, n in stay.items())
            axes.set(xscale="log", yscale="log", xlabel=letter, title=f"{letter} grows; {fixed}")
            axes.grid(color="#E5E5E5", linewidth=0.6)
        panels[0].set_ylabel("nanoseconds a row")
        figure.suptitle(f"Loss and gradients, {results['dtype']}: time per row")
        return _finish(figure, handles, results, target / "growth.svg")


def colour(peer: str) -> str:
    """The library's colour; of a peer that is not known, that of the name it begins with."""
    known = [name for name in COLOURS if peer.lower().startswith(name.lower())]
    return COLOURS[max(known, key=len)] if known else "#444444"


def caption(report: dict[str, Any]) -> str:
    """The machine, its limits where they were measured, and the versions."""
    on = report.get("machine", report)  # older files have no part of this name
    text = f"{on['cpu']}, {on['threads']} threads, {on['date']}."
    if limits := report.get("limits"):
        text += (
            f" The limit: reading the data once at {limits['read'] / 1e9:.0f} GB/s or the products "
            f"at {limits['float32'] / 1e9:.0f} (float64: {limits['float64'] / 1e9:.0f}) GFLOP/s, "
            "whichever takes longer; of rows of logits, a plain copy."
        )
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    return f"{text} Medians; each library in a process of its own, on all threads. {versions}."


def _finish(figure: Any, handles: dict[str, Any], report: dict[str, Any], target: Path) -> Path:
    lines = textwrap.wrap(caption(report), 205)
    height = figure.get_figheight()
    bottom = 0.17 * len(lines) / height
    figure.text(0.01, 0.05 / height, "\n".join(lines), fontsize=7.5, color="#444444", va="bottom")
    order = sorted(handles, key=lambda name: name != "fastsoftmax")
    figure.legend(
        [handles[name] for name in order], order, ncols=len(order), frameon=False, fontsize=8,
        loc="lower center", bbox_to_anchor=(0.5, bottom + 0.03 / height), columnspacing=1.2,
    )  # fmt: skip
    figure.tight_layout(rect=(0, bottom + 0.3 / height, 1, 1))
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
    return target
