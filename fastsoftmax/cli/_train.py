"""The command ``train``: in memory where the data are small, by streaming them otherwise."""

import dataclasses
import math
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

import fastsoftmax
from fastsoftmax._optimize import minimize, solvers
from fastsoftmax.cli._checkpoints import Checkpoints, load_checkpoint
from fastsoftmax.cli._compare import compare_fits
from fastsoftmax.cli._console import err, out, print_table, printable, progress_line, seconds_left
from fastsoftmax.cli._evaluate import DATA, FormatOption, ZeroBasedOption
from fastsoftmax.cli._files import check_apart, check_writable
from fastsoftmax.cli._model_files import SavedModel, save_model
from fastsoftmax.cli._plots import Curve, PlotOption, check_plot, write_plot
from fastsoftmax.cli._scores import Score, score
from fastsoftmax.cli._tables import (
    CategoriesOption,
    ClassWeightOption,
    DropOption,
    FeaturesOption,
    MissingOption,
    Spreads,
    WeightOption,
    balanced_weights,
    split_names,
    warn_of_columns,
    warn_of_unseen,
)
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.linear_model._fitting import check_parameters, fit_prepared, prepare
from fastsoftmax.sources import ArraySource, Chunks, ChunkSource, TableSource, open_source

Dtype = Literal["float32", "float64"]

# Data of at most this size are read into memory.
_MEMORY_BYTES = 64 << 20
# Arrays of the size of the weights, in float64, that the solver needs at least.
_COPIES = 8


def train(
    data: Annotated[str, typer.Argument(help=f'"digits". {DATA}')],
    target: Annotated[str | None, typer.Option(help="Label column.")] = None,
    l2: Annotated[float, typer.Option(help="Strength λ of the penalty λ‖W‖².")] = 1e-4,
    tol: Annotated[float, typer.Option(help="Largest gradient entry at the end.")] = 1e-4,
    max_iter: Annotated[int, typer.Option(help="Most iterations.")] = 1000,
    test_size: Annotated[float, typer.Option(help="Fraction of rows held out.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.", min=0, max=2**32 - 1)] = 0,
    intercept: Annotated[bool, typer.Option(help="Whether to fit intercepts.")] = True,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the arithmetic.")] = "float32",
    output: Annotated[Path | None, typer.Option(help="Where to write the model.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where to keep the solver's state.")
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds from one to the next.")] = 2.0,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint, if any.")] = False,
    stream: Annotated[bool, typer.Option(help="Stream the data even if they are small.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print warnings and errors alone.")] = False,
    compare: Annotated[bool, typer.Option(help="Time scikit-learn's fit as well.")] = False,
    features: FeaturesOption = None,
    drop: DropOption = None,
    weight: WeightOption = None,
    class_weight: ClassWeightOption = None,
    missing: MissingOption = "error",
    max_categories: CategoriesOption = 1000,
    format: FormatOption = None,
    zero_based: ZeroBasedOption = None,
    plot: PlotOption = None,
) -> None:
    """Train on a data set, and say how well and how fast."""
    out.quiet = quiet
    _check_options(test_size, compare and bool(weight or class_weight), plot)
    resume = _check_files(output, checkpoint, plot, resume)
    options: dict[str, Any] = {"format": format, "drop": split_names(drop), "weight": weight}
    options |= {"missing": missing, "max_categories": max_categories, "learn": False}
    options["zero_based"] = "auto" if zero_based is None else zero_based
    source = _open(data, target, split_names(features), (output, checkpoint, plot), **options)
    source.dtype = np.dtype(dtype)
    training, test = _split(source, test_size, seed, stream)
    compiled = _warm_up(np.dtype(dtype), source.n_bytes > _MEMORY_BYTES, _is_sparse(source))
    of_class = balanced_weights(training) if class_weight else None
    model = SoftmaxRegression(
        l2, tol=tol, max_iter=max_iter, fit_intercept=intercept, class_weight=of_class
    )
    # What the iterates depend on, beside the rows themselves.
    run: dict[str, Any] = {"version": fastsoftmax.__version__, "l2": l2, "tol": tol}
    run |= {"intercept": intercept, "dtype": dtype, "test_size": test_size, "seed": seed}
    run |= {"features": source.feature_names, "weight": weight, "class_weight": class_weight}
    fit = _Fit(model, training, Checkpoints(checkpoint, run, checkpoint_every), resume)
    seconds = fit.run()
    held_out = score(model, test)
    warn_of_unseen(test if isinstance(test, TableSource) else source)
    results = _results(fit, held_out, source)
    if output is not None:
        save_model(output, _saved(source, fit, results))
        out.print(f"model written to {printable(str(output))}")
    print_table(f"softmax regression on {data}", {**results, **_costs(compiled, seconds)})
    if plot is not None:
        write_plot(plot, f"{data}, held-out rows", held_out, Curve(fit.points, tol))
    if compare:
        compare_fits(model, training, test)


