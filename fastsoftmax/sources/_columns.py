"""What the columns of a table are, and how they become features; learned from training rows."""

import difflib
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fastsoftmax.reference import Array
from fastsoftmax.sources._labels import typed

Kind = Literal["number", "category", "list"]
Missing = Literal["error", "mean", "zero"]

# Features are CSR where there are more than _MOST_DENSE, and a row has entries in at most one of
# _SPARSITY. Loss and gradient of (200000, D), 6 or 12 entries a row, 2 or 10 classes, in float32 on
# two cores: dense and CSR took 24 to 40 and 37 to 66 ms at D = 64, 65 to 96 and 42 to 64 ms at
# 128, 230 to 350 and 57 to 78 ms at 512; and making dense rows takes about as long as reading them.
_MOST_DENSE, _SPARSITY = 64, 4
# The end of messages about missing values, in columns that must have none.
ALLOW_MISSING = 'train so that these are filled in (--missing mean; in Python missing="mean")'
# Texts that are days or times of day, as 2024-01-31, 31.1.2024, 1/31/24 12:00, 31 Jan 2024, 12:30.
_TIME = r"([01]?[0-9]|2[0-4]):[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?( ?[AaPp]\.?[Mm]\.?)?"
_MONTH, _DAY = "(0?[1-9]|1[0-2])", "(0?[1-9]|[12][0-9]|3[01])"
_NAMED = (
    "(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|"
    "oct(ober)?|nov(ember)?|dec(ember)?)"
)
_WEEKDAY = "(mon(day)?|tue(sday)?|wed(nesday)?|thu(rsday)?|fri(day)?|sat(urday)?|sun(day)?)"
_YEAR, _APART = "([0-9]{2}|[0-9]{4})", "[-/. ,]{1,2}"
_DATE = re.compile(
    rf"(({_WEEKDAY}[, ]+)?("
    rf"[0-9]{{4}}(?P<iso>[-/.]){_MONTH}(?P=iso){_DAY}"
    rf"|{_DAY}(?P<european>[-/.]){_MONTH}(?P=european){_YEAR}"
    rf"|{_MONTH}(?P<american>[-/.]){_DAY}(?P=american){_YEAR}"
    rf"|{_DAY}({_APART})?{_NAMED}({_APART})?{_YEAR}"
    rf"|{_NAMED}{_APART}{_DAY}(st|nd|rd|th)?{_APART}{_YEAR}"
    rf")([T: ,]+{_TIME}.*)?|{_TIME}( ?(Z|[+-][0-9:]+))?)",
    re.IGNORECASE,
)
# At least so many of a column's texts are dates where it is a column of dates.
_MOST_DATES = 0.9
# Numbers as spreadsheets show them, as 1,234.50, 12,5, 7%, $3.
_DISPLAYED = re.compile(
    r"[$€£¥]?\s?[+-]?(0|[1-9][0-9]{0,2}([,.'\u00a0\u202f][0-9]{3})+|[1-9][0-9]*)([.,][0-9]+)?"
    r"\s?[%$€£¥]?"
)


class Coded(NamedTuple):
    """A column of texts in a chunk: row i has ``texts[codes[i]]``, and none where that is -1."""

    codes: Array
    texts: list[str]

    @classmethod
    def of(cls, codes: Array, values: Iterable[Any]) -> "Coded":
        """Return a column of any values; how truth values are spelled makes no difference."""
        texts = [str(value) for value in values]
        booleans = [text.lower() in ("true", "false") for text in texts]
        pairs = zip(texts, booleans, strict=True)
        return cls(codes, [text.capitalize() if is_bool else text for text, is_bool in pairs])

    def occurring(self) -> tuple[int, list[str]]:
        """Return the number of rows without a text, and the texts that other rows have."""
        counts = np.bincount(self.codes + 1, minlength=len(self.texts) + 1)
        return int(counts[0]), [self.texts[i] for i in np.flatnonzero(counts[1:])]


