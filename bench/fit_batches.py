"""Ten epochs of mini-batches, beside three iterations of L-BFGS and scikit-learn's MLPClassifier.

MLPClassifier without hidden layers is scikit-learn's nearest: multinomial, Adam, mini-batches. It
gets a tenth of the rows, and its loss is judged on those.
"""

from __future__ import annotations

from typing import Any

import linear
import numpy as np
from fit_peers import loss_of, seconds_of
from registry import Problem

NAME = "mini-batches"
SHAPE = (1_000_000, 100, 10)
EPOCHS = 10
L2 = 1e-6


def data(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    arrays = linear.make(Problem("linear", (n_rows, *SHAPE[1:]), "float32"))
    return arrays["X"], arrays["y"]


def optimum(n_rows: int) -> float:
    from fastsoftmax import SoftmaxObjective
    from fastsoftmax._optimize import minimize

    X, y = data(n_rows)
    last = minimize.minimize(SoftmaxObjective(X.astype(float), y, l2=L2).problem, tol=1e-7)
    return loss_of(X, y, L2, *last.parameters)


def partial_fit(n_rows: int) -> dict[str, float]:
    from fastsoftmax.linear_model import SoftmaxRegression

    X, y = data(n_rows)

    def fit() -> Any:
        model = SoftmaxRegression(l2=L2, random_state=0)
        for _ in range(EPOCHS):
            model.partial_fit(X, y, classes=np.arange(SHAPE[2]))
        return model.coef_, model.intercept_

    return timed(fit, X, y)


def three_iterations(n_rows: int) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    X, y = data(n_rows)

    def fit() -> Any:
        model = LogisticRegression(C=1 / (2 * L2 * n_rows), max_iter=3).fit(X, y)
        return model.coef_, model.intercept_

    return timed(fit, X, y)


def perceptron(n_rows: int) -> dict[str, float]:
    from sklearn.neural_network import MLPClassifier

    X, y = data(n_rows)

    def fit() -> Any:
        model = MLPClassifier(hidden_layer_sizes=(), alpha=2 * L2, max_iter=EPOCHS, random_state=0)
        model.fit(X, y)
        return model.coefs_[0].T, model.intercepts_[0]

    return timed(fit, X, y)


def timed(fit: Any, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Median seconds, without the first fit's, which loads code; and the loss of the last."""
    fits = [seconds_of(fit) for _ in range(4)]
    loss = loss_of(X, y, L2, *fits[-1][1])
    return {"seconds": float(np.median([seconds for seconds, _ in fits[1:]])), "loss": loss}


def measure(in_process: Any, quick: bool) -> dict[str, Any]:
    n_rows = SHAPE[0] // 50 if quick else SHAPE[0]
    sample = n_rows // 10
    best, best_of_sample = in_process(optimum, n_rows), in_process(optimum, sample)
    rows = {
        "fastsoftmax partial_fit, 10 epochs": (in_process(partial_fit, n_rows), best),
        "scikit-learn lbfgs, 3 iterations": (in_process(three_iterations, n_rows), best),
        f"scikit-learn MLPClassifier, 10 epochs of {sample:,} rows": (
            in_process(perceptron, sample),
            best_of_sample,
        ),
    }
    found = {
        name: {"seconds": row["seconds"], "excess": row["loss"] / reference - 1}
        for name, (row, reference) in rows.items()
    }
    for name, row in found.items():
        print(f"  {name}: {row}", flush=True)
    return found


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        f"## {NAME}",
        "",
        f"(N, D, K) = {SHAPE}, float32, l2 = {L2:g}. Wanted: within 1 % of the optimum's loss in "
        "less time than three iterations of L-BFGS.",
        "",
        "| | seconds | loss above the optimum's |",
        "|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['seconds']:.3g} | {100 * row['excess']:.2g} % |")
    return [*lines, ""]
