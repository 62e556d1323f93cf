"""pyarrow's columns: of which kind they are, and what NumPy has of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastsoftmax._evaluation import validate
from fastsoftmax.reference import Array
from fastsoftmax.sources._columns import Column


def label_kind(kind: Any) -> str:
    """Return what labels of a type are, whatever their size and encoding."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for name in ("integer", "floating", "string", "large_string"):
        if getattr(pa.types, f"is_{name}")(kind):
            return name.removeprefix("large_")
    return "string" if str(kind) == "string_view" else str(kind)


def is_list(kind: Any) -> bool:
    """Whether a column's values are lists."""
    types = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_such(kind) for is_such in types)


def is_number(kind: Any) -> bool:
    """Whether a column's values are numbers, or all missing."""
    types = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(is_such(kind) for is_such in types)


def is_category(kind: Any) -> bool:
    """Whether a column's values are categories: text, truth values, and what was encoded as such.

    Dictionaries are what pandas and polars make of categories.
    """
    return pa.types.is_dictionary(kind) or label_kind(kind) in ("string", "bool")


def to_numpy(column: Any) -> Array:
    """Return a column of a batch as an array, without a copy where its memory allows it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    small = pa.types.is_boolean(column.type) and column.null_count
    if small or pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def to_codes(column: Any) -> tuple[Array, list[Any]]:
    """Return a column of a batch as codes, -1 where a value is missing, and what they stand for."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    elif column.dictionary.null_count:
        column = column.dictionary_decode().dictionary_encode()
    codes = column.indices.cast(pa.int32())
    if codes.null_count:
        codes = pc.fill_null(codes, -1)
    return codes.to_numpy(), column.dictionary.to_pylist()


def list_arrays(where: str, column: Any, width: int) -> list[Array]:
    """Return as many arrays as the lists of a column are long, and refuse others."""
    if width == 0:
        raise ValueError(f"{where}: expected lists of at least one value")
    values = column.flatten()
    if column.null_count or values.null_count:
        raise ValueError(f"{where}: missing values")
    lengths = pc.list_value_length(column).to_numpy()
    if (lengths != width).any():
        other = lengths[lengths != width][0]
        raise ValueError(f"{where}: expected lists of {width} values, got one of {other}")
    return list(to_numpy(values).reshape(-1, width).T)


def to_weights(where: str, name: str | None, columns: dict[str, Any]) -> Array | None:
    """Return the weights of rows, if there is a column of them, and refuse missing ones."""
    if name is None or name not in columns:
        return None
    column = columns[name]
    if column.null_count or not is_number(column.type):
        what = "missing ones" if column.null_count else column.type
        raise ValueError(f'{where}: column "{name}": expected weights that are numbers, got {what}')
    return to_numpy(column).astype(np.float64)


def common_dtype(schema: Any, columns: Sequence[Column]) -> np.dtype[Any]:
    """Return the dtype of all columns if they have one, or the one that is computed in."""
    dtypes: set[np.dtype[Any]] = set()
    for column in columns:
        kind = schema.field(column.name).type
        kind = kind.value_type if is_list(kind) else kind
        if column.kind != "category" and not (pa.types.is_decimal(kind) or pa.types.is_null(kind)):
            dtypes.add(np.dtype(kind.to_pandas_dtype()))
        elif column.kind != "category":
            dtypes.add(np.dtype(np.float64))
    as_they_are = all(column.kind != "category" and column.fill is None for column in columns)
    if len(dtypes) == 1 and as_they_are:
        return dtypes.pop()
    computed = (validate.compute_dtype(dtype, "X") for dtype in dtypes)
    return max(computed, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float64))
