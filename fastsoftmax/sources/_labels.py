"""Labels as files have them: which type they are of, and how those of two files are compared."""

import re
from decimal import Decimal
from typing import Any

import numpy as np

from fastsoftmax.reference import Array

# Text is a number only if it is one in plain ASCII. Python's int() and float() also take "1_0" and
# digits of all scripts, and would make one class of "1_0" and "10", or of "007" and "7".
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,19})")
_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]*|(?=\.[0-9]))(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?")
_TYPES = {"i": "integers", "u": "integers", "f": "decimals", "b": "booleans", "U": "text"}
# Integer labels are encoded by a table where fewer integers than this lie between the classes.
_MAX_TABLE = 1 << 16
# Decimals tell all whole numbers up to this apart.
_MAX_WHOLE = 2**53


def as_labels(where: str, labels: Array) -> Array:
    """Return labels as int64, uint64, decimals, booleans or text, and refuse missing ones."""
    kind = labels.dtype.kind
    if kind == "O":
        if any(isinstance(label, np.ndarray | list | tuple | dict) for label in labels):
            raise ValueError(f"{where}: expected labels that are numbers or strings, got others")
        if any(label is None or label != label for label in labels):
            raise ValueError(f"{where}: missing labels")
        return labels.astype(str)
    if kind not in "iubfUT":
        got = labels.dtype
        raise ValueError(f"{where}: expected labels that are numbers or strings, got {got}")
    if kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{where}: missing or infinite labels")
    if kind == "T":
        return labels.astype(str)
    if kind in "iu" and labels.dtype != np.uint64:
        return labels.astype(np.int64, copy=False)
    return labels


def merge_labels(where: str, before: Array, labels: Array) -> Array:
    """Return the distinct labels of two sorted arrays, and refuse other types than before."""
    kinds = before.dtype.kind + labels.dtype.kind
    if before.dtype.kind == labels.dtype.kind:
        same = True
    elif set(kinds) == {"i", "u"}:
        same = before[0] >= 0 and labels[0] >= 0
        before, labels = (x.astype(np.uint64) if same else x for x in (before, labels))
    else:
        ends = [x[i] for x in (before, labels) for i in (0, -1)]
        same = not set(kinds) & set("bU") and all(abs(end) <= _MAX_WHOLE for end in ends)
    if not same:
        raise ValueError(
            f"{where}: expected labels of the type of those before, which are "
            f"{describe(before)}, got {describe(labels)}"
        )
    return np.unique(np.concatenate([before, labels]))


def index_among(labels: Array, found: Array) -> Array | None:
    """Return the index of each label among the sorted ones found, None if one is not there."""
    if (labels.dtype.kind == "U") != (found.dtype.kind == "U"):
        return None
    if found.dtype.kind in "iub":
        # Of float labels only whole numbers are kept as integers.
        whole = labels.astype(np.int64 if found.dtype.kind == "b" else found.dtype, copy=False)
        if labels.dtype.kind == "f" and not (whole == labels).all():
            return None
        n_values = int(found[-1]) - int(found[0]) + 1
        if n_values < _MAX_TABLE:
            # Differences in uint64 are right whatever the type, as they wrap around.
            first = found[:1].astype(np.uint64)
            codes = whole.astype(np.uint64) - first
            if codes.max(initial=0) >= n_values:
                return None
            codes = codes.astype(np.int64)
            if n_values == len(found):
                return codes
            # A table is ten times as fast as a search.
            table = np.full(n_values, -1)
            table[found.astype(np.uint64) - first] = np.arange(len(found))
            codes = table[codes]
            return codes if codes.min(initial=0) >= 0 else None
        labels = whole
    codes = np.minimum(np.searchsorted(found, labels), len(found) - 1)
    return codes if (found[codes] == labels).all() else None


def typed(texts: list[str]) -> Array:
    """Return texts as integers or else as decimals, if all are and these tell them apart."""
    stripped = [text.strip(" \t") for text in texts]
    if all(map(_INTEGER.fullmatch, stripped)):
        integers = [int(text) for text in stripped]
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= min(integers) and max(integers) <= np.iinfo(dtype).max:
                return np.array(integers, dtype)
    elif all(map(_DECIMAL.fullmatch, stripped)):
        decimals = np.array([float(text) for text in stripped])
        exact = [Decimal(text) for text in stripped]
        whole = [x for x in exact if x == x.to_integral_value()]
        if (
            np.isfinite(decimals).all()
            and len(np.unique(decimals)) == len(set(exact))
            and all(x == float(x) for x in whole)
        ):
            return whole_as_integers(decimals)
    return np.array(texts, dtype=str)


def whole_as_integers(labels: Array) -> Array:
    """Return decimals as int64 if all are whole numbers that decimals can tell apart."""
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
        if np.abs(labels).max() <= _MAX_WHOLE:
            return labels.astype(np.int64)
    return labels


def match_labels(labels: Array, classes: Array) -> Array:
    """Return the number of each label among the classes, -1 where it is not one of them.

    Texts are compared as they are, and what is the same text as no class by its value, as are
    labels of other types: True is 1, and decimals have the precision of the smaller type.
    """
    labels, classes = (as_labels("labels", np.asarray(array)) for array in (labels, classes))
    floats = [array.dtype for array in (labels, classes) if array.dtype.kind == "f"]
    precision = min(floats, key=lambda dtype: dtype.itemsize, default=np.dtype(float))
    texts = labels.dtype.kind == classes.dtype.kind == "U"
    of_text = {text: number for number, text in enumerate(classes.tolist())} if texts else {}
    of_value: dict[Any, int] = {}
    for number, name in enumerate(classes.tolist()):
        value = _value(name, precision)
        first = of_value.setdefault(value, number)
        if first != number and value is not None:
            of_value[value] = -1
            if not texts:
                raise ValueError(
                    f"labels that are {describe(labels)} do not tell the classes "
                    f'"{classes[first]}" and "{name}" apart'
                )
    of_value[None] = -1
    numbers = (of_text.get(x, of_value.get(_value(x, precision), -1)) for x in labels.tolist())
    return np.fromiter(numbers, np.int64, len(labels))


def describe(labels: Array) -> str:
    """Name the type of labels and the first few of them."""
    some = ", ".join(str(label) for label in labels[:5].tolist())
    return f"{_TYPES[labels.dtype.kind]} ({some}{', ...' if len(labels) > 5 else ''})"


def _value(label: Any, precision: np.dtype[Any]) -> Any:
    """Return the number that a label is or spells, None where it is no number."""
    if isinstance(label, str):
        label = label.strip(" \t")
        if label.lower() in ("true", "false"):
            return label.lower() == "true"
        if _INTEGER.fullmatch(label):
            return int(label)
        label = float(label) if _DECIMAL.fullmatch(label) else None
    if isinstance(label, float):
        with np.errstate(over="ignore"):
            return precision.type(label).item()
    return label
