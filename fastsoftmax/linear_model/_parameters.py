"""scikit-learn's parameters: which fits run here, and what scikit-learn says about the others."""

import inspect
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsoftmax._evaluation.docs import fill_in

# What both estimators say of the rows that they are fitted to.
with_rows = fill_in(
    rows="""
        X : array_like or sparse matrix of shape (n_samples, n_features)
            Finite features; float32, float16 and bfloat16 are computed in float32, everything else
            in float64.
        y : array_like of shape (n_samples,)
            Labels, at least two different ones.
        sample_weight : array_like of shape (n_samples,), optional
            Weights ≥ 0."""
)
# scikit-learn's solvers of smooth problems, and the one that runs here instead. Both Newton solvers
# are the same here.
SOLVERS = {
    "lbfgs": "auto",
    "newton-cg": "newton-cg",
    "newton-cholesky": "newton-cg",
    "sag": "auto",
    "saga": "auto",
}
# How scikit-learn's warning begins where a solver needs more iterations.
LIMITS = {
    "lbfgs": "lbfgs failed to converge",
    "newton-cg": "newton-cg failed to converge. Increase the number of iterations.",
    "newton-cholesky": "Newton solver did not converge after {n_iter} iterations.",
    "sag": "The max_iter was reached which means the coef_ did not converge",
    "saga": "The max_iter was reached which means the coef_ did not converge",
}


def runs_here(model: Any, l1_ratios: Sequence[Any], *, unpenalised: bool = False) -> bool:
    """Whether the optimum that is asked for is one of ours: the L2 penalty or none, primal.

    It has to answer for parameters that scikit-learn refuses as well: those are left to it.
    """
    # liblinear penalises the intercept, and takes one class against the rest.
    if model.solver not in list(SOLVERS) or model.dual:
        return False
    penalty = getattr(model, "penalty", "deprecated")
    if penalty == "deprecated":
        return unpenalised or all(ratio is None or is_number(ratio, 0) for ratio in l1_ratios)
    if penalty == "elasticnet":
        return model.solver == "saga" and all(is_number(ratio, 0) for ratio in l1_ratios)
    return penalty is None or penalty == "l2"


def is_number(value: Any, number: float) -> bool:
    """Whether a parameter, which may be anything, is this number."""
    return isinstance(value, numbers.Real) and float(value) == number


def say_handed_over(model: Any) -> None:
    """Print that scikit-learn fits the model, if it is to print anything."""
    if model.verbose:
        print(
            f"solver {model.solver!r} with these parameters: fitted by scikit-learn, not by "
            "fastsoftmax"
        )


def warn_as_scikit_learn(parent: type, model: Any, n_rows: int, **changes: Any) -> None:
    """Let scikit-learn say what it has to say of parameters, by a fit of its own to rows of zeros.

    Its warnings and errors are then those of the installed release. At such rows every solver has
    nothing to do.
    """
    known = inspect.signature(parent).parameters
    plain: dict[str, Any] = {
        "class_weight": None,
        "fit_intercept": True,  # without it saga would divide by zero
        "max_iter": 100,
        "random_state": None,
        "tol": 1e-4,
        "verbose": 0,
    }
    if getattr(model, "penalty", None) != "elasticnet":  # which only saga takes
        plain["solver"] = "lbfgs"
    parameters = {name: getattr(model, name) for name in known}
    probe = parent(**{**parameters, **plain, **changes})
    probe.fit(np.zeros((n_rows, 1)), np.arange(n_rows) % 2)


def are_defaults(model: Any, *names: str) -> bool:
    """Whether these parameters, if the installed release has them, have their default values."""
    known = inspect.signature(type(model)).parameters
    return all(getattr(model, name) == known[name].default for name in names if name in known)


def features_of(model: Any) -> dict[str, Any]:
    """Options of `check_data`: what scikit-learn's solver of this name takes."""
    return {"accept_large_sparse": model.solver not in ("sag", "saga")}


def l2_of(C: float, n_classes: int, total: float, factor: float = 1.0) -> float:
    """λ of rows whose weights have ``factor`` times this total.

    Two penalised rows ±w/2, which stand for scikit-learn's one w, have half its squared norm.
    """
    return (1.0 if n_classes == 2 else 0.5) / (float(C) * total) / factor
