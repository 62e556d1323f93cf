"""Options and messages about the columns of tables, and what models are told of training rows."""

import csv
from typing import Annotated, Any, Literal

import numpy as np
import typer

from fastsoftmax.cli._console import err
from fastsoftmax.reference import Array
from fastsoftmax.sources import ChunkSource, TableColumns, TableSource
from fastsoftmax.sources._columns import Column, Missing, meant_as_numbers

FeaturesOption = Annotated[
    list[str] | None, typer.Option("--features", help="Columns of features, as a,b,c.")
]
DropOption = Annotated[
    list[str] | None, typer.Option("--drop", help="Columns to leave out, as a,b.")
]
WeightOption = Annotated[
    str | None, typer.Option("--weight", help="Column of the weights of rows in training.")
]
ClassWeightOption = Annotated[
    Literal["balanced"] | None,
    typer.Option("--class-weight", help="Weigh classes by the inverse of their numbers."),
]
MissingOption = Annotated[
    Missing,
    typer.Option("--missing", help="Missing numbers: refuse them, or fill in the mean or 0."),
]
CategoriesOption = Annotated[
    int, typer.Option("--max-categories", help="Most values of a column of text.", min=1)
]

# Of the features of a block of rows sums are made in their own precision.
_BLOCK_ROWS = 4096
# A column of text with more values a row than this is hardly worth having, and with fewer values
# altogether it may be anything.
_MOST_VALUES, _FEW_VALUES = 0.5, 10


def split_names(values: list[str] | None) -> list[str] | None:
    """Return the names that an option was given, apart by commas; quotes keep one in a name."""
    if not values:
        return None
    return [name for value in values for name in next(csv.reader([value], skipinitialspace=True))]


def warn_of_columns(source: TableSource) -> None:
    """Tell of columns of text that look as if they were meant as something else."""
    for column in source.columns.columns if source.columns else ():
        n_values = len(column.values)
        if column.kind != "category" or n_values < _FEW_VALUES:
            continue
        if hint := meant_as_numbers(column.values):
            about = f'{source.path}: column "{column.name}" is read as text'
            _warn(f"{about}: if it should be numbers, {hint}")
        elif n_values > _MOST_VALUES * source.n_rows:
            _warn(
                f'{source.path}: column "{column.name}" has {n_values:,} values in '
                f"{source.n_rows:,} training rows: if it names rows, --drop it"
            )


def warn_of_unseen(source: ChunkSource) -> None:
    """Tell of values that training did not have, in the rows of the last pass."""
    for name, unseen in source.unseen.items() if isinstance(source, TableSource) else ():
        rows = "1 row has a value" if unseen.n_rows == 1 else f"{unseen.n_rows:,} rows have values"
        _warn(
            f'{source.path}: column "{name}": {rows} that training did not have, taken for none of '
            f"its values: {', '.join(unseen.examples)}"
        )


def _warn(message: str) -> None:
    err.print(f"warning: {message}")


def describe_column(column: Column) -> str:
    """Say how a column is read."""
    if column.kind == "list":
        return f"lists of {column.width:,} numbers"
    if column.kind == "number":
        filled = "" if column.fill is None else f"; {column.fill:.6g} where one is missing"
        return f"numbers{filled}{', and a feature that says so' * column.missing}"
    some = ", ".join(column.values[:4]) + ", ..." * (len(column.values) > 4)
    missing = ", and missing ones" * column.missing
    return f"{len(column.values):,} values{missing}: {some}"


def balanced_weights(source: ChunkSource) -> dict[int, float]:
    """Return weights by which all classes weigh the same, as scikit-learn's "balanced" ones do."""
    totals = np.zeros(len(source.classes))
    for _, codes, *weight in source():
        of_rows = weight[0] if weight else None
        totals += np.bincount(codes, of_rows, minlength=len(totals))
    if not totals.all():
        lightest = source.classes[totals.argmin()]
        raise ValueError(f'--class-weight: class "{lightest}" has no weight in the training rows')
    return dict(enumerate((totals.sum() / len(totals) / totals).tolist()))


class Spreads:
    """The standard deviations of features, summed up chunk by chunk."""

    def __init__(self, n_features: int) -> None:
        self._n_rows, self._center = 0, np.zeros(n_features)
        self._sums, self._squares = np.zeros(n_features), np.zeros(n_features)
        self._scale = np.ones(n_features)

    def add(self, X: Any) -> None:
        """Take more rows into account."""
        if hasattr(X, "tocsr"):
            if not self._squares.any():
                largest = np.abs(X.data, dtype=float).max(initial=0)
                self._scale = np.full(len(self._sums), _power_of_two(largest))
            values = X.data / self._scale[0]
            self._sums += np.bincount(X.indices, values, len(self._sums))
            self._squares += np.bincount(X.indices, np.square(values), len(self._sums))
        else:
            if self._n_rows == 0:  # squares of values far from 0 would have too few digits
                first = X[:_BLOCK_ROWS].astype(np.float64)
                self._center = (first / len(first)).sum(axis=0)
            for start in range(0, len(X), _BLOCK_ROWS):
                self._add_block(X[start : start + _BLOCK_ROWS])
        self._n_rows += X.shape[0]

    def _add_block(self, rows: Array) -> None:
        """Take a block of dense rows into account, in their own precision if that will do."""
        # Squares of values above 1e19 or below 1e-19 are infinite or 0 in float32.
        if (alike := self._squares == 0).any():  # features that have been the same in all rows
            sizes = np.abs(rows[:, alike] - self._center[alike]).max(axis=0)
            self._scale[alike] = _power_of_two(sizes)
        ones = np.ones(len(rows), rows.dtype)
        for dtype in (rows.dtype, np.dtype(np.float64)):
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = rows.astype(dtype, copy=False) - self._center.astype(dtype)
                scaled /= self._scale.astype(dtype)
                sums = ones @ scaled
                scaled *= scaled
                squares = ones @ scaled
            if np.isfinite(squares).all():
                break
        self._sums += sums
        self._squares += squares

    def result(self) -> Array:
        """Return the standard deviation of each feature."""
        with np.errstate(over="ignore", invalid="ignore"):
            variances = self._squares / self._n_rows - np.square(self._sums / self._n_rows)
            spreads: Array = np.sqrt(np.maximum(variances, 0)) * self._scale
        # Model files hold finite numbers.
        largest = float(np.finfo(float).max)
        return np.nan_to_num(spreads, copy=False, nan=largest, posinf=largest)


def _power_of_two(sizes: Any) -> Any:
    """Return the power of two below each size, by which a division is exact; 1 for 0."""
    exponents = np.frexp(sizes)[1] - 1
    return np.ldexp(1.0, np.where(sizes > 0, exponents, 0))


def columns_of_names(names: list[str], feature_names: list[str]) -> TableColumns:
    """Return columns of numbers, and of lists of them, as models of earlier versions have them."""
    columns = []
    for name in names:
        width = sum(feature.startswith(f"{name}[") for feature in feature_names)
        is_list = name not in feature_names and width > 0
        columns.append(Column(name, "list" if is_list else "number", width=width if is_list else 1))
    return TableColumns(columns)
