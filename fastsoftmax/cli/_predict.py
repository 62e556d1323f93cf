"""The command ``predict``: a model over data of any size, chunk by chunk."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from fastsoftmax.cli._evaluate import DATA, FormatOption, ZeroBasedOption, open_for
from fastsoftmax.cli._files import check_apart, check_writable, replacing
from fastsoftmax.cli._model_files import SavedModel, load_model
from fastsoftmax.sources import ChunkSource
from fastsoftmax.sources._formats import TABLES, named_format, open_bytes


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
        _write_text(sys.stdout, frames)
        return
    check_writable(output)
    check_apart(output, [model, *source.files])
    written = named_format(output)
    if written not in (None, *TABLES) or output.suffix.lower() in (".zip", ".zst"):
        raise ValueError(f"{output}: expected .parquet, .csv, .tsv, or those compressed by .gz, "
                         ".bz2 or .xz")  # fmt: skip
    with replacing(output) as temporary:
        if written == "parquet":
            _write_parquet(temporary, frames)
            return
        with (
            open_bytes(temporary, "wb", output) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            _write_text(text, frames, "\t" if written == "tsv" else ",")


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


def _write_text(file: Any, frames: Iterator[pd.DataFrame], separator: str = ",") -> None:
    for number, frame in enumerate(frames):
        frame.to_csv(file, index=False, header=number == 0, sep=separator)


def _write_parquet(file: Path, frames: Iterator[pd.DataFrame]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError('writing Parquet needs pip install "fastsoftmax[parquet]"') from error
    first = pa.Table.from_pandas(next(frames), preserve_index=False)
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for frame in frames:
            writer.write_table(pa.Table.from_pandas(frame, first.schema, preserve_index=False))
