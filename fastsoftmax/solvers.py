"""Minimise an objective; nothing here knows what the data are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Objective = Callable[[Array], tuple[float, Array]]
# Called after every iteration with (iteration, loss, gradient norm, evaluations so far).
Progress = Callable[[int, float, float, int], None]


class Solution(NamedTuple):
    """Where a solver stopped."""

    x: Array
    loss: float
    gradient_norm: float
    n_iter: int
    n_evaluations: int
    message: str


def minimize_lbfgs(
    objective: Objective,
    x0: Array,
    *,
    tol: float,
    max_iter: int,
    norm: Callable[[Array], float] = lambda gradient: float(np.abs(gradient).max()),
    progress: Progress | None = None,
) -> Solution:
    """SciPy's L-BFGS, stopped as soon as ``norm`` of the gradient is at most ``tol``.

    The solver's own tests are turned off: they look at the gradient in the solver's coordinates,
    and at the decrease of a loss that a float32 kernel knows to seven digits only.
    """
    from scipy.optimize import minimize

    state: dict[str, Any] = {"n_iter": 0, "n_evaluations": 0}

    def evaluate(x: Array) -> tuple[float, Array]:
        state["n_evaluations"] += 1
        loss, gradient = objective(x)
        state["last"] = (x.copy(), loss, gradient)
        return loss, gradient

    def gradient_norm(x: Array) -> float:
        if not np.array_equal(state["last"][0], x):
            evaluate(x)  # the line search went back to an earlier point
        return norm(state["last"][2])

    # SciPy tells callbacks apart by this parameter's name.
    def after_iteration(intermediate_result: Any) -> None:
        state["n_iter"] += 1
        size = gradient_norm(intermediate_result.x)
        if progress is not None:
            loss = float(intermediate_result.fun)
            progress(state["n_iter"], loss, size, state["n_evaluations"])
        if size <= tol:
            raise StopIteration

    result = minimize(
        evaluate,
        x0,
        jac=True,
        method="L-BFGS-B",
        callback=after_iteration,
        options={"maxiter": max_iter, "maxfun": 20 * max_iter + 20, "gtol": 0.0, "ftol": 0.0},
    )
    size = gradient_norm(result.x)
    return Solution(
        x=result.x,
        loss=float(result.fun),
        gradient_norm=size,
        n_iter=state["n_iter"],
        n_evaluations=state["n_evaluations"],
        message=str(result.message),
    )
