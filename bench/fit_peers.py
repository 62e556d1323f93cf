"""Solvers of whole fits, each with the knob that stops it as early as the objective allows.

A peer is first run with a hook that sees its iterates and the loss there; it ends the run where the
goal is reached or the time is up, so that the timed runs, without a hook, have ``max_iter`` of just
as many iterations. Ours is told ``tol``, a solver's usual knob, on a grid.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import machine
import numpy as np

# What a fit has to reach, relative to the best loss known.
GOAL = 1e-6
# Solvers that are stopped by ``max_iter`` say so.
warnings.simplefilter("ignore")
Fitted = tuple[np.ndarray, np.ndarray]


class Stop(Exception):  # noqa: N818 - not an error
    """The goal is reached, or the time is up."""


def loss_of(X: Any, y: np.ndarray, l2: float, W: np.ndarray, b: np.ndarray) -> float:
    """J in float64, by NumPy in pieces: the judge of every peer."""
    W, b, total = np.asarray(W, float), np.asarray(b, float), 0.0
    for start in range(0, X.shape[0], 8192):
        rows = X[start : start + 8192].astype(float)
        Z = np.asarray(rows @ W.T) + b
        m = Z.max(axis=1)
        picked = Z[np.arange(len(Z)), y[start : start + 8192]]
        total += (np.log(np.exp(Z - m[:, None]).sum(axis=1)) + m - picked).sum()
    return float(total / X.shape[0] + l2 * np.einsum("kd,kd->", W, W))


def seconds_of(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes after a pause, and its result."""
    time.sleep(machine.PAUSE)
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


class Watch:
    """Sees a peer's iterates: when the loss there is low enough, and how many passes it took."""

    def __init__(self, goal: float, seconds: float, scale: float = 1.0) -> None:
        self.goal, self.limit, self.scale = goal, time.perf_counter() + seconds, scale
        self.iterations, self.passes, self.loss = 0, 0, np.inf

    def see(self, loss: float) -> None:
        """Take the loss after ``iterations`` iterations, ``scale`` times what it should be."""
        self.loss = float(loss) / self.scale
        if self.loss <= self.goal:
            raise Stop
        self.check_time()

    def check_time(self) -> None:
        if time.perf_counter() > self.limit:
            raise Stop


# ------------------------------------------------------------------------------ hooks of solvers


@contextlib.contextmanager
def watched_lbfgs(watch: Watch) -> Iterator[None]:
    """Look into SciPy's L-BFGS-B, which scikit-learn and sklearnex both call."""
    import scipy.optimize

    minimize = scipy.optimize.minimize

    def counted(function: Any, x0: Any, args: Any = (), **options: Any) -> Any:
        def evaluate(x: Any, *rest: Any) -> Any:
            watch.passes += 1
            watch.check_time()
            return function(x, *rest)

        def after(intermediate_result: Any) -> None:
            watch.iterations += 1
            watch.see(intermediate_result.fun)

        return minimize(evaluate, x0, args=args, **{**options, "callback": after})

    with mock.patch("scipy.optimize.minimize", counted):
        yield


