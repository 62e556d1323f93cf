"""The command ``evaluate``: how well a model does on data of any size, chunk by chunk."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from fastsoftmax.cli._console import err, out, print_table, printable, readable
from fastsoftmax.cli._files import check_apart
from fastsoftmax.cli._model_files import SavedModel, load_model
from fastsoftmax.cli._plots import PlotOption, check_plot, write_plot
from fastsoftmax.cli._scores import Score, score
from fastsoftmax.cli._tables import warn_of_unseen
from fastsoftmax.sources import ChunkSource, open_source
from fastsoftmax.sources._formats import TABLES, Format, file_format
from fastsoftmax.sources._labels import describe

DATA = (
    "A .parquet, .csv, .tsv, .npy, .npz or svmlight file, text also compressed, or a directory of "
    ".parquet or .npy files."
)
# Of more classes than the former only the latter number are shown, with names this long.
_MOST_CLASSES, _FEW_CLASSES, _NAME_LENGTH = 20, 10, 40
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Format, where the name does not tell it.")
]
ZeroBasedOption = Annotated[
    bool | None, typer.Option("--zero-based/--one-based", help="How svmlight columns are counted.")
]


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help=DATA)],
    target: Annotated[str | None, typer.Option(help="Label column.")] = None,
    format: FormatOption = None,
    zero_based: ZeroBasedOption = None,
    plot: PlotOption = None,
) -> None:
    """Accuracy and log-loss of a model on labelled data, recall and precision of each class."""
    if plot is not None:
        check_plot(plot, [model])
    saved = load_model(model)
    source = open_for(saved, data, target, zero_based, format=format, labelled=True)
    if plot is not None:
        check_apart(plot, source.files)
    unknown = source.use_classes(saved.model.classes_)
    if len(unknown):
        err.print(
            f"warning: {data}: labels that are none of the model's classes, "
            f"{describe(source.classes)}: {describe(unknown)}"
        )
    result = score(saved.model, source)
    warn_of_unseen(source)
    rows = {"rows": f"{result.n_rows:,}", "accuracy": f"{result.accuracy:.4f}"}
    print_table(str(data), {**rows, "log-loss": f"{result.log_loss:.4f}"})
    _print_classes(result)
    if plot is not None:
        write_plot(plot, str(data), result)


def _print_classes(result: Score) -> None:
    """Print recall and precision of each class, of many classes only those of the weakest."""
    n_classes, shown = len(result.classes), range(len(result.classes))
    title, caption = "classes", None
    if n_classes > _MOST_CLASSES:
        title = f"the {_FEW_CLASSES} of {n_classes:,} classes with the lowest F1"
        caption = f"{n_classes - _FEW_CLASSES:,} classes are not shown"
        shown = result.weakest(_FEW_CLASSES).tolist()
    table = Table("class", title=title, caption=caption)
    for name in ("recall", "precision", "F1", "rows"):
        table.add_column(name, justify="right")
    measures = np.stack([result.recall, result.precision, result.f1], axis=1)
    for i in shown:
        cells = ["–" if np.isnan(value) else f"{value:.4f}" for value in measures[i]]
        cells = [readable(result.classes[i], _NAME_LENGTH), *cells, f"{result.rows[i]:,}"]
        table.add_row(*map(printable, cells))
    out.print(table)


def open_for(
    saved: SavedModel, data: Path, target: str | None, zero_based: bool | None, **options: Any
) -> ChunkSource:
    """Open a data set that a model is to be applied to, by what the model says of its own."""
    if file_format(data, options["format"]) in TABLES:
        target = target or saved.target
    counted = saved.zero_based if zero_based is None else zero_based
    options |= {"zero_based": "auto" if counted is None else counted, "columns": saved.columns}
    source = open_source(data, target, n_features=saved.model.n_features_in_, **options)
    names = source.feature_names
    if saved.feature_names and names and names != saved.feature_names:
        raise ValueError(f"{data}: expected the features {saved.feature_names}, got {names}")
    source.dtype = saved.model.coef_.dtype
    return source
