"""Partitions of whatever Dask holds rows in."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

from dask.base import is_dask_collection
from dask.delayed import Delayed
from distributed import Future


def is_dask(value: Any) -> bool:
    """Whether ``value`` is a Dask collection, or a list of delayed partitions."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and isinstance(value[0], (Delayed, Future))
    return bool(is_dask_collection(value))


def partitions(
    X: Any, y: Any, sample_weight: Any = None
) -> tuple[list[tuple[Any, ...]], list[float] | None]:
    """Chunks (X, y) or (X, y, sample_weight), delayed, and their numbers of rows where known."""
    features, sizes = _delayed(X, "X", None)
    columns = [features]
    others = {"y": y} if sample_weight is None else {"y": y, "sample_weight": sample_weight}
    for name, value in others.items():
        column, _ = _delayed(value, name, sizes)
        n, got = len(features), len(column)
        if got != n:
            raise ValueError(f"{name}: expected {n} partitions as X has, got {got}")
        columns.append(column)
    return list(zip(*columns, strict=True)), sizes


def _delayed(value: Any, name: str, rows: Sequence[float] | None) -> tuple[list[Any], Any]:
    """Delayed partitions of one collection, cut as ``rows`` says, and their rows, where known."""
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
    value = as_array(value)
    sizes, n_rows = list(value.chunks[0]), sum(value.chunks[0])
    known = not math.isnan(n_rows)
    if known and rows is not None and sizes != rows:
        if n_rows != sum(rows):
            raise ValueError(f"{name}: expected {sum(rows)} rows as X has, got {n_rows}")
        value = value.rechunk({0: tuple(rows)})
    return list(value.to_delayed().ravel()), sizes if known else None


def as_array(value: Any) -> Any:
    """Turn a dataframe or series into a Dask array, and put an array's columns together."""
    if hasattr(value, "to_dask_array"):
        with warnings.catch_warnings():
            # The warning is of labels that are strings: they become objects, as they should.
            warnings.filterwarnings("ignore", "Dask currently has limited support", UserWarning)
            value = value.to_dask_array()
    return value.rechunk({1: -1}) if value.ndim == 2 and value.numblocks[1] > 1 else value