@contextlib.contextmanager
def watched_newton(watch: Watch) -> Iterator[None]:
    """Look into scikit-learn's Newton solvers; a Hessian product counts as a pass, as for us."""
    from sklearn.linear_model._linear_loss import LinearModelLoss as Loss

    def passing(method: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            watch.passes += 1
            watch.check_time()
            return method(*args, **options)

        return counted

    value = Loss.loss

    def product(self: Any, coef: Any, X: Any, y: Any, *args: Any, **options: Any) -> Any:
        watch.see(value(self, coef, X, y, *args, **options))
        watch.iterations += 1
        watch.passes += 1
        gradient, hessp = products(self, coef, X, y, *args, **options)
        return gradient, passing(hessp)

    def hessian(self: Any, coef: Any, X: Any, y: Any, *args: Any, **options: Any) -> Any:
        strength = options.get("l2_reg_strength", 0.0)
        watch.see(value(self, coef, X, y, l2_reg_strength=strength))
        watch.iterations += 1
        watch.passes += 1
        return hessians(self, coef, X, y, *args, **options)

    products, hessians = Loss.gradient_hessian_product, Loss.gradient_hessian
    with (
        mock.patch.object(Loss, "gradient_hessian_product", product),
        mock.patch.object(Loss, "gradient_hessian", hessian),
        mock.patch.object(Loss, "loss", passing(Loss.loss)),
        mock.patch.object(Loss, "loss_gradient", passing(Loss.loss_gradient)),
    ):
        yield


# ------------------------------------------------------------------------------------------ peers


class Peer:
    """A solver of scikit-learn or sklearnex."""

    def __init__(self, library: str, solver: str, *steps: str) -> None:
        self.library, self.solver, self.steps = library, solver, steps
        self.name = ", ".join([f"{library} {solver}", *steps])

    def run(self, X: Any, y: np.ndarray, l2: float, max_iter: int) -> Fitted:
        """Fit as a user would, and return W and b for the features as they are."""
        from sklearn.preprocessing import StandardScaler

        if "float64" in self.steps:
            X = X.astype(np.float64)
        scaler = None
        if "StandardScaler" in self.steps:
            scaler = StandardScaler()
            X = scaler.fit_transform(X)
        W, b = self.fit(X, y, l2, max_iter)
        if scaler is None:
            return W, b
        W = W / scaler.scale_
        return W, b - W @ scaler.mean_

    def fit(self, X: Any, y: np.ndarray, l2: float, max_iter: int) -> Fitted:
        """Fit the features given."""
        if self.library == "sklearnex":
            from sklearnex.linear_model import LogisticRegression
        else:
            from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(
            solver=self.solver, C=1 / (2 * l2 * X.shape[0]), tol=1e-12, max_iter=max_iter
        )
        model.fit(X, y)
        return model.coef_, model.intercept_

    def watched(self, watch: Watch) -> contextlib.AbstractContextManager[None]:
        """Let ``watch`` see the iterates of the runs within."""
        return watched_lbfgs(watch) if self.solver == "lbfgs" else watched_newton(watch)

    def measure(
        self, X: Any, y: np.ndarray, l2: float, best: float, limit: float, rounds: int
    ) -> dict[str, Any]:
        """Find the iterations that are needed, then time runs of as many."""
        # oneDAL's loss is handed to SciPy as a sum.
        scale = X.shape[0] if self.library == "sklearnex" else 1
        watch = Watch(best * (1 + GOAL), limit, scale)
        with self.watched(watch), contextlib.suppress(Stop):
            self.run(X, y, l2, 100_000)
        iterations = max(watch.iterations, 1)
        failed = {"iterations": iterations, "passes": watch.passes, "reached": False}
        if not watch.loss <= watch.goal:
            timed_out = time.perf_counter() >= watch.limit
            why = "time" if timed_out else "its own precision ends it"
            return {**failed, "seconds": limit, "excess": watch.loss / best - 1, "why": why}
        seconds: list[float] = []
        started = time.perf_counter()
        while len(seconds) < rounds:
            # Slow peers are timed once; a run that fell short may be repeated for longer.
            if time.perf_counter() - started > (limit / 3 if seconds else limit):
                break
            took, (W, b) = seconds_of(lambda: self.run(X, y, l2, iterations))  # noqa: B023
            seconds.append(took)
            excess = loss_of(X, y, l2, W, b) / best - 1
            if excess > GOAL:  # its own loss had a rounding error, or a scaled penalty is another
                iterations += max(iterations // 10, 1)
                seconds = []
        if not seconds:
            return {**failed, "seconds": limit, "excess": excess, "why": "time"}
        return {
            "iterations": iterations,
            "passes": round(watch.passes * iterations / watch.iterations),
            "seconds": float(np.median(seconds)),
            "excess": excess,
            "reached": True,
        }


class Ours:
    """One of this package's estimators."""

    library = "fastsoftmax"

    def __init__(self, estimator: str) -> None:
        self.estimator = estimator
        self.name = f"fastsoftmax {estimator}"

    def model(self, X: Any, l2: float, tol: float) -> Any:
        from fastsoftmax import linear_model

        if self.estimator == "SoftmaxRegression":
            return linear_model.SoftmaxRegression(l2=l2, tol=tol, max_iter=10_000)
        C = 1 / (2 * l2 * X.shape[0])
        return linear_model.LogisticRegression(C=C, tol=tol, max_iter=10_000)

    def measure(
        self, X: Any, y: np.ndarray, l2: float, best: float, limit: float, rounds: int
    ) -> dict[str, Any]:
        """Find the largest ``tol`` that is enough, then time fits with it."""
        enough: tuple[Any, float, float] | None = None
        low, high = 4, 32  # quarters of a decade
        while low <= high:
            step = (low + high) // 2
            tol = 10.0 ** (-step / 4)
            model = self.model(X, l2, tol).fit(X, y)
            excess = loss_of(X, y, l2, model.coef_, model.intercept_) / best - 1
            if excess <= GOAL:
                enough, high = (model, tol, excess), step - 1
            else:
                low = step + 1
        model, tol, excess = enough or (model, tol, excess)
        passes = count_passes(lambda: self.model(X, l2, tol).fit(X, y))
        n_fits = max(rounds, 5) if rounds > 1 else 1
        seconds = [seconds_of(lambda: self.model(X, l2, tol).fit(X, y))[0] for _ in range(n_fits)]
        return {
            "iterations": int(np.max(model.n_iter_)),
            "passes": passes,
            "seconds": float(np.median(seconds)),
            "excess": excess,
            "reached": excess <= GOAL,
            "tol": tol,
        }


def count_passes(fit: Callable[[], Any]) -> int:
    """Evaluations, products and diagonals of our objective during a fit."""
    from fastsoftmax._evaluation.dataset import InMemory

    counted, total = InMemory.sum, 0

    def count(*args: Any, **options: Any) -> Any:
        nonlocal total
        total += 1
        return counted(*args, **options)

    with mock.patch.object(InMemory, "sum", count):
        fit()
    return total
