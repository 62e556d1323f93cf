"""A linear probe of ImageNet's size: ``python bench/probe.py --excess --folder /data/probe``.

Features are made in float16, chunk by chunk, in a folder. Part "whole" fits `LogisticRegression` to
all rows for four values of C in turn, each beginning where the one before ended; part "quarter"
fits the first quarter of the rows in float32 by ours, by scikit-learn's L-BFGS and by torch's, the
others for ``--seconds``. Everything runs in a process of its own, with X in its memory. Each part
is kept in results/probe.json as it comes, so that either may be run again. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import fit_peers
import fit_rivals
import fits
import frameworks
import machine
import numpy as np
from memory import growth
from probe_data import Recipe, make
from probe_tables import OURS, TABLES, keep

RESULTS = Path(__file__).parent / "results"
FOREVER = 1e6
SMALL_ROWS = 8192
MAX_ITER = 1000
PEERS = [fit_peers.Peer("scikit-learn", "lbfgs"), fit_rivals.TorchPeer()]


# -------------------------------------------------------------------------------------- the fits


class Printed(io.TextIOBase):
    """Takes what ``verbose`` prints: the loss after every iteration, and when that was."""

    def __init__(self) -> None:
        self.started, self.points = time.perf_counter(), list[tuple[float, float]]()

    def write(self, text: str) -> int:
        found = re.search(r"loss ([-+.\de]+)", text)
        if found:
            self.points.append((time.perf_counter() - self.started, float(found[1])))
        return len(text)


class Curve(fit_peers.Watch):
    """Keeps the losses that it sees, until the time is up."""

    def __init__(self, seconds: float) -> None:
        self.started, self.points = time.perf_counter(), list[tuple[float, float]]()
        super().__init__(-np.inf, seconds)

    def see(self, loss: float) -> None:
        self.points.append((time.perf_counter() - self.started, float(loss)))
        super().see(loss)


def load_kernels(X: np.ndarray, y: np.ndarray, Cs: list[float], tol: float) -> None:
    """Fit a few rows by either solver; kernels come from the disk, or are compiled."""
    import fastsoftmax
    from fastsoftmax.linear_model import LogisticRegression

    fastsoftmax.warmup((np.float32,), ("dense", "softmax"))
    some = min(SMALL_ROWS, len(X))
    for C in Cs:
        for solver in ("lbfgs", "newton-cg"):
            # The same penalty beside the mean of fewer losses.
            model = LogisticRegression(C=C * len(X) / some, solver=solver, tol=tol, max_iter=3)
            model.fit(X[:some], y[:some])


def fit_ours(model: Any, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Fit, and return what it took."""
    time.sleep(machine.PAUSE)
    printed, found = Printed(), {}

    def fit() -> None:
        started, printed.started = time.process_time(), time.perf_counter()
        model.fit(X, y)
        found["seconds"] = time.perf_counter() - printed.started
        found["cpu"] = time.process_time() - started

    model.set_params(verbose=1)
    with contextlib.redirect_stdout(printed):
        grown = growth(lambda: found.update(passes=fit_peers.count_passes(fit)))
    model.set_params(verbose=0)
    return {**found, "iterations": int(model.n_iter_.max()), "grown": grown,
            "points": printed.points}  # fmt: skip


