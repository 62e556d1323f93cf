"""The command ``evaluate``: how well a model does on data of any size, chunk by chunk."""

import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from fastsoftmax.cli._console import err, print_table
from fastsoftmax.cli._model_files import SavedModel, load_model
from fastsoftmax.cli._tables import warn_of_unseen
from fastsoftmax.sources import ChunkSource, open_source
from fastsoftmax.sources._formats import TABLES, Format, file_format
from fastsoftmax.sources._labels import describe, match_labels

DATA = (
    "A .parquet, .csv, .tsv, .npy, .npz or svmlight file, text also compressed, or a directory of "
    ".parquet or .npy files."
)
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
) -> None:
    """Accuracy and log-loss of a model on labelled data."""
    saved = load_model(model)
    source = open_for(saved, data, target, zero_based, format=format, labelled=True)
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


class Score(NamedTuple):
    """How well a model does; the log-loss is infinite for a class the model does not know."""

    n_rows: int
    accuracy: float
    log_loss: float


def score(model: Any, source: ChunkSource) -> Score:
    """Stream labelled rows past a classifier of scikit-learn's kind."""
    # A label that is no class of the source, and has the code -1, is none of the model either.
    numbers = np.append(match_labels(source.classes, model.classes_), -1)
    n_rows = correct = 0
    losses = []
    for X, codes, *_ in source():
        log_p, truth = model.predict_log_proba(X), numbers[codes]
        n_rows += len(truth)
        correct += int((log_p.argmax(axis=1) == truth).sum())
        of_truth = np.take_along_axis(log_p, np.maximum(truth, 0)[:, None], axis=1)[:, 0]
        losses.append(-float(np.where(truth < 0, -np.inf, of_truth).sum(dtype=np.float64)))
    return Score(n_rows, correct / n_rows, math.fsum(losses) / n_rows)
