"""A fit from checked rows to the attributes of an estimator."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array, validate_data

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import InMemory
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax._optimize import minimize, solvers
from fastsoftmax.linear_model._callbacks import Tasks
from fastsoftmax.linear_model._labels import check_weights, encode_labels
from fastsoftmax.linear_model._streaming import problem_of_source
from fastsoftmax.reference import Array

# What fit and predict accept; other sparse formats are converted, as scikit-learn does.
FEATURES = {"dtype": (np.float64, np.float32), "accept_sparse": "csr"}


def check_parameters(model: Any) -> None:
    """Check the parameters of a `SoftmaxRegression`."""
    validate.as_strength(model.l2)
    validate.as_strength(model.tol, "tol")
    validate.as_count(model.max_iter, "max_iter", at_least=1)
    validate.as_flag(model.fit_intercept, "fit_intercept")
    validate.as_flag(model.warm_start, "warm_start")
    if not validate.as_strength(model.learning_rate, "learning_rate") > 0:
        raise ValueError(f"learning_rate: expected a number > 0, got {model.learning_rate!r}")
    if model.batch_size != "auto":
        validate.as_count(model.batch_size, "batch_size", at_least=1)
    if model.solver not in minimize.SOLVERS:
        raise ValueError(f"solver: expected one of {list(minimize.SOLVERS)}, got {model.solver!r}")


class Prepared(NamedTuple):
    """Rows that have been checked, and the problem they pose."""

    X: Any  # as callbacks are shown them
    y: Any
    sample_weight: Any
    problem: Problem
    classes: Array


def prepare(model: Any, X: Any, y: Any, sample_weight: Any = None) -> Prepared:
    """Check what `SoftmaxRegression.fit` was given: arrays, or a source of chunks."""
    options: dict[str, Any] = {"l2": float(model.l2), "fit_intercept": bool(model.fit_intercept)}
    if callable(X):
        problem, classes = problem_of_source(X, y, sample_weight, model.class_weight, **options)
        set_features(model, X.n_features, getattr(X, "feature_names", None))
        return Prepared(X, y, sample_weight, problem, classes)
    X, y, classes, labels = _check_data(model, X, y)
    targets = make_targets(
        y.copy() if labels is None else labels,
        X.shape[0],
        len(classes),
        X.dtype,
        sample_weight=check_weights(sample_weight, model.class_weight, X, y, classes, labels),
        class_weight=probability_weights(model.class_weight, len(classes))
        if labels is None
        else None,
    )
    problem = Problem(InMemory(validate.as_features(X), targets), len(classes), **options)
    return Prepared(X, y, sample_weight, problem, classes)


def _check_data(model: Any, X: Any, y: Any) -> tuple[Any, Array, Array, Array | None]:
    """X and y checked, classes, and the labels' numbers; None for probability targets."""
    # Whether X is finite shows in the fit: see `check_overflow`.
    options = {"ensure_all_finite": False, **FEATURES}
    given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] > 1 and given.dtype.kind == "f":
        X, y = validate_data(model, X, y, multi_output=True, **options)
        return X, y, np.arange(y.shape[1]), None
    X, y = validate_data(model, X, y, **options)
    classes, labels = encode_labels(y)
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got only one class: {classes[0]}")
    return X, y, classes, labels


