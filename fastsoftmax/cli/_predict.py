"""The commands ``predict`` and ``evaluate``: a model over data of any size, chunk by chunk."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from rich.table import Table

import fastsoftmax.sources as sources
from fastsoftmax.cli import _model_files
from fastsoftmax.cli._console import out
from fastsoftmax.linear_model import SoftmaxRegression

Array = npt.NDArray[Any]

DATA = "A .parquet, .csv, .npy, .npz or svmlight file, or a directory of .parquet or .npy files."


def predict(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help=DATA)],
    proba: Annotated[bool, typer.Option(help="Probabilities instead of labels.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="File to write to: Parquet for .parquet, otherwise CSV.")
    ] = None,
) -> None:
    """Predict the class of every row."""
    saved = _model_files.load_model(model)
    source = _open(saved, data, None, labelled=False)
    frames = _predictions(saved, source, proba)
    if output is None:
        _write_csv(sys.stdout, frames)
        return
    _model_files.check_writable(output)
    _model_files.check_apart(output, [model, *source.files])
    with _model_files.replacing(output) as temporary:
        (_write_parquet if output.suffix == ".parquet" else _write_csv)(temporary, frames)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help=DATA)],
    target: Annotated[str | None, typer.Option(help="Label column.")] = None,
) -> None:
    """Accuracy and log-loss of a model on labelled data."""
    saved = _model_files.load_model(model)
    result = score(saved.model, _open(saved, data, target, labelled=True))
    table = Table("measure", "value", title=str(data))
    table.add_row("rows", f"{result.n_rows:,}")
    table.add_row("accuracy", f"{result.accuracy:.4f}")
    table.add_row("log-loss", f"{result.log_loss:.4f}")
    out.print(table)


class Score(NamedTuple):
    """How well a model does; the log-loss is infinite for a class the model does not know."""

    n_rows: int
    accuracy: float
    log_loss: float


def score(model: SoftmaxRegression, source: sources.ChunkSource) -> Score:
    """Stream labelled rows past a model."""
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


def _numbers(classes: Array, known: Array) -> Array:
    """Return the number of each class among the known ones, -1 where it is not one of them."""
    if (classes.dtype.kind in "US") != (known.dtype.kind in "US"):
        return np.full(len(classes), -1)
    numbers = np.minimum(np.searchsorted(known, classes), len(known) - 1)
    return np.where(known[numbers] == classes, numbers, -1)


def _open(
    saved: _model_files.SavedModel, data: Path, target: str | None, *, labelled: bool
) -> sources.ChunkSource:
    """Open a data set that a model is to be applied to."""
    if sources.has_columns(data):
        target = (target or saved.target) if labelled else None
        source = sources.open_source(data, target, saved.feature_names, labelled=labelled)
    else:
        source = sources.open_source(data, target, labelled=labelled)
    width = saved.model.n_features_in_
    if source.has_open_width and source.n_features < width:
        source.n_features = width
    if source.n_features != width:
        raise ValueError(f"{data}: expected {width} features, got {source.n_features}")
    source.dtype = saved.model.coef_.dtype
    return source


def _predictions(
    saved: _model_files.SavedModel, source: sources.ChunkSource, proba: bool
) -> Iterator[pd.DataFrame]:
    """One frame a chunk."""
    model, names = saved.model, [str(label) for label in saved.model.classes_]
    n_rows = 0
    for X in source.features():
        n_rows += X.shape[0]
        if proba:
            yield pd.DataFrame(model.predict_proba(X), columns=names)
        else:
            yield pd.DataFrame({saved.target or "prediction": model.predict(X)})
    if n_rows == 0:
        raise ValueError(f"{source.path}: no rows")


def _write_csv(file: Any, frames: Iterator[pd.DataFrame]) -> None:
    first = next(frames)
    first.to_csv(file, index=False)
    for frame in frames:
        frame.to_csv(file, index=False, header=False, mode="a")


def _write_parquet(file: Path, frames: Iterator[pd.DataFrame]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError('writing Parquet needs pip install "fastsoftmax[parquet]"') from error
    first = pa.Table.from_pandas(next(frames), preserve_index=False)
    with pq.ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain(
            [first], (pa.Table.from_pandas(f, first.schema, preserve_index=False) for f in frames)
        ):
            writer.write_table(table)