def _check_options(test_size: float, weighted_comparison: bool, plot: Path | None) -> None:
    """Check what can be checked before any file is opened."""
    if not 0 < test_size < 1:
        raise ValueError(f"--test-size: expected a number between 0 and 1, got {test_size}")
    if weighted_comparison:
        raise ValueError("--compare: expected neither --weight nor --class-weight beside it")
    if plot is not None:
        check_plot(plot, [])


def _open(
    data: str,
    target: str | None,
    features: list[str] | None,
    written: tuple[Path | None, ...],
    **options: Any,
) -> ChunkSource:
    """Open a data set of at least two classes, whose files are none of those to be written."""
    if data == "digits":
        unused = (target, features, options["drop"], options["weight"])
        if any(option is not None for option in unused) or options["missing"] != "error":
            raise ValueError("digits: expected no options about columns, which are known")
        from sklearn.datasets import load_digits

        bunch = load_digits()  # 1797 real handwritten digits, 8x8 pixels
        names = list(bunch.feature_names)
        source: ChunkSource = ArraySource(Path(data), bunch.data, bunch.target, feature_names=names)
        source.target = "digit"
    else:
        source = open_source(data, target, features, **options)
    if len(source.classes) < 2:
        raise ValueError(f"{data}: y: expected at least two classes, got {len(source.classes)}")
    if source.classes.dtype.kind == "f" and len(source.classes) > source.n_rows / 2:
        raise ValueError(
            f"{data}: y: expected classes, got {len(source.classes)} different decimals in "
            f"{source.n_rows} rows"
        )
    # Linux gives more memory than there is, and ends the process that uses it.
    n_bytes = _COPIES * 8 * len(source.classes) * source.n_features
    if n_bytes > (present := physical_memory()):
        raise ValueError(
            f"{data}: {source.n_features:,} features and {len(source.classes):,} classes are too "
            f"many: training needs {n_bytes / 2**30:,.0f} GiB or more, and this machine has "
            f"{present / 2**30:,.0f}"
        )
    for path in filter(None, written):
        check_apart(path, source.files)
    return source


def _check_files(
    output: Path | None, checkpoint: Path | None, plot: Path | None, resume: bool
) -> bool:
    """Check the files to be written, and return whether there is a checkpoint to go on from."""
    for path in filter(None, (output, checkpoint)):
        check_writable(path)
    if plot is not None:
        for option, other in (("--output", output), ("--checkpoint", checkpoint)):
            if other is not None and other.resolve() == plot.resolve():
                raise ValueError(f"{plot}: expected different files for --plot and {option}")
    if checkpoint is None:
        if resume:
            raise ValueError("--resume: expected --checkpoint FILE as well")
        return False
    if output is not None and output.resolve() == checkpoint.resolve():
        raise ValueError(f"{output}: expected different files for --output and --checkpoint")
    if checkpoint.exists() and not resume:
        raise ValueError(f"{checkpoint}: exists: add --resume to go on from it, or remove it")
    if resume and not checkpoint.exists():
        err.print(f"no checkpoint {checkpoint}: starting afresh")
    return checkpoint.exists()