def probability_weights(class_weight: Any, n_classes: int) -> Array | None:
    """Class weights for probability targets."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, dict):
        raise ValueError(
            f"class_weight: expected None or a dict with probability targets, got {class_weight!r}"
        )
    return np.array([class_weight.get(k, 1.0) for k in range(n_classes)])


def set_features(model: Any, n_features: int, names: list[str] | None) -> None:
    """Leave the number of features, and their names, on the estimator."""
    model.n_features_in_ = n_features
    if names is not None:
        model.feature_names_in_ = np.array(names, dtype=object)
    elif hasattr(model, "feature_names_in_"):
        del model.feature_names_in_


def fit_prepared(
    model: Any,
    prepared: Prepared,
    progress: Callable[[minimize.Iterate], None] | None = None,
    resume: Callable[[], solvers.State | None] | None = None,
) -> None:
    """Fit a `SoftmaxRegression`; ``resume``, called first, may give a state to go on from."""
    problem, classes = prepared.problem, prepared.classes
    start = start_of(model, len(classes), problem.n_features)
    model.__dict__.pop("_optimizer", None)  # of an earlier partial_fit
    attributes = functools.partial(_attributes, classes)
    tasks = Tasks(model, prepared.X, prepared.y, prepared.sample_weight, attributes)

    def report(iterate: minimize.Iterate) -> None:
        tasks(iterate)
        if progress is not None:
            progress(iterate)
        if model.verbose:
            print_line(iterate)

    W = np.zeros((len(classes), problem.n_features)) if start is None else start[0]
    b = np.zeros(len(classes)) if start is None or start[1] is None else start[1]
    tasks.start({"coef_": W, "intercept_": b, "n_iter_": 0})
    last = minimize.minimize(
        problem,
        solver=model.solver,
        tol=model.tol,
        max_iter=model.max_iter,
        start=start,
        state=None if resume is None else resume(),
        progress=report,
    )
    check_overflow(last, model, prepared.X)
    for name, value in tasks.parameters(last).items():
        setattr(model, name, value)
    end_of_fit(last, model.tol)
    tasks.close()


def start_of(model: Any, n_classes: int, n_features: int) -> tuple[Array, Array | None] | None:
    """W and b of an earlier fit to start from, with ``warm_start``."""
    if not (model.warm_start and hasattr(model, "coef_")):
        return None
    if model.coef_.shape != (n_classes, n_features):
        raise ValueError(
            f"warm_start: coef_ of shape {model.coef_.shape} does not fit {n_classes} "
            f"classes and {n_features} features"
        )
    W, b = model.coef_.astype(float), model.intercept_.astype(float)
    return W, b if model.fit_intercept else None


def _attributes(classes: Array, iterate: minimize.Iterate) -> dict[str, Any]:
    """Return what a fit leaves on the estimator."""
    W, b = iterate.parameters
    dtype = iterate.centred.problem.dtype
    return {
        "classes_": classes,
        "coef_": W.astype(dtype),
        "intercept_": b.astype(dtype),
        "n_iter_": iterate.state.n_iter,
        "loss_": iterate.state.loss,
    }


def check_overflow(last: minimize.Iterate, estimator: Any, X: Any) -> None:
    """Refuse a fit that ended in inf or NaN: of X, as scikit-learn does, or of an overflow.

    Features that are not finite show in the first gradient, whatever it is taken at. To look for
    them beforehand took (60k, 784, 10) as long as two passes.
    """
    if last.state.is_finite:
        return
    if isinstance(X, np.ndarray) or issparse(X):
        check_array(X, accept_sparse="csr", estimator=estimator, input_name="X")
    raise ValueError("X: values so large that the loss overflows; scale the features down")


def end_of_fit(last: minimize.Iterate, tol: float, at_limit: str | None = None) -> None:
    """Warn where a fit ended early; hand an interruption on.

    ``at_limit`` is how scikit-learn's warning begins where ``max_iter`` is reached. For it, a loss
    that cannot be lowered any more is convergence, as it is for SciPy's L-BFGS.
    """
    state = last.state
    if state.message == minimize.INTERRUPTED:
        warnings.warn(
            f"interrupted after {state.n_iter} iterations with max|gradient| = "
            f"{last.gradient_norm:.1e}; the estimator holds the parameters reached",
            ConvergenceWarning,
            stacklevel=6,
        )
        raise KeyboardInterrupt
    exhausted, small = state.message == solvers.EXHAUSTED, last.gradient_norm <= tol
    if not state.message or (exhausted and not state.is_stuck and (small or at_limit is not None)):
        return
    advice = (
        "use float64 features, scale them, or increase tol"
        if exhausted
        else "increase max_iter, l2 (lower C) or tol"
    )
    beginning = "" if at_limit is None else at_limit.format(n_iter=state.n_iter) + "\n"
    reached = f"max|gradient| = {last.gradient_norm:.1e}"
    reached += f" <= tol = {tol:.1e}, but a falling loss" if small else f" > tol = {tol:.1e}"
    warnings.warn(
        f"{beginning}stopped after {state.n_iter} iterations with {reached} ({state.message}); "
        f"{advice}",
        ConvergenceWarning,
        stacklevel=6,
    )


def print_line(iterate: minimize.Iterate) -> None:
    """Print what ``verbose`` asks for."""
    state = iterate.state
    print(
        f"iteration {state.n_iter}: loss {state.loss:.8f}, max|gradient| "
        f"{iterate.gradient_norm:.2e}, {iterate.passes} passes"
    )
