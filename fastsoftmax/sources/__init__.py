"""Sources of chunks: data sets on disk that may be larger than memory."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from fastsoftmax._evaluation import validate
from fastsoftmax.sources._arrays import ArraySource, NpySource, open_npz
from fastsoftmax.sources._chunk_source import ChunkSource
from fastsoftmax.sources._columns import Missing, TableColumns
from fastsoftmax.sources._formats import TABLES, Format, file_format
from fastsoftmax.sources._labels import describe
from fastsoftmax.sources._table_source import TableOptions, TableSource

__all__ = ["ArraySource", "ChunkSource", "Chunks", "TableColumns", "TableSource", "open_source"]


class Chunks(NamedTuple):
    """Rows that a function yields chunk by chunk, with what an estimator must know about them.

    Attributes
    ----------
    function : callable
        ``function()`` returns a fresh iterator over chunks (X, codes) or (X, codes, sample_weight);
        see `fastsoftmax.SoftmaxObjective.from_chunks`.
    n_features : int
        Number of columns of X.
    classes : sequence
        The distinct labels, sorted; a code is an index into them.
    feature_names : list of str, optional
        Names of the columns of X.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.linear_model import SoftmaxRegression
    >>> from fastsoftmax.sources import Chunks
    >>> X = np.random.default_rng(0).standard_normal((1000, 3))
    >>> codes = (X[:, 0] > 0).astype(int)
    >>> def read():
    ...     for start in range(0, 1000, 300):
    ...         yield X[start : start + 300], codes[start : start + 300]
    >>> model = SoftmaxRegression().fit(Chunks(read, 3, ["down", "up"]))
    >>> model.predict([[1.0, 0.0, 0.0]]).tolist()
    ['up']
    """

    function: Callable[[], Iterable[Any]]
    n_features: int
    classes: Any
    feature_names: list[str] | None = None

    def __call__(self) -> Iterable[Any]:
        """Begin a new pass over the rows.

        Returns
        -------
        iterable
            The chunks, as ``function`` returns them.
        """
        return self.function()


def open_source(
    path: str | Path,
    target: str | None = None,
    features: list[str] | None = None,
    chunk_rows: int | None = None,
    *,
    labelled: bool = True,
    format: Format | None = None,
    classes: Any = None,
    zero_based: bool | Literal["auto"] = "auto",
    n_features: int | None = None,
    drop: list[str] | None = None,
    weight: str | None = None,
    missing: Missing = "error",
    max_categories: int = 1000,
    columns: TableColumns | None = None,
    learn: bool = True,
) -> ChunkSource:
    r"""Open a data set for `SoftmaxRegression.fit` or `SoftmaxObjective.from_chunks`.

    Opening reads all labels once, to find ``classes``. While features are streamed, two chunks are
    in memory at a time, and what decoding the next one takes. A .npz file is read as a whole.

    Columns of text, categories or truth values become one feature a value, whose names are those
    that scikit-learn's OneHotEncoder makes (``city_Oslo``); the values are learned in a pass over
    the rows, and a value that was not among them is none of these features. Where there are many,
    X is a CSR matrix.

    Parameters
    ----------
    path : str or Path
        A .parquet or .pq file, or a directory of them; a .csv or .tsv file; an svmlight file (.svm,
        .svmlight, .libsvm, or any other name if its first line is svmlight); X.npy beside y.npy, or
        a directory with X.npy and y.npy or with pairs X_*.npy and y_*.npy; a .npz file with X and
        y. Text may be compressed (.gz, .bz2, .xz, .zst; .zip for CSV alone).
    target : str, optional
        Column of the labels, in Parquet and CSV files.
    features : list of str, optional
        Names of the columns to read as features, in this order; by default all but the target, the
        index that pandas wrote to a Parquet file, and columns of CSV files without a name. A list
        column of a Parquet file is as many features as its lists have values.
    chunk_rows : int, optional
        Rows of a chunk at most; by default what fills 16 MiB.
    labelled : bool, default True
        Whether there are labels. Without them only the method ``features`` can be called.
    format : {"parquet", "csv", "tsv", "svmlight", "npy", "npz"}, optional
        The format, where the name does not tell it.
    classes : array-like, optional
        The classes of a model. Labels are read in their type, and codes are indices into them; see
        `ChunkSource.use_classes`. By default the labels that occur: in CSV files numbers if all
        are, and otherwise text.
    zero_based : bool or "auto", default "auto"
        Whether columns of an svmlight file are counted from 0; "auto": if there is a column 0. For
        a second file pass the first one's attribute ``zero_based``, and its ``n_features``.
    n_features : int, optional
        The number of features that is expected. An svmlight file may have fewer.
    drop : list of str, optional
        Columns that are no features.
    weight : str, optional
        Column of the weights of rows, which then are the third item of chunks.
    missing : {"error", "mean", "zero"}, default "error"
        What a missing number of a table is: an error, or the mean of the others or 0. Columns with
        missing numbers have a second feature, ``missingindicator_`` before its name, which says
        where. A missing text is a value of its own.
    max_categories : int, default 1000
        The most values that a column of text may have.
    columns : TableColumns, optional
        What the columns of a table are: the attribute ``columns`` of the source that a model was
        trained on. By default this is learned from the rows.
    learn : bool, default True
        Whether to learn it now. If not, call ``learn_columns`` or ``use_columns`` before a pass,
        for example on one side of a split.

    Returns
    -------
    ChunkSource
        To be called for each pass; it has ``n_features``, ``feature_names`` and ``classes``.

    Raises
    ------
    ValueError
        If a file is not what it claims to be, here or while it is streamed, or has labels that are
        not among ``classes``. The message names the file, and its row group, rows or lines.
    ImportError
        If the file is a Parquet file and pyarrow is not installed, or .zst and zstandard is not.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastsoftmax import SoftmaxObjective
    >>> from fastsoftmax.sources import open_source
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> _ = path.write_text("length,width,kind\n1.5,2,rose\n3,0.5,lily\n2.5,1,lily\n")
    >>> source = open_source(path, target="kind")
    >>> source.n_rows, source.feature_names, source.classes.tolist()
    (3, ['length', 'width'], ['lily', 'rose'])
    >>> obj = SoftmaxObjective.from_chunks(
    ...     source, n_features=source.n_features, n_classes=len(source.classes)
    ... )
    >>> round(obj.value(obj.x0), 4)
    0.6931
    >>> _ = path.write_text("length,site,kind\n1.5,hill,rose\n,lake,lily\n2.5,hill,lily\n")
    >>> source = open_source(path, target="kind", missing="mean")
    >>> source.feature_names
    ['length', 'missingindicator_length', 'site_hill', 'site_lake']
    >>> source.load()[0].tolist()
    [[1.5, 0.0, 1.0, 0.0], [2.0, 1.0, 0.0, 1.0], [2.5, 0.0, 1.0, 0.0]]
    """
    path = Path(path)
    kind = file_format(path, format)
    named = any(argument is not None for argument in (target, features, drop, weight))
    if kind not in TABLES and (named or missing != "error"):
        raise ValueError(
            f"{path}: target, features, drop, weight and missing are for files whose columns have "
            "names"
        )
    if kind in TABLES and labelled and target is None:
        raise ValueError(f"{path}: no labels: name their column (--target; in Python target)")
    source: ChunkSource
    if kind in TABLES:
        target, weight = (target, weight) if labelled else (None, None)
        options = TableOptions(
            target, features, drop, weight, missing, max_categories, columns, chunk_rows
        )
        source = _open_table(path, kind, options, any_name=format is not None)
        if learn and source.columns is None:
            source.learn_columns()
    elif kind == "svmlight":
        from fastsoftmax.sources._text import SvmlightSource

        known = None if zero_based == "auto" else zero_based
        source = SvmlightSource(path, chunk_rows, known, n_features)
    elif kind == "npz":
        source = open_npz(path, chunk_rows, labelled)
    else:
        source = NpySource(path, chunk_rows, labelled)
    learned = kind not in TABLES or learn
    if n_features is not None and learned and source.n_features != n_features:
        raise ValueError(f"{path}: expected {n_features} features, got {source.n_features}")
    if classes is not None and labelled:
        unknown = source.use_classes(classes)
        if len(unknown):
            raise ValueError(
                f"{path}: expected labels among the classes, {describe(source.classes)}; got "
                f"others, {describe(unknown)}"
            )
    return source


def _open_table(path: Path, kind: Format, options: TableOptions, any_name: bool) -> TableSource:
    """Open a file whose columns have names, after a look at the options."""
    if options.missing not in get_args(Missing):
        raise ValueError(f'missing: expected "error", "mean" or "zero", got {options.missing!r}')
    if options.columns is not None and (options.features is not None or options.drop is not None):
        raise ValueError("columns: expected neither features nor drop beside it")
    validate.as_count(options.max_categories, "max_categories", at_least=1)
    if kind == "parquet":
        from fastsoftmax.sources._parquet import ParquetSource

        return ParquetSource(path, options, any_name)
    from fastsoftmax.sources._text import CSVSource

    return CSVSource(path, options, "," if kind == "csv" else "\t")