def _split(
    source: ChunkSource, test_size: float, seed: int, stream: bool
) -> tuple[ChunkSource, ChunkSource]:
    """Return training and test rows: stratified in memory, each row drawn by itself in a stream."""
    if stream or (source.n_bytes > _MEMORY_BYTES and not isinstance(source, ArraySource)):
        training, test = source.split(test_size, seed)
        if isinstance(training, TableSource) and isinstance(test, TableSource):
            _learn(training, source, test)
        return training, test
    from sklearn.model_selection import train_test_split

    if isinstance(source, TableSource):  # whose columns are learned from the training rows alone
        y = source.labels()
    else:
        X, y = source.load()
    counts = np.unique(y, return_counts=True)[1]
    # Stratified only where every class has rows for both sides.
    stratify = y if counts.min() >= 2 and len(y) * test_size >= len(counts) else None
    sides = train_test_split(
        np.arange(len(y)), test_size=test_size, random_state=seed, stratify=stratify
    )
    weight: list[Any] = []
    if isinstance(source, TableSource):
        _learn(source.choose(sides[0]), source)
        X, y, *weight = source.load()
    first, second = (
        ArraySource(source.path, X[rows], y[rows], *(array[rows] for array in weight))
        for rows in sides
    )
    if len(first.classes) < 2:
        raise ValueError(f"{source.path}: expected training rows of at least two classes, got one")
    for _ in first():  # the first pass computes the digest, which checkpoints hold
        pass
    return first, second


def _learn(training: TableSource, *others: Any) -> None:
    """Learn the columns of training rows, for other sources of the same file as well."""
    columns = training.learn_columns()
    for source in others:
        source.use_columns(columns)
    warn_of_columns(training)


def _is_sparse(source: ChunkSource) -> bool:
    """Whether the features are known to be CSR."""
    return isinstance(source, TableSource) and bool(source.columns and source.columns.is_sparse)


def _warm_up(dtype: np.dtype[Any], large: bool, sparse: bool) -> float:
    """Load or compile the kernels, and return the seconds it took."""
    started, kernel = time.perf_counter(), "sparse" if sparse else "dense"
    with out.status("compiling kernels (once; later runs load them from disk)"):
        if large:
            # Compiling leaves 0.15 GB of memory in use: let it be that of another process.
            code = f"import fastsoftmax; fastsoftmax.warmup(['{dtype}'], ['{kernel}'])"
            subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
        fastsoftmax.warmup((dtype,), (kernel,))
    return time.perf_counter() - started


