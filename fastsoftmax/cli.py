"""The command line: ``fastsoftmax train | predict | evaluate | info | warmup``."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

try:
    import typer
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from fastsoftmax import io, training
    from fastsoftmax.linear_model import SoftmaxRegression
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None

import fastsoftmax
from fastsoftmax import reference

if _missing is None:
    app = typer.Typer(add_completion=False, no_args_is_help=True, help=fastsoftmax.__doc__)
    # click's own, wherever this release of typer keeps click.
    _UsageError: Any = typer.BadParameter.__mro__[1]
    out, err = Console(), Console(stderr=True, soft_wrap=True, highlight=False)

# NumPy's time is measured on at most this many multiply-adds, and scaled up.
_REFERENCE_WORK = 2e9
_NO_LABELS = "no labels: name their column with --target, or store them as y"
Dtype = Literal["float32", "float64"]


def main() -> None:
    """Run the command line: errors are one line and exit status 2."""
    if _missing is not None:
        needed = 'pip install "fastsoftmax[train]"'
        print(f"error: the command line needs {needed} ({_missing})", file=sys.stderr)
        sys.exit(2)
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except _UsageError as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if _missing is None:

    @app.command()
    def train(
        data: Annotated[str, typer.Argument(help='"digits", or a .csv or .npz file.')],
        target: Annotated[str | None, typer.Option(help="Label column of a .csv file.")] = None,
        l2: Annotated[float, typer.Option(help="Strength λ of the penalty λ‖W‖².")] = 1e-4,
        tol: Annotated[float, typer.Option(help="Largest gradient entry at the end.")] = 1e-4,
        max_iter: Annotated[int, typer.Option(help="Most iterations.")] = 1000,
        test_size: Annotated[float, typer.Option(help="Share of rows held out.")] = 0.2,
        seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
        intercept: Annotated[bool, typer.Option(help="Whether to fit intercepts.")] = True,
        dtype: Annotated[Dtype, typer.Option(help="Precision of the arithmetic.")] = "float32",
        output: Annotated[Path | None, typer.Option(help="Where to write the model.")] = None,
    ) -> None:
        """Train on a data set, and say how well and how fast."""
        if data.endswith(".csv") and target is None and Path(data).is_file():
            raise ValueError(f"{data}: {_NO_LABELS}")
        dataset = io.load_digits() if data == "digits" else io.load_dataset(data, target)
        if dataset.y is None:
            raise ValueError(f"{data}: {_NO_LABELS}")
        if output is not None:
            _check_writable(output)
        split = _split(dataset.X.astype(dtype), dataset.y, test_size, seed)
        started = time.perf_counter()
        with out.status("compiling kernels (once; later runs load them from disk)"):
            fastsoftmax.warmup((np.dtype(dtype),))
        compiled = time.perf_counter() - started
        model = SoftmaxRegression(l2, tol=tol, max_iter=max_iter, fit_intercept=intercept)
        evaluations, seconds = _fit(model, split["X_train"], split["y_train"])
        if output is not None:
            io.save_model(output, model, feature_names=dataset.feature_names, target=dataset.target)
        _show_training(data, split, model, evaluations, seconds, compiled)
        _compare_with_numpy(model, split["X_train"], split["y_train"], evaluations)
        if output is not None:
            out.print(f"model written to {output}")

    @app.command()
    def predict(
        model: Annotated[Path, typer.Argument(help="Model file.")],
        data: Annotated[Path, typer.Argument(help="A .csv or .npz file.")],
        proba: Annotated[bool, typer.Option(help="Probabilities instead of labels.")] = False,
        output: Annotated[Path | None, typer.Option(help="CSV file to write to.")] = None,
    ) -> None:
        """Predict the class of every row."""
        import pandas as pd

        saved = io.load_model(model)
        X = _features(saved, data, None)
        if proba:
            frame = pd.DataFrame(saved.model.predict_proba(X), columns=saved.model.classes_)
        else:
            frame = pd.DataFrame({saved.target or "prediction": saved.model.predict(X)})
        if output is not None:
            _check_writable(output)
        frame.to_csv(sys.stdout if output is None else output, index=False)

    @app.command()
    def evaluate(
        model: Annotated[Path, typer.Argument(help="Model file.")],
        data: Annotated[Path, typer.Argument(help="A .csv or .npz file.")],
        target: Annotated[str | None, typer.Option(help="Label column of a .csv file.")] = None,
    ) -> None:
        """Accuracy and log-loss of a model on labelled data."""
        saved = io.load_model(model)
        labelled = io.load_dataset(data, target or saved.target, saved.feature_names)
        if labelled.y is None:
            raise ValueError(f"{data}: {_NO_LABELS}")
        X = _features(saved, data, labelled)
        table = Table("measure", "value", title=str(data))
        table.add_row("rows", f"{len(X):,}")
        table.add_row("accuracy", f"{_accuracy(saved.model, X, labelled.y):.4f}")
        table.add_row("log-loss", f"{_log_loss(saved.model, X, labelled.y):.4f}")
        out.print(table)

    @app.command()
    def info() -> None:
        """CPU features, lanes, threads, threading layer and cache directory."""
        import numba

        from fastsoftmax._kernels import driver, emit

        fastsoftmax.warmup((np.float32,))
        notable = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "neon", "sve")
        cache = getattr(driver.run_parallel, "_cache", None)
        table = Table("what", "value", title=f"fastsoftmax {fastsoftmax.__version__}")
        table.add_row("CPU", emit.CPU_NAME)
        table.add_row("features", " ".join(name for name in notable if name in emit.FEATURES))
        lanes = f"{emit.VECTOR_BYTES // 4} float32, {emit.VECTOR_BYTES // 8} float64"
        table.add_row("lanes", lanes)
        table.add_row("register tile", f"{emit.HEIGHT} x {emit.WIDTH} vectors")
        table.add_row("threads", str(numba.get_num_threads()))
        try:
            table.add_row("threading layer", numba.threading_layer())
        except ValueError:
            table.add_row("threading layer", "none started (one thread)")
        path = getattr(cache, "cache_path", None)
        table.add_row("cache directory", str(path) if path else "none is writable")
        table.add_row("numba", numba.__version__)
        table.add_row("numpy", np.__version__)
        out.print(table)

    @app.command()
    def warmup() -> None:
        """Compile the kernels now, or load them from the disk cache."""
        started = time.perf_counter()
        with out.status("compiling kernels"):
            fastsoftmax.warmup()
        out.print(f"kernels ready after {time.perf_counter() - started:.1f} s")


def _split(X: Any, y: Any, test_size: float, seed: int) -> dict[str, Any]:
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got {len(classes)}")
    # Stratified only where every class has rows for both sides.
    stratify = y if counts.min() >= 2 and len(y) * test_size >= len(classes) else None
    names = ("X_train", "X_test", "y_train", "y_test")
    parts = train_test_split(X, y, test_size=test_size, random_state=seed, stratify=stratify)
    return dict(zip(names, parts, strict=True))


def _fit(model: SoftmaxRegression, X: Any, y: Any) -> tuple[int, float]:
    """Fit with a progress line; return evaluations made and seconds taken."""
    import warnings

    made = 0
    with _progress_line() as show, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = time.perf_counter()

        def progress(last: training.Iterate) -> None:
            nonlocal made
            made, state = last.passes, last.state
            speed = made * len(X) / (time.perf_counter() - started)
            show(
                f"iteration {state.n_iter:4d}   loss {state.loss:.6f}   "
                f"max|gradient| {last.gradient_norm:.1e}   {speed:,.0f} rows/s"
            )

        model._fit(X, y, progress=progress)
        seconds = time.perf_counter() - started
    for warning in caught:
        err.print(f"warning: {warning.message}")
    return max(made, 1), seconds


@contextlib.contextmanager
def _progress_line() -> Iterator[Any]:
    """Yield a function that shows a line, on a terminal in place of the one before."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        task = progress.add_task("training", total=None)
        yield lambda text: progress.update(task, description=text)


