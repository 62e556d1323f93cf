"""The command ``predict``: a model over data of any size, chunk by chunk."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from fastsoftmax.cli._evaluate import DATA, FormatOption, ZeroBasedOption, open_for
from fastsoftmax.cli._frames import check_frames, write_frames, write_text
from fastsoftmax.cli._model_files import SavedModel, load_model
from fastsoftmax.cli._tables import warn_of_unseen
from fastsoftmax.sources import ChunkSource


def predict(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help=DATA)],
    proba: Annotated[bool, typer.Option(help="Probabilities instead of labels.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="A .parquet or .tsv file, or else CSV; text may be .gz.")
    ] = None,
    format: FormatOption = None,
    zero_based: ZeroBasedOption = None,
) -> None:
    """Predict the class of every row."""
    saved = load_model(model)
    source = open_for(saved, data, None, zero_based, format=format, labelled=False)
    frames = _predictions(saved, source, proba)
    if output is None:
        write_text(sys.stdout, frames)
    else:
        write_frames(output, check_frames(output, [model, *source.files]), frames)
    warn_of_unseen(source)


def _predictions(saved: SavedModel, source: ChunkSource, proba: bool) -> Iterator[pd.DataFrame]:
    """Yield one frame for each chunk."""
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