def loss_and_gap(model: Any, X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """J at the result, and the most by which it exceeds the optimum, from one more pass.

    J is 2λ-strongly convex in W, so that it is at most ‖∇J‖² / 4λ above its minimum, were b the
    best for this W. Of b we know only that its gradient is below ``tol`` as well.
    """
    from fastsoftmax import SoftmaxObjective

    l2 = 1 / (2 * model.C * len(X))
    objective = SoftmaxObjective(X, y, n_classes=len(model.classes_), l2=l2)
    loss, gradient = objective(objective.pack(model.coef_, model.intercept_))
    of_W, _ = objective.unpack(gradient)
    return loss, float(np.square(of_W).sum() / (4 * l2))


def excess_of(model: Any, X: np.ndarray, y: np.ndarray, goes_on: bool) -> dict[str, float | None]:
    """The loss, and what is known of the lowest one; a run to ``tol`` / 100 may go on to it."""
    loss, gap = loss_and_gap(model, X, y)
    found: dict[str, float | None] = {"loss": loss, "most": gap / loss, "best": None}
    if goes_on:
        further = copy.deepcopy(model).set_params(tol=model.tol / 100, max_iter=MAX_ITER)
        best, gap = loss_and_gap(further.fit(X, y), X, y)
        found["best"], found["most"] = min(loss, best), (loss - best + gap) / best
    return found


def fit_whole(folder: str, options: argparse.Namespace, target: Path, about: Any) -> None:
    """Part "whole": all C in turn; to be called in a fresh process."""
    from fastsoftmax.linear_model import LogisticRegression

    X, y, X_test, y_test = (
        np.load(Path(folder) / f"{name}.npy") for name in ("X", "y", "test_X", "test_y")
    )
    load_kernels(X, y, options.Cs[:1] + options.Cs[-1:], options.tol)
    rows: list[dict[str, Any]] = []
    model = LogisticRegression(tol=options.tol, max_iter=MAX_ITER, warm_start=True)
    for C in sorted(options.Cs):
        row = {"C": C, **fit_ours(model.set_params(C=C), X, y)}
        row["accuracy"] = float(model.score(X_test, y_test))
        rows.append(row | excess_of(model, X, y, options.excess))
        print({key: value for key, value in rows[-1].items() if key != "points"}, flush=True)
        keep(target, "whole", {**about, "bytes": X.nbytes, "rows": rows})


def fit_quarter(folder: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One solver of part "quarter"; to be called in a fresh process."""
    from fastsoftmax.linear_model import LogisticRegression

    y = np.load(Path(folder) / "y.npy")
    y = y[: len(y) // 4]
    X = np.load(Path(folder) / "X.npy", mmap_mode="r")[: len(y)].astype(np.float32)
    l2 = 1 / (2 * options.C * len(X))
    if name == OURS:
        load_kernels(X, y, [options.C], options.tol)
        model = LogisticRegression(C=options.C, tol=options.tol, max_iter=MAX_ITER, warm_start=True)
        row = fit_ours(model, X, y)
        row |= excess_of(model, X, y, options.excess)
        judged = fit_peers.loss_of(X, y, l2, model.coef_, model.intercept_)
        assert abs(judged / row["loss"] - 1) < 1e-5, "NumPy finds another loss"
        converged = row["iterations"] < MAX_ITER
        return {**row, "why": "it converged" if converged else "max_iter"}
    peer = next(peer for peer in PEERS if peer.name == name)
    if isinstance(peer, fit_rivals.TorchPeer):
        choose_chunk(peer, X, y, l2)
    peer.run(X[:SMALL_ROWS], y[:SMALL_ROWS], l2, 2)  # loads the library
    time.sleep(machine.PAUSE)
    curve = Curve(options.seconds)

    def run() -> None:
        with peer.watched(curve), contextlib.suppress(fit_peers.Stop):
            peer.run(X, y, l2, 100_000)

    grown = growth(run)
    seconds = time.perf_counter() - curve.started
    why = "time" if seconds >= options.seconds else "its own precision ended it"
    return {"seconds": seconds, "grown": grown, "points": curve.points, "why": why,
            "iterations": curve.iterations, "passes": curve.passes}  # fmt: skip


def choose_chunk(peer: Any, X: np.ndarray, y: np.ndarray, l2: float) -> None:
    """Take the fastest size of chunks on some rows; that is not counted."""

    def seconds(rows: int) -> float:
        peer.chunk, some = rows, slice(0, max(frameworks.CHUNKS))
        return min(
            fit_peers.seconds_of(lambda: peer.run(X[some], y[some], l2, 1))[0] for _ in range(2)
        )

    peer.chunk = min(frameworks.CHUNKS, key=seconds)


# ------------------------------------------------------------------------------------- the parts


def measure(part: str, recipe: Recipe, folder: str, options: argparse.Namespace) -> None:
    target = RESULTS / options.name
    said = ("tol", "seed", "excess", *(("C", "seconds") if part == "quarter" else ()))
    about = {"machine": machine.description(), "options": {k: getattr(options, k) for k in said}}
    if part == "whole":
        about["shape"] = recipe.shape
        failed = fits.in_process(fit_whole, folder, options, target, about, seconds=FOREVER)
        if failed:
            raise RuntimeError(failed)
        return
    about["shape"] = dataclasses.replace(recipe, rows=recipe.rows // 4).shape
    rows: dict[str, Any] = {}
    for name in [OURS, *(peer.name for peer in PEERS if not fit_rivals.missing(peer))]:
        row = fits.in_process(fit_quarter, folder, name, options, seconds=FOREVER)
        rows[name] = row if isinstance(row, dict) else {"failed": row}
        shown = {key: value for key, value in rows[name].items() if key != "points"}
        print(f"{name}: {shown}", flush=True)
        keep(target, part, {**about, "bytes": recipe.rows // 4 * recipe.features * 4, "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 1_281_167), ("features", 768), ("classes", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--test-rows", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="keeps the data, and is read when it holds them")
    parser.add_argument("--part", choices=[*TABLES, "both"], default="both")
    parser.add_argument("--Cs", type=float, nargs="+", default=[1e-3, 1e-2, 1e-1, 1])
    parser.add_argument("--C", type=float, default=1e-2, help="of the quarter")
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--seconds", type=float, default=600, help="for peers of the quarter")
    parser.add_argument("--excess", action="store_true", help="go on to the optimum, untimed")
    parser.add_argument("--name", default="probe", help="of the files in bench/results, or a path")
    options = parser.parse_args()
    recipe = Recipe(**{field.name: getattr(options, field.name)
                       for field in dataclasses.fields(Recipe)})  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder).mkdir(parents=True, exist_ok=True)
        make(recipe, Path(folder))
        for part in TABLES if options.part == "both" else [options.part]:
            measure(part, recipe, folder, options)


if __name__ == "__main__":
    main()