def _compare_with_numpy(model: SoftmaxRegression, X: Any, y: Any, evaluations: int) -> None:
    """Show what the training's evaluations cost here and in NumPy, both timed the same way."""
    labels = np.searchsorted(model.classes_, y)
    rows = int(max(min(len(X), _REFERENCE_WORK / model.coef_.size), 1))
    arguments = (X[:rows], model.coef_, labels[:rows])
    options = {"bias": model.intercept_, "l2": model.l2}
    ours, numpys = (
        evaluations * len(X) / rows * _median_time(lambda f=f: f(*arguments, **options))
        for f in (
            fastsoftmax.linear_cross_entropy_value_and_grad,
            reference.linear_cross_entropy_value_and_grad,
        )
    )
    scope = "measured" if rows == len(X) else f"measured on {rows:,} rows and scaled up"
    out.print(
        f"{evaluations} evaluations of loss and gradient ({scope}): fastsoftmax {ours:.3f} s, "
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


def _show_training(
    data: str, split: dict[str, Any], model: Any, evaluations: int, seconds: float, compiled: float
) -> None:
    X, y = split["X_test"], split["y_test"]
    table = Table("measure", "value", title=f"softmax regression on {data}")
    table.add_row("training rows", f"{len(split['X_train']):,}")
    table.add_row("features", f"{X.shape[1]:,}")
    table.add_row("classes", f"{len(model.classes_):,}")
    table.add_row("iterations, evaluations", f"{model.n_iter_:,}, {evaluations:,}")
    table.add_row(f"accuracy on {len(X):,} held-out rows", f"{_accuracy(model, X, y):.4f}")
    table.add_row("log-loss on them", f"{_log_loss(model, X, y):.4f}")
    table.add_row("loading or compiling kernels", f"{compiled:.2f} s")
    table.add_row("training", f"{seconds:.3f} s")
    out.print(table)


def _features(saved: io.SavedModel, data: Path, dataset: io.Dataset | None) -> Any:
    dataset = dataset or io.load_dataset(data, None, saved.feature_names)
    width = saved.model.n_features_in_
    if dataset.X.shape[1] != width:
        raise ValueError(f"{data}: expected {width} features, got {dataset.X.shape[1]}")
    return dataset.X.astype(saved.model.coef_.dtype)


def _accuracy(model: Any, X: Any, y: Any) -> float:
    return float(np.mean(model.predict(X) == y))


def _log_loss(model: Any, X: Any, y: Any) -> float:
    """Mean of -log p of the true class; infinite for a class the model does not know."""
    known = np.isin(y, model.classes_)
    if not known.all():
        return float("inf")
    log_p = model.predict_log_proba(X)
    return float(-log_p[np.arange(len(y)), np.searchsorted(model.classes_, y)].mean())


def _check_writable(path: Path) -> None:
    """Find out before the work whether its result can be written."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a directory")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such directory: {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the directory is not writable")


if __name__ == "__main__":
    main()
