"""The command ``evaluate``: how well a model does on data of any size, chunk by chunk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from rich.table import Table

from fastsoftmax.cli._console import out
from fastsoftmax.cli._model_files import SavedModel, load_model
from fastsoftmax.sources import ChunkSource, has_columns, open_source

DATA = "A .parquet, .csv, .npy, .npz or svmlight file, or a directory of .parquet or .npy files."


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help=DATA)],
    target: Annotated[str | None, typer.Option(help="Label column.")] = None,
) -> None:
    """Accuracy and log-loss of a model on labelled data."""
    saved = load_model(model)
    result = score(saved.model, open_for(saved, data, target, labelled=True))
    table = Table("measure", "value", title=str(data))
    table.add_row("rows", f"{result.n_rows:,}")
    table.add_row("accuracy", f"{result.accuracy:.4f}")
    table.add_row("log-loss", f"{result.log_loss:.4f}")
    out.print(table)


def open_for(saved: SavedModel, data: Path, target: str | None, labelled: bool) -> ChunkSource:
    """Open a data set that a model is to be applied to."""
    names = None
    if has_columns(data):
        target, names = target or saved.target, saved.feature_names
    source = open_source(data, target, names, labelled=labelled)
    width = saved.model.n_features_in_
    if source.has_open_width and source.n_features < width:
        source.n_features = width
    if source.n_features != width:
        raise ValueError(f"{data}: expected {width} features, got {source.n_features}")
    source.dtype = saved.model.coef_.dtype
    return source


class Score(NamedTuple):
    """How well a model does; the log-loss is infinite for a class the model does not know."""

    n_rows: int
    accuracy: float
    log_loss: float


def score(model: Any, source: ChunkSource) -> Score:
    """Stream labelled rows past a classifier of scikit-learn's kind."""
    numbers = _numbers(source.classes, model.classes_)
    n_rows = correct = 0
    losses = []
    for X, codes in source():
        log_p, truth = model.predict_log_proba(X), numbers[codes]
        n_rows += len(truth)
        correct += int((log_p.argmax(axis=1) == truth).sum())
        of_truth = np.take_along_axis(log_p, np.maximum(truth, 0)[:, None], axis=1)[:, 0]
        losses.append(-float(np.where(truth < 0, -np.inf, of_truth).sum(dtype=np.float64)))
    return Score(n_rows, correct / n_rows, math.fsum(losses) / n_rows)


def _numbers(classes: npt.NDArray[Any], known: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the number of each class among the known ones, -1 where it is not one of them."""
    if (classes.dtype.kind in "US") != (known.dtype.kind in "US"):
        return np.full(len(classes), -1)
    numbers = np.minimum(np.searchsorted(known, classes), len(known) - 1)
    return np.where(known[numbers] == classes, numbers, -1)
