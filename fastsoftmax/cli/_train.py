"""The command ``train``: in memory where the data are small, by streaming them otherwise."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import typer
from rich.table import Table

import fastsoftmax
import fastsoftmax.reference as reference
import fastsoftmax.sources as sources
from fastsoftmax._optimize import minimize, solvers
from fastsoftmax.cli import _model_files
from fastsoftmax.cli._checkpoints import Checkpoints, load_checkpoint
from fastsoftmax.cli._console import err, out, progress_line
from fastsoftmax.cli._predict import DATA, Score, score
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.linear_model._fitting import check_parameters, fit_prepared, prepare

Array = npt.NDArray[Any]
Dtype = Literal["float32", "float64"]

# Data of at most this size are read into memory.
_MEMORY_BYTES = 64 << 20
# NumPy's time is measured on at most this many multiply-adds, and scaled up.
_REFERENCE_WORK = 2e9


def train(
    data: Annotated[str, typer.Argument(help=f'"digits". {DATA}')],
    target: Annotated[str | None, typer.Option(help="Label column.")] = None,
    l2: Annotated[float, typer.Option(help="Strength λ of the penalty λ‖W‖².")] = 1e-4,
    tol: Annotated[float, typer.Option(help="Largest gradient entry at the end.")] = 1e-4,
    max_iter: Annotated[int, typer.Option(help="Most iterations.")] = 1000,
    test_size: Annotated[float, typer.Option(help="Share of rows held out.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.", min=0)] = 0,
    intercept: Annotated[bool, typer.Option(help="Whether to fit intercepts.")] = True,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the arithmetic.")] = "float32",
    output: Annotated[Path | None, typer.Option(help="Where to write the model.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where to write the solver's state now and then.")
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds from one to the next.")] = 2.0,
    resume: Annotated[
        bool, typer.Option(help="Go on from the checkpoint, if there is one.")
    ] = False,
    stream: Annotated[bool, typer.Option(help="Stream the data even if they are small.")] = False,
) -> None:
    """Train on a data set, and say how well and how fast."""
    if not 0 < test_size < 1:
        raise ValueError(f"--test-size: expected a number between 0 and 1, got {test_size}")
    _check_files(output, checkpoint, resume)
    source = _model_files.load_digits() if data == "digits" else sources.open_source(data, target)
    for path in (output, checkpoint):
        if path is not None:
            _model_files.check_apart(path, source.files)
    if len(source.classes) < 2:
        raise ValueError(f"{data}: y: expected at least two classes, got {len(source.classes)}")
    source.dtype = np.dtype(dtype)
    training_rows, test_rows = _split(source, test_size, seed, stream)
    compiled = _warm_up(np.dtype(dtype), source.n_bytes > _MEMORY_BYTES)
    model = SoftmaxRegression(l2, tol=tol, max_iter=max_iter, fit_intercept=intercept)
    # What the iterates depend on, beside the rows themselves.
    run: dict[str, Any] = {"l2": l2, "tol": tol, "intercept": intercept, "dtype": dtype}
    run |= {"test_size": test_size, "seed": seed, "features": source.feature_names}
    fit = _Fit(model, training_rows, run)
    if checkpoint is not None:
        fit.use_checkpoints(checkpoint, checkpoint_every, resume)
    seconds = fit.run()
    if output is not None:
        _model_files.save_model(
            output, model, feature_names=source.feature_names, target=source.target
        )
    _show(data, fit, score(model, test_rows), seconds, compiled)
    _compare_with_numpy(model, training_rows, fit.passes)
    if output is not None:
        out.print(f"model written to {output}")


def _check_files(output: Path | None, checkpoint: Path | None, resume: bool) -> None:
    for path in (output, checkpoint):
        if path is not None:
            _model_files.check_writable(path)
    if checkpoint is None:
        if resume:
            raise ValueError("--resume: expected --checkpoint FILE as well")
        return
    if output is not None and output.resolve() == checkpoint.resolve():
        raise ValueError(f"{output}: expected different files for --output and --checkpoint")
    if checkpoint.exists() and not resume:
        raise ValueError(f"{checkpoint}: exists: add --resume to go on from it, or remove it")
    if resume and not checkpoint.exists():
        err.print(f"no checkpoint {checkpoint}: starting afresh")


def _split(
    source: sources.ChunkSource, test_size: float, seed: int, stream: bool
) -> tuple[sources.ChunkSource, sources.ChunkSource]:
    """Training and test rows: drawn by class in memory, each row by itself in a stream."""
    if stream or (source.n_bytes > _MEMORY_BYTES and not isinstance(source, sources.ArraySource)):
        return source.split(test_size, seed)
    from sklearn.model_selection import train_test_split

    X, y = source.load()
    counts = np.unique(y, return_counts=True)[1]
    # Stratified only where every class has rows for both sides.
    stratify = y if counts.min() >= 2 and len(y) * test_size >= len(counts) else None
    sides = train_test_split(
        np.arange(len(y)), test_size=test_size, random_state=seed, stratify=stratify
    )
    first, second = (sources.ArraySource(source.path, X[rows], y[rows]) for rows in sides)
    if len(first.classes) < 2:
        raise ValueError(f"{source.path}: expected training rows of at least two classes, got one")
    for _ in first():  # for its digest
        pass
    return first, second


def _warm_up(dtype: np.dtype[Any], large: bool) -> float:
    started = time.perf_counter()
    with out.status("compiling kernels (once; later runs load them from disk)"):
        if large:
            # What compiling leaves behind, 0.15 GB, is better left in another process.
            code = f"import fastsoftmax; fastsoftmax.warmup(['{dtype}'])"
            subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
        fastsoftmax.warmup((dtype,))
    return time.perf_counter() - started


class _Fit:
    """A fit under way: what it has read, its progress line and its checkpoints."""

    def __init__(
        self, model: SoftmaxRegression, source: sources.ChunkSource, run: dict[str, Any]
    ) -> None:
        self.model, self.source = model, source
        self._run = {"version": fastsoftmax.__version__, **run}
        self._checkpoints: Checkpoints | None = None
        self._resumed: Path | None = None
        self._show: Callable[[str], None] = print
        self._line = "first passes"
        self._rows, self._started = 0, 0.0
        self.passes = 1

    def use_checkpoints(self, path: Path, seconds: float, resume: bool) -> None:
        """Write checkpoints; go on from the one that is there."""
        self._checkpoints = Checkpoints(path, self._run, seconds)
        self._resumed = path if resume and path.exists() else None

    def run(self) -> float:
        """Fit, and return the seconds it took."""
        source = self.source
        X, y = self._streamed(), None
        if isinstance(source, sources.ArraySource):
            X, y = source.X, source.y
        with (
            progress_line("training") as self._show,
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            self._started = time.perf_counter()
            try:
                check_parameters(self.model)
                prepared = prepare(self.model, X, y)
                fit_prepared(self.model, prepared, self._progress, self._state)
            except KeyboardInterrupt:
                if self._checkpoints is not None:
                    self._checkpoints.write()
                raise
            seconds = time.perf_counter() - self._started
        if self._checkpoints is not None:
            self._checkpoints.write()
        for warning in caught:
            err.print(f"warning: {warning.message}")
        return seconds

    def _streamed(self) -> sources.Chunks:
        def chunks() -> Iterator[Any]:
            for X, codes in self.source():
                yield X, codes
                self._rows += len(codes)
                self._show_line()

        return sources.Chunks(chunks, self.source.n_features, self.source.classes)

    def _state(self) -> solvers.State | None:
        """State of the checkpoint to go on from; the rows' digest is known by now."""
        self._run |= {"data": list(self.source.digest), "classes": self.source.classes.tolist()}
        if self._resumed is None:
            return None
        state = load_checkpoint(self._resumed, self._run)
        err.print(f"going on from iteration {state.n_iter} in {self._resumed}")
        self.passes = state.n_evaluations + state.n_products
        return state

    def _progress(self, last: minimize.Iterate) -> None:
        self.passes, state = last.passes, last.state
        if isinstance(self.source, sources.ArraySource):
            self._rows = self.passes * self.source.n_rows
        self._line = (
            f"iteration {state.n_iter}, loss {state.loss:.6f}, gradient {last.gradient_norm:.1e}"
        )
        self._show_line()
        if self._checkpoints is not None:
            self._checkpoints(last)

    def _show_line(self) -> None:
        passes = self._rows / self.source.n_rows
        speed = self._rows / (time.perf_counter() - self._started)
        self._show(f"{self._line}, pass {passes:.1f}, {speed / 1e6:.2f}M rows/s")