@dataclasses.dataclass
class _Fit:
    """A fit under way, with its progress line, its checkpoints and a count of the rows read."""

    model: SoftmaxRegression
    source: ChunkSource
    checkpoints: Checkpoints
    resume: bool
    passes: int = 1
    rows: int = 0
    line: str = "first pass"
    is_counted: bool = False
    history: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    # Of each iteration the passes so far, the loss, and the largest entry of the gradient.
    points: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)

    def run(self) -> float:
        """Fit, and return the seconds it took."""
        source = self.source
        self.spreads = Spreads(source.n_features)
        # scikit-learn's checks refuse decimals as labels; weights of classes are by their numbers.
        X: Any = Chunks(self._chunks, source.n_features, np.arange(len(source.classes)))
        y = weight = None
        if isinstance(source, ArraySource):
            X, weight = source.X, source.sample_weight
            y = np.searchsorted(source.classes, np.asarray(source.y))
            self.spreads.add(X)
        with (
            progress_line("training") as self._show,
            warnings.catch_warnings(record=True, action="always") as caught,
        ):
            self._started = time.perf_counter()
            try:
                check_parameters(self.model)
                prepared = prepare(self.model, X, y, weight)
                fit_prepared(self.model, prepared, self._progress, self._state)
            except KeyboardInterrupt:
                self.checkpoints.write()
                raise
            seconds = time.perf_counter() - self._started
            self.model.classes_ = source.classes
        self.checkpoints.write()
        for warning in caught:
            err.print(f"warning: {warning.message}")
        return seconds

    def _chunks(self) -> Iterator[Any]:
        """Stream the training rows, and count them."""
        is_first, self.is_counted = not self.is_counted, True
        for X, codes, *weight in self.source():
            if is_first:
                self.spreads.add(X)
            yield X, codes, *weight
            self.rows += len(codes)
            self._show_line()

    def _state(self) -> solvers.State | None:
        """Return the state to go on from, if any; by now the rows' digest is known."""
        path, run = self.checkpoints.path, self.checkpoints.run
        run |= {"data": list(self.source.digest), "classes": self.source.classes.tolist()}
        if path is None or not self.resume:
            return None
        n_parameters = self.source.n_features + self.model.fit_intercept
        state = load_checkpoint(path, run, len(self.source.classes) * n_parameters)
        err.print(f"going on from iteration {state.n_iter} in {path}")
        self.passes = state.n_evaluations + state.n_products
        return state

    def _progress(self, last: minimize.Iterate) -> None:
        """Show an iteration, and write a checkpoint if it is time to."""
        state, norm, self.passes = last.state, last.gradient_norm, last.passes
        if isinstance(self.source, ArraySource):
            self.rows = self.passes * self.source.n_rows
        goal = f"{norm:.1e} (goal {self.model.tol:.0e})"
        self.line = f"iteration {state.n_iter}, loss {state.loss:.6f}, gradient {goal}"
        self.history.append((time.perf_counter(), norm))
        self.points.append((self.passes, state.loss, norm))
        self._show_line()
        self.checkpoints(last)

    def _show_line(self) -> None:
        n_rows, now = self.source.n_rows, time.perf_counter()
        passes, rows = divmod(self.rows, n_rows)
        parts = [f"pass {passes + (rows > 0)}"]
        if not isinstance(self.source, ArraySource):
            parts[0] += f", {rows or n_rows:,} of {n_rows:,} rows"
        parts.append(f"{self.rows / (now - self._started) / 1e6:.2f}M rows/s")
        if (left := seconds_left(self.history, self.model.tol)) is not None:
            minutes, seconds = divmod(max(round(left - now + self.history[-1][0]), 0), 60)
            parts.append(f"about {minutes}:{seconds:02} left (an estimate)")
        self._show(f"{self.line}\n  {', '.join(parts)}")


def _results(fit: _Fit, held_out: Score, source: ChunkSource) -> dict[str, str]:
    """Say what was trained on, and the score."""
    model, training, columns = fit.model, fit.source, getattr(source, "columns", None)
    features = f"{training.n_features:,}"
    if columns is not None and len(columns.names) != columns.n_features:
        n_columns = len(columns.names)
        features += f", from {n_columns:,} column{'s' * (n_columns != 1)}"
    return {
        "training rows": f"{training.n_rows:,}",
        "features": features + ", as CSR" * _is_sparse(source),
        "classes": f"{len(model.classes_):,}",
        "iterations, passes over the data": f"{model.n_iter_:,}, {fit.passes:,}",
        f"accuracy on {held_out.n_rows:,} held-out rows": f"{held_out.accuracy:.4f}",
        "log-loss on them": f"{held_out.log_loss:.4f}",
    }


def _saved(source: ChunkSource, fit: _Fit, results: dict[str, str]) -> SavedModel:
    """Return all that a model file holds."""
    made = {"command": shlex.join(["fastsoftmax", *sys.argv[1:]])} | results
    made["version of fastsoftmax"] = fastsoftmax.__version__
    columns = source.columns if isinstance(source, TableSource) else None
    names, spread = source.feature_names, fit.spreads.result()
    return SavedModel(fit.model, names, source.target, columns, source.zero_based, spread, made)


def physical_memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def _costs(compiled: float, seconds: float) -> dict[str, str]:
    """Return what the run took, as lines of the table."""
    costs = {"loading or compiling kernels": f"{compiled:.2f} s", "training": f"{seconds:.3f} s"}
    if (peak := _peak_memory()) is not None:
        costs["peak memory"] = f"{peak:,} MiB"
    return costs


def _peak_memory() -> int | None:
    """Most memory this process ever held, in MiB; None where the system does not tell."""
    # Not getrusage: it may be that of the parent, from before this program was executed.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), None)
