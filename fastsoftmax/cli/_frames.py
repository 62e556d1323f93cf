"""Files of rows that commands write: Parquet, CSV or TSV, as their names say."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fastsoftmax.cli._files import check_apart, check_writable, replacing
from fastsoftmax.sources._formats import COMPRESSED, TABLES, named_format, open_bytes


def check_frames(output: Path, read: Iterable[Path]) -> str | None:
    """Find out before the work whether its result can be written; return the format."""
    check_writable(output)
    check_apart(output, read)
    written = named_format(output)
    within = named_format(Path(output.stem)) if output.suffix.lower() in COMPRESSED else None
    unknown = written not in (None, *TABLES) or within not in (None, "csv", "tsv")
    if unknown or output.suffix.lower() in (".zip", ".zst"):
        raise ValueError(f"{output}: expected .parquet, .csv, .tsv, or those compressed by .gz, "
                         ".bz2 or .xz")  # fmt: skip
    return written


def write_frames(output: Path, written: str | None, frames: Iterator[pd.DataFrame]) -> None:
    """Write frames to a file in a format."""
    with replacing(output) as temporary:
        if written == "parquet":
            _write_parquet(temporary, frames)
            return
        with (
            open_bytes(temporary, "wb", output) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            write_text(text, frames, "\t" if written == "tsv" else ",")


def write_text(file: Any, frames: Iterator[pd.DataFrame], separator: str = ",") -> None:
    """Write frames as CSV to an open file."""
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
