"""Partitions of whatever Dask holds rows in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from dask.base import is_dask_collection
from dask.delayed import Delayed
from distributed import Future

Partitions = tuple[list[tuple[Any, ...]], list[float] | None]


def is_dask(value: Any) -> bool:
    """Whether ``value`` is a Dask collection, or a list of delayed partitions."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and isinstance(value[0], (Delayed, Future))
    return bool(is_dask_collection(value))


def partitions(X: Any, y: Any, sample_weight: Any = None) -> Partitions:
    """Chunks (X, y) or (X, y, sample_weight), delayed, and their numbers of rows where known."""
    blocks, sizes = _blocks(X, "X", None)
    columns = [blocks]
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is None and name != "y":
            continue
        parts, _ = _blocks(value, name, sizes)
        if len(parts) != len(blocks):
            raise ValueError(
                f"{name}: expected {len(blocks)} partitions as X has, got {len(parts)}"
            )
        columns.append(parts)
    return list(zip(*columns, strict=True)), sizes


def _blocks(value: Any, name: str, rows: Sequence[float] | None) -> tuple[list[Any], Any]:
    """Delayed partitions of one collection, cut as ``rows`` says where that is known."""
    if isinstance(value, (list, tuple)) and is_dask(value):
        return list(value), None
    if not (is_dask_collection(value) and hasattr(value, "to_delayed")):
        raise TypeError(
            f"{name}: expected a Dask array, a Dask dataframe or a list of delayed partitions, "
            f"got {type(value).__name__}"
        )
    if not hasattr(value, "chunks"):  # a dataframe
        return list(value.to_delayed()), None
    if value.ndim not in ((2,) if name == "X" else (1, 2)):
        raise ValueError(f"{name}: expected a Dask array of rows, got shape {value.shape}")
    value = whole_rows(value)
    sizes = list(value.chunks[0])
    if any(math.isnan(n) for n in sizes):
        return list(value.to_delayed().ravel()), None
    if rows is not None and sizes != rows:
        if sum(sizes) != sum(rows):
            raise ValueError(f"{name}: expected {sum(rows)} rows as X has, got {sum(sizes)}")
        value = value.rechunk({0: tuple(rows)})
    return list(value.to_delayed().ravel()), sizes


def as_array(value: Any) -> Any:
    """Turn a dataframe or series into a Dask array; an array stays as it is."""
    if not hasattr(value, "to_dask_array"):
        return value
    with warnings.catch_warnings():
        # Labels that are strings become objects, as they should.
        warnings.filterwarnings("ignore", "Dask currently has limited support", UserWarning)
        return value.to_dask_array()


def whole_rows(array: Any) -> Any:
    """Put column chunks of a Dask array together."""
    return array.rechunk({1: -1}) if array.ndim == 2 and array.numblocks[1] > 1 else array