class Column(NamedTuple):
    """How a column is read.

    A ``category`` has one feature a value, and one of its own for missing values if training had
    any. A ``number`` is one feature; where missing ones are allowed ``fill`` stands for them, and
    if training had any, a second feature says where. A ``list`` is ``width`` features.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    missing: bool = False
    fill: float | None = None
    width: int = 1

    @property
    def n_features(self) -> int:
        """How many features the column becomes."""
        return (len(self.values) if self.kind == "category" else self.width) + self.missing

    @property
    def feature_names(self) -> list[str]:
        """Their names, as OneHotEncoder and SimpleImputer make them."""
        if self.kind == "category":
            return [f"{self.name}_{value}" for value in (*self.values, *["nan"] * self.missing)]
        if self.kind == "list":
            return [f"{self.name}[{i}]" for i in range(self.width)]
        return [self.name, *[f"missingindicator_{self.name}"] * self.missing]


class TableColumns:
    r"""The columns of a table that become features, in the order of the features.

    Attributes
    ----------
    columns : tuple of Column
        How each of them is read.
    names, feature_names : list of str
        The names of the columns, and of the features.
    n_features, n_entries : int
        Number of features, and of those that a row may have another value than 0 in.
    is_sparse : bool
        Whether the features are a CSR matrix.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastsoftmax.sources import TableColumns, open_source
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "visits.csv"
    >>> _ = path.write_text("site,length,kind\nhill,1.5,rose\nlake,,lily\n")
    >>> columns = open_source(path, "kind", missing="zero").columns
    >>> columns.names, columns.n_features
    (['site', 'length'], 4)
    >>> columns.columns[0].values
    ('hill', 'lake')
    >>> TableColumns.from_json(columns.to_json()).feature_names
    ['site_hill', 'site_lake', 'length', 'missingindicator_length']
    """

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = tuple(columns)
        self.names = [column.name for column in self.columns]
        self.feature_names = [name for column in self.columns for name in column.feature_names]
        self.n_features = len(self.feature_names)
        self.n_entries = sum(
            1 if column.kind == "category" else column.n_features for column in self.columns
        )
        has_categories = any(column.kind == "category" for column in self.columns)
        wide = self.n_features > max(_MOST_DENSE, _SPARSITY * self.n_entries)
        self.is_sparse = has_categories and wide

    def to_json(self) -> str:
        """Return the columns as text, for a model file.

        Returns
        -------
        str
            What `from_json` reads.
        """
        return json.dumps([column._asdict() for column in self.columns])

    @classmethod
    def from_json(cls, text: str) -> "TableColumns":
        """Read what `to_json` returned.

        Parameters
        ----------
        text : str
            The columns as text.

        Returns
        -------
        TableColumns
            The same columns.

        Raises
        ------
        ValueError
            If the text is something else.
        """
        try:
            entries = json.loads(text)
            columns = [Column(**entry | {"values": tuple(entry["values"])}) for entry in entries]
        except (TypeError, KeyError, RecursionError, AttributeError):
            raise ValueError("expected a list of columns") from None
        for column in columns:
            name, kind, values, missing, fill, width = column
            texts = isinstance(name, str) and all(isinstance(value, str) for value in values)
            numbers = type(width) is int and 0 <= width < 1 << 31
            number = fill is None or (type(fill) is float and math.isfinite(fill))
            known = isinstance(kind, str) and kind in get_args(Kind) and type(missing) is bool
            if not (texts and numbers and number and known and len(set(values)) == len(values)):
                raise ValueError("a column with entries of other types")
            plain = column._replace(
                values=values if kind == "category" else (),
                fill=fill if kind == "number" else None,
                missing=missing and kind != "list" and (kind == "category" or fill is not None),
                width=width if kind == "list" else 1,
            )
            if column != plain:
                raise ValueError("a column with entries that do not belong together")
        return cls(columns)


class Learner:
    """Learns from chunks of training rows which values columns have, and what stands for none.

    ``columns`` have no values yet. Only those that are ``needed`` are to be shown.
    """

    def __init__(
        self, path: Path, columns: Sequence[Column], missing: Missing, max_categories: int
    ) -> None:
        self._path, self._columns, self._missing = path, columns, missing
        self._max_categories = max_categories
        self.needed = [
            column
            for column in columns
            if column.kind == "category" or (column.kind == "number" and missing != "error")
        ]
        self._values: dict[str, set[str]] = {column.name: set() for column in self.needed}
        self._n_missing = dict.fromkeys(self._values, 0)
        self._n_present, self._sums = self._n_missing.copy(), dict.fromkeys(self._values, 0.0)

    def add(self, arrays: Sequence[Array | Coded]) -> None:
        """Learn from the rows of a chunk: an array or texts of each column that is needed."""
        for column, array in zip(self.needed, arrays, strict=True):
            if isinstance(array, Coded):
                self._add_texts(column.name, array)
            else:
                present = array[np.isfinite(array)]
                self._n_missing[column.name] += int(np.isnan(array).sum())
                self._n_present[column.name] += len(present)
                self._sums[column.name] += float(present.sum(dtype=np.float64))
        most, lengths = self._max_categories, {n: len(v) for n, v in self._values.items()}
        if names := [name for name, length in lengths.items() if length > most]:
            self._refuse_dates()
            values = sorted(self._values[names[0]])
            some = ", ".join(f'"{value}"' for value in values[:3])
            hint = meant_as_numbers(values)
            raise ValueError(
                f"{self._path}: {_columns(names)}: more than {most:,} values, such as {some}, of "
                f"which each would be a feature: {f'{hint}, or ' * bool(hint)}{drop_hint(names)}, "
                "or allow more "
                f"(--max-categories {5 * most}; in Python max_categories={5 * most})"
            )

    def _add_texts(self, name: str, column: Coded) -> None:
        n_missing, texts = column.occurring()
        self._n_missing[name] += n_missing
        self._values[name].update(texts)

    def _refuse_dates(self) -> None:
        refuse_dates(self._path, [name for name, values in self._values.items() if values
                                  and are_dates(list(values))])  # fmt: skip

    def columns(self) -> TableColumns:
        """Return what was learned."""
        self._refuse_dates()
        return TableColumns(self._learned(column) for column in self._columns)

    def _learned(self, column: Column) -> Column:
        if column not in self.needed:
            return column
        name = column.name
        some_missing, n_present = self._n_missing[name] > 0, self._n_present[name]
        if column.kind == "category":
            values = tuple(sorted(self._values[name]))
            return column._replace(values=values, missing=some_missing)
        if self._missing == "mean" and n_present == 0:
            raise ValueError(
                f'{self._path}: column "{name}": no number in the training rows, so no mean: '
                f"{drop_hint([name])}"
            )
        fill = self._sums[name] / n_present if self._missing == "mean" else 0.0
        return column._replace(fill=fill, missing=some_missing)


def select_columns(
    path: Path,
    present: list[str],
    *,
    target: str | None,
    weight: str | None,
    features: list[str] | None,
    drop: list[str] | None,
    left_out: Callable[[str], Any],
) -> list[str]:
    """Return the columns of the features, by default all that are not ``left_out``; check all."""
    twice = [name for name, count in Counter(present).items() if count > 1]
    twice += [name for name, count in Counter(features).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: columns whose names occur more than once: {_listed(twice)}")
    for name in (target, weight, *(drop or [])):
        if name is not None and name not in present:
            raise ValueError(f'{path}: no column "{name}"{nearest([name], present)}')
    if features is None:
        others = {target, weight, *(drop or [])}
        names = [name for name in present if name not in others and not left_out(name)]
    else:
        names = [name for name in features if name not in (drop or [])]
    for name, role in ((target, "labels"), (weight, "weights")):
        if name in names or (role == "weights" and name is not None and name == target):
            what = "labels" if name == target else role
            other = "a feature" if name in names else "weights"
            raise ValueError(f'{path}: column "{name}": expected {what} or {other}, not both')
    missing = [name for name in names if name not in present]
    if missing or not names:
        hint = nearest(missing, present) if missing else ""
        raise ValueError(f"{path}: missing feature columns: {_listed(missing) or 'all of them'}"
                         f"{hint}")  # fmt: skip
    return names


def are_dates(texts: Sequence[str]) -> bool:
    """Whether texts are dates, or times of day; a few may be others, such as "unknown"."""
    found = sum(_DATE.fullmatch(text.strip()) is not None for text in texts)
    return found >= _MOST_DATES * len(texts)


def refuse_dates(path: Path, names: list[str]) -> None:
    """Refuse columns of dates, if there are any among the features."""
    if names:
        raise ValueError(
            f"{path}: {_columns(names)}: dates, which are neither numbers nor categories: "
            f"{drop_hint(names)}, or make numbers of them, such as a year or an age"
        )


def meant_as_numbers(values: Sequence[str]) -> str:
    """Say what to do with texts that were hardly meant to be such; nothing where they may be."""
    others = [value for value in values if typed([value]).dtype.kind == "U"]
    unlike = ", ".join(f'"{value}"' for value in others[:3])
    if others and all(map(_DISPLAYED.fullmatch, others)):
        return f"store numbers as 1234.5, and not {unlike}"
    if len(others) > len(values) / 2:
        return ""
    return "store numbers" + bool(others) * (
        f" and not {unlike}: leave empty where a number is missing"
    )


def nearest(names: list[str], present: list[str]) -> str:
    """Return the end of a message about columns that are not there."""
    of_lower = {other.lower(): other for other in present}
    suggestion = ""
    for name in names[:8]:
        if close := difflib.get_close_matches(name.lower(), of_lower, n=1):
            of_several = f" for {name}" if len(names) > 1 else ""
            suggestion += f' (did you mean "{of_lower[close[0]]}"?{of_several})'
    return f"{suggestion}; there are {_listed(present)}"


def drop_hint(names: list[str]) -> str:
    """Say how to leave out columns, on the command line and in Python."""
    quoted = [f'"{name}"' if "," in name else name for name in names]
    return f"leave out (--drop {shlex.quote(','.join(quoted))}; in Python drop={names})"


def _columns(names: list[str]) -> str:
    """Name one column or several."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"column{'s' * (len(names) > 1)} {quoted}"


def _listed(names: list[str]) -> str:
    """Return the first few names as text."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