def _show(data: str, fit: _Fit, held_out: Score, seconds: float, compiled: float) -> None:
    model, source = fit.model, fit.source
    table = Table("measure", "value", title=f"softmax regression on {data}")
    table.add_row("training rows", f"{source.n_rows:,}")
    table.add_row("features", f"{source.n_features:,}")
    table.add_row("classes", f"{len(model.classes_):,}")
    table.add_row("iterations, passes over the data", f"{model.n_iter_:,}, {fit.passes:,}")
    name = f"accuracy on {held_out.n_rows:,} held-out rows"
    table.add_row(name, f"{held_out.accuracy:.4f}")
    table.add_row("log-loss on them", f"{held_out.log_loss:.4f}")
    table.add_row("loading or compiling kernels", f"{compiled:.2f} s")
    table.add_row("training", f"{seconds:.3f} s")
    if (peak := _peak_memory()) is not None:
        table.add_row("peak memory", f"{peak:,} MiB")
    out.print(table)


def _peak_memory() -> int | None:
    """Most memory this process ever held, in MiB; None where the system does not tell."""
    # Not getrusage: it may be that of the parent, from before this program was executed.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), None)


def _compare_with_numpy(model: SoftmaxRegression, source: sources.ChunkSource, passes: int) -> None:
    """Show what as many evaluations as there were passes cost here and in NumPy."""
    X, codes = next(iter(source()))
    rows = int(max(min(len(codes), _REFERENCE_WORK / model.coef_.size), 1))
    arguments = (X[:rows], model.coef_, codes[:rows])
    options = {"bias": model.intercept_, "l2": model.l2}
    ours, numpys = (
        passes * source.n_rows / rows * _median_time(lambda f=f: f(*arguments, **options))
        for f in (
            fastsoftmax.linear_cross_entropy_value_and_grad,
            reference.linear_cross_entropy_value_and_grad,
        )
    )
    scope = "measured" if rows == source.n_rows else f"measured on {rows:,} rows and scaled up"
    out.print(
        f"{passes} passes at the cost of loss and gradient ({scope}): fastsoftmax {ours:.3f} s, "
        f"NumPy's reference {numpys:.3f} s, {numpys / ours:.1f} times as long"
    )


def _median_time(function: Any) -> float:
    # Threads left spinning by what ran before would slow it down: they sleep after a while.
    time.sleep(0.3)
    times: list[float] = []
    while len(times) < 5 or (sum(times) < 0.5 and len(times) < 50):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
