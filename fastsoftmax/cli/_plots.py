"""Pictures of how well a model does, and of how it was trained, by matplotlib without pyplot."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from fastsoftmax.cli._console import err, out, printable, readable
from fastsoftmax.cli._files import check_apart, check_writable, replacing
from fastsoftmax.cli._scores import Score

PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Where to draw pictures: an .svg or .png file.")
]

_FORMATS = {".svg": "svg", ".png": "png"}
# Names of classes are as long as this, and so many fit beside a picture.
_NAME_LENGTH, _MOST_NAMES = 16, 30
_MOST_NUMBERS = 16  # of more classes the cells of the confusion matrix are too small for numbers
_INCHES, _ROW_INCHES, _DPI = 16, 5.6, 150
# The ground is opaque, so that pictures can be read on dark pages as well.
_STYLE: dict[str, Any] = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "savefig.transparent": False,
    "font.size": 9, "axes.titlesize": 11, "axes.axisbelow": True,
    # Text stays text, in which a viewer can search; the same numbers make the same file.
    "svg.fonttype": "none", "svg.hashsalt": "fastsoftmax",
}  # fmt: skip
_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d95f02", "#8c8c8c"  # told apart by the colour-blind as well


class Curve(NamedTuple):
    """The passes so far, the loss and the largest gradient entry at each iteration; the goal."""

    points: list[tuple[int, float, float]]
    goal: float


def check_plot(path: Path, read: Iterable[Path]) -> None:
    """Find out before the work whether pictures can be drawn and written."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: expected {' or '.join(_FORMATS)} as the suffix of --plot")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError('--plot needs matplotlib: pip install "fastsoftmax[plot]"') from error
    check_writable(path)
    check_apart(path, read)


def write_plot(path: Path, title: str, result: Score, curve: Curve | None = None) -> None:
    """Draw a score, and how the model was trained if that is known, to a file."""
    import matplotlib
    from matplotlib.figure import Figure

    written = _FORMATS[path.suffix.lower()]
    names = [readable(label, _NAME_LENGTH) for label in result.classes]
    title = f"{readable(title, 100)}: accuracy {result.accuracy:.4f} on {result.n_rows:,} rows"
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # whatever style its user has chosen elsewhere
        # Characters that no font has are told of in one line.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        families, missing = _find_fonts({*"".join(names), *title})
        parameters: Any = matplotlib.rcParams
        parameters.update(_STYLE | {"font.family": families})
        n_lines = 1 if curve is None else 2
        # A figure without pyplot has the canvas of no screen.
        figure = Figure((_INCHES, _ROW_INCHES * n_lines), dpi=_DPI, layout="constrained")
        figure.suptitle(title, parse_math=False, fontsize=13)
        lines: Any = figure.subfigures(n_lines, squeeze=False)[:, 0]
        confusion, classes, calibration = lines[0].subplots(1, 3)
        _draw_confusion(lines[0], confusion, result, names)
        _draw_classes(classes, result, names)
        _draw_calibration(calibration, result, names)
        if curve is not None:
            loss, gradient = lines[1].subplots(1, 2)
            _draw_curve(loss, gradient, curve)
        # The date would make another file of the same numbers.
        metadata = {"Date": None} if written == "svg" else {}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=written, dpi=_DPI, metadata=metadata)
    if missing and written == "png":
        some = " ".join(sorted(missing)[:10])
        err.print(f"warning: {path}: no font here has {some}: an .svg file is drawn with the fonts "
                  "of its viewer")  # fmt: skip
    out.print(f"pictures written to {printable(str(path))}")


