"""The command ``coefficients``: which features speak for each class, and how much."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.table import Table

from fastsoftmax.cli._console import err, out, printable
from fastsoftmax.cli._frames import check_frames, write_frames
from fastsoftmax.cli._model_files import SavedModel, load_model

# What the importance of a feature is.
_COLUMNS = ("weight", "spread", "weight x spread")


def coefficients(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    top: Annotated[int, typer.Option(help="Features shown of each class.", min=1)] = 10,
    output: Annotated[
        Path | None, typer.Option(help="Where to write those of all features, as predict does.")
    ] = None,
) -> None:
    """Show the features with the largest weights of each class, times the feature's spread."""
    saved = load_model(model)
    if output is not None:
        written = check_frames(output, [model])
    if saved.spread is None:
        err.print(f"warning: {model}: of an earlier version, without the spreads of features: "
                  "weights are compared as they are")  # fmt: skip
    if output is not None:
        write_frames(output, written, _frames(saved, None))
        out.print(f"weights written to {printable(str(output))}")
        return
    for frame in _frames(saved, top):
        table = Table("feature", *_COLUMNS, title=printable(f"class {frame['class'].iloc[0]}"))
        for row in frame[["feature", *_COLUMNS]].itertuples(index=False):
            table.add_row(printable(row[0]), *(f"{value:.4g}" for value in row[1:]))
        out.print(table)


def _frames(saved: SavedModel, top: int | None) -> Iterator[pd.DataFrame]:
    """Yield a frame of each class: its features from the most important one on."""
    model = saved.model
    n_features = model.n_features_in_
    names = saved.feature_names or [f"column {i}" for i in range(n_features)]
    spread = np.ones(n_features) if saved.spread is None else saved.spread
    for label, weights in zip(model.classes_.tolist(), model.coef_.astype(float), strict=True):
        order = np.argsort(-np.abs(weights * spread), kind="stable")[:top]
        values = (weights, spread, weights * spread)
        columns = {name: array[order] for name, array in zip(_COLUMNS, values, strict=True)}
        yield pd.DataFrame({"class": label, "feature": [names[i] for i in order], **columns})