def _find_fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Return fonts that have these characters between them, and the characters that none has."""
    from matplotlib import font_manager

    families, missing = ["DejaVu Sans"], characters
    first = font_manager.FontProperties(family=families)
    files: list[Any] = [(families[0], font_manager.findfont(first))]
    files += [(font.name, font.fname) for font in font_manager.fontManager.ttflist]
    for family, file in files:
        if not missing:
            break
        if family.startswith("Last Resort"):  # which has a box for every character
            continue
        try:
            found = set(map(chr, font_manager.get_font(file).get_charmap())) & missing
        except (OSError, RuntimeError):  # removed, or damaged
            continue
        if found:
            families.append(family)
            missing = missing - found
    return list(dict.fromkeys([*families, "sans-serif"])), missing


def _draw_confusion(figure: Any, axes: Any, result: Score, names: list[str]) -> None:
    """Draw which share of the rows of each class were predicted to be of each."""
    from matplotlib.colors import PowerNorm

    counts, group, n = result.confusion, result.group_size, len(result.confusion) - 1
    rows = names[::group]
    if counts[-1].any():
        rows = [*rows, "(other labels)"]
    counts = counts[: len(rows)]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    # Few confusions show where colours differ most for small shares.
    norm = PowerNorm(0.5, 0, 1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, aspect="auto")
    figure.colorbar(image, ax=axes, label="share of the rows of a true class", aspect=40)
    for place, labels in ((axes.xaxis, names[::group]), (axes.yaxis, rows)):
        shown = range(0, len(labels), -(-len(labels) // _MOST_NAMES))
        place.set_ticks(shown, [labels[i] for i in shown], parse_math=False)
    if n * max(map(len, names)) > _MOST_NAMES:
        axes.tick_params(axis="x", rotation=90)
    if n <= _MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if norm(shares[i, j]) > 0.6 else "black"
            text = f"{count:,}" if n <= 3 and count < 10**7 else _short(count)
            axes.text(j, i, text if count else "", ha="center", va="center", color=colour,
                      fontsize=11 if n <= 6 else 7)  # fmt: skip
    together = f", {group} neighbouring classes a cell" * (group > 1)
    axes.set(xlabel="predicted class", ylabel="true class", title=f"Confusion matrix{together}")


def _draw_classes(axes: Any, result: Score, names: list[str]) -> None:
    """Draw recall and precision of each class, of many classes only those of the weakest."""
    shown, title = np.arange(len(names)), "Recall and precision (rows)"
    if len(names) > _MOST_NAMES:
        shown = result.weakest(_MOST_NAMES)
        title += f"\nof the {_MOST_NAMES} of {len(names):,} classes with the lowest F1"
    recall, precision, places = result.recall[shown], result.precision[shown], range(len(shown))
    axes.hlines(places, recall, precision, color=_GREY, linewidth=1)
    # One can be seen around the other.
    for name, values, style in (
        ("recall", recall, {"marker": "o", "markersize": 8, "mfc": "none", "color": _BLUE}),
        ("precision", precision, {"marker": "D", "markersize": 4, "color": _ORANGE}),
    ):
        axes.plot(values, places, linestyle="none", label=name, clip_on=False, **style)
    labels = []
    for i, place in zip(shown, places, strict=True):
        labels.append(f"{names[i]} ({_short(result.rows[i])})")
        # Of a class that never occurs there is no recall, of one never predicted no precision.
        lacks = ("recall –", result.rows[i]), ("precision –", result.predicted[i])
        text = "   ".join(name for name, count in lacks if count == 0)
        axes.text(0.02, place, text, color=_GREY, fontsize=8, va="center")
    axes.set_yticks(places, labels, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.5), title=title)
    _finish(axes)


def _draw_calibration(axes: Any, result: Score, names: list[str]) -> None:
    """Draw how often rows are of a class against the probability it was given."""
    predicted, observed, share = result.calibration()
    axes.bar(predicted, share, 0.03, color=_GREY, alpha=0.4, label="share of all rows")
    axes.plot([0, 1], [0, 1], "--", color=_GREY, label="as predicted")
    axes.plot(predicted, observed, "o-", color=_BLUE, label="observed", clip_on=False)
    which = "the predicted class" if len(names) > 2 else f'class "{names[1]}"'
    axes.set_xlabel(f"probability of {which}, mean of a bin", parse_math=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of rows of that class", title="Calibration")
    _finish(axes)


def _draw_curve(left: Any, right: Any, curve: Curve) -> None:
    """Draw loss and gradient by pass."""
    passes, losses, norms = np.array(curve.points, dtype=float).reshape(-1, 3).T
    style = {"marker": "o", "markersize": 3, "color": _BLUE}
    left.plot(passes, losses, **style)
    left.set(xlabel="passes over the data", ylabel="loss, penalty included", title="Loss")
    right.plot(passes, norms, **style, label="largest entry")
    if curve.goal > 0:
        right.axhline(curve.goal, linestyle="--", color=_GREY, label=f"goal {curve.goal:.0e}")
    if (norms > 0).any():
        right.set_yscale("log")
    right.set(xlabel="passes over the data", ylabel="|gradient|", title="Gradient")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)


def _finish(axes: Any) -> None:
    """Add a grid, and a legend below, where nothing is drawn."""
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)


def _short(count: Any) -> str:
    """Return a number of rows in at most four characters, up to a thousand million of them."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # What is rounded to a thousand is one of the next unit.
        if count >= unit * 0.9995:
            return f"{count / unit:.{int(count < 9.95 * unit)}f}{name}"
    return f"{count}"
