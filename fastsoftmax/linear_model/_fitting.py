"""A fit from checked rows to the attributes of an estimator."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_array, validate_data

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import InMemory
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax._optimize import minimize, solvers
from fastsoftmax.linear_model._callbacks import Tasks
from fastsoftmax.linear_model._labels import check_weights, encode_labels
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.reference import Array

_CHECKED_ROWS = 4096  # converted at a time, to find NaN and inf


def check_data(model: Any, X: Any, *y: Any, dtype: Any = None, **options: Any) -> Any:
    """Check X, and y if it is given, by scikit-learn's `validate_data`.

    Floats stay what they are, those of 16 bits as well, and everything else becomes float64; with
    ``dtype`` all becomes what is computed in that one. Other sparse formats than CSR are converted,
    as scikit-learn does.
    """
    X = validate.view_halves(X)
    given = getattr(X, "dtype", None)
    is_bfloat16 = isinstance(given, np.dtype) and validate.is_bfloat16(given)
    if is_bfloat16 and dtype in (None, np.float32):
        return _check_bfloat16(model, X, *y, **options)
    dtypes = {None: [np.float64, np.float32, np.float16], np.dtype("f4"): [np.float32, np.float16]}
    X = X.astype(dtype) if is_bfloat16 else X
    return validate_data(
        model, X, *y, dtype=dtypes.get(dtype, dtype), accept_sparse="csr", **options
    )


def _check_bfloat16(model: Any, X: Array, *y: Any, **options: Any) -> Any:
    """Check X, which scikit-learn is shown as integers, as it does not know the dtype."""
    finite = options.pop("ensure_all_finite", True)
    given = np.asarray(X)
    checked = validate_data(model, given.view(np.int16), *y, ensure_all_finite=False, **options)
    bits, *rest = checked if y else (checked,)
    X = bits.view(given.dtype)
    for first in range(0, len(X) if finite else 0, _CHECKED_ROWS):
        refuse_infinite(X[first : first + _CHECKED_ROWS])
    return (X, *rest) if y else X


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
    # Whether X is finite shows in the fit: see `check_overflow`.
    given, class_weight = np.asarray(y), None
    if given.ndim == 2 and given.shape[1] > 1 and given.dtype.kind == "f":
        X, y = check_data(model, X, y, multi_output=True, ensure_all_finite=False)
        classes, labels, encoded = np.arange(y.shape[1]), None, y.copy()
        class_weight = probability_weights(model.class_weight, len(classes))
    else:
        X, y = check_data(model, X, y, ensure_all_finite=False)
        classes, labels = encode_labels(y)
        encoded = labels
        if len(classes) < 2:
            raise ValueError(f"y: expected at least two classes, got only one class: {classes[0]}")
    weight = check_weights(sample_weight, model.class_weight, X, y, classes, labels)
    targets = make_targets(
        encoded, len(y), len(classes), validate.compute_dtype(X.dtype, "X"),
        sample_weight=weight, class_weight=class_weight,
    )  # fmt: skip
    problem = Problem(InMemory(validate.as_features(X), targets), len(classes), **options)
    return Prepared(X, y, sample_weight, problem, classes)


def problem_of_source(
    source: Any, y: Any, sample_weight: Any, class_weight: Any, **options: Any
) -> tuple[Problem, Array]:
    """Return the problem of rows that a source streams anew for every pass, and the classes."""
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(f"{name}: expected None with a source, whose chunks contain it")
    missing = [name for name in ("n_features", "classes") if not hasattr(source, name)]
    if missing:
        raise ValueError(
            f"X: expected arrays, or a source as of fastsoftmax.sources; got one without "
            f"{' and '.join(missing)}: wrap a function in fastsoftmax.sources.Chunks"
        )
    classes = np.asarray(source.classes)
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got {len(classes)}")
    if class_weight == "balanced":
        raise ValueError('class_weight: expected None or a dict with a source, got "balanced"')
    chunks = source
    if class_weight is not None:
        of_class = compute_class_weight(class_weight, classes=classes, y=classes)
        chunks = functools.partial(_weighted, source, of_class)
    objective = SoftmaxObjective.from_chunks(
        chunks, n_features=source.n_features, n_classes=len(classes), **options
    )
    return objective.problem, classes


def _weighted(source: Callable[[], Iterable[Any]], of_class: Array) -> Iterator[Any]:
    """Multiply the weights of chunks by those of their classes."""
    for X, codes, *weight in source():
        dtype = validate.compute_dtype(X.dtype, "X")
        weights = of_class[codes].astype(dtype)
        yield X, codes, weights * np.asarray(weight[0], dtype) if weight else weights


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
    model.__dict__.pop("feature_names_in_", None)
    if names is not None:
        model.feature_names_in_ = np.array(names, dtype=object)


def fit_prepared(
    model: Any,
    prepared: Prepared,
    progress: Callable[[minimize.Iterate], None] | None = None,
    resume: Callable[[], solvers.State | None] | None = None,
    *,
    solver: str | None = None,
    at_limit: str | None = None,
) -> None:
    """Fit an estimator; ``resume``, called first, may give a state to go on from.

    An estimator like scikit-learn's names the ``solver`` that runs here, and the beginning of its
    warning ``at_limit`` of iterations; its coefficients have one row for two classes.
    """
    problem, classes = prepared.problem, prepared.classes
    one_row = at_limit is not None and len(classes) == 2
    start = _start_of(model, problem, one_row)
    model.__dict__.pop("_optimizer", None)  # of an earlier partial_fit

    def attributes(W: Array, b: Array, n_iter: int) -> dict[str, Any]:
        if one_row:
            W, b = W[1:] - W[:1], b[1:] - b[:1]
        count = n_iter if at_limit is None else np.array([n_iter], np.int32)
        arrays = {"coef_": W.astype(problem.dtype), "intercept_": b.astype(problem.dtype)}
        return {"classes_": classes, **arrays, "n_iter_": count}

    def reached(iterate: minimize.Iterate) -> dict[str, Any]:
        loss = {"loss_": iterate.state.loss} if at_limit is None else {}
        return attributes(*iterate.parameters, iterate.state.n_iter) | loss

    def report(iterate: minimize.Iterate) -> None:
        if tasks.listening:
            tasks.begin(reached(iterate))
        if progress is not None:
            progress(iterate)
        if model.verbose:
            print(
                f"iteration {iterate.state.n_iter}: loss {iterate.state.loss:.8f}, max|gradient| "
                f"{iterate.gradient_norm:.2e}, {iterate.passes} passes"
            )

    tasks = Tasks(model, prepared.X, prepared.y, prepared.sample_weight)
    W, b = start or problem.split(problem.zeros())
    tasks.begin(attributes(W, np.zeros(len(W)) if b is None else b, 0))
    last = minimize.minimize(
        problem,
        solver=solver or model.solver,
        tol=model.tol,
        max_iter=model.max_iter,
        start=start,
        state=None if resume is None else resume(),
        progress=report,
    )
    check_overflow(last, model, prepared.X)
    for name, value in reached(last).items():
        setattr(model, name, value)
    if model.max_iter == 0:  # as scikit-learn allows
        tasks.begin(reached(last))
    end_of_fit(last, model.tol, at_limit)
    tasks.close()


def _start_of(model: Any, problem: Problem, one_row: bool) -> tuple[Array, Array | None] | None:
    """Return W and b of an earlier fit to start from, with ``warm_start``."""
    if not (model.warm_start and hasattr(model, "coef_")):
        return None
    W = model.coef_.toarray() if issparse(model.coef_) else model.coef_  # sparsify() was called
    W, b = np.asarray(W, float), np.asarray(model.intercept_, float).ravel()
    if one_row and len(W) == 1:
        W, b = np.concatenate([-W, W]) / 2, np.concatenate([-b, b]) / 2
    if W.shape != (problem.n_classes, problem.n_features):
        raise ValueError(
            f"warm_start: coef_ of shape {model.coef_.shape} does not fit {problem.n_classes} "
            f"classes and {problem.n_features} features"
        )
    return W, b if model.fit_intercept else None


def check_overflow(last: minimize.Iterate, estimator: Any, X: Any) -> None:
    """Refuse a fit that ended in inf or NaN: of X, as scikit-learn does, or of an overflow.

    Features that are not finite show in the first gradient, whatever it is taken at. To look for
    them beforehand took (60k, 784, 10) as long as two passes.
    """
    if last.state.is_finite:
        return
    if isinstance(X, np.ndarray) or issparse(X):
        refuse_infinite(X, estimator=estimator)
    raise ValueError("X: values so large that the loss overflows; scale the features down")


def refuse_infinite(X: Any, **options: Any) -> None:
    """Raise scikit-learn's error where X has NaN or inf."""
    if X.dtype.itemsize == 2:  # scikit-learn does not know bfloat16
        X = X.astype(np.float32)
    check_array(X, accept_sparse="csr", input_name="X", **options)


def end_of_fit(last: minimize.Iterate, tol: float, at_limit: str | None = None) -> None:
    """Warn where a fit ended early; hand an interruption on.

    For an estimator like scikit-learn's, with ``at_limit``, a loss that cannot be lowered any more
    is convergence, as it is for SciPy's L-BFGS.
    """
    state = last.state
    warn = functools.partial(warnings.warn, category=ConvergenceWarning, stacklevel=6)
    if state.message == minimize.INTERRUPTED:
        warn(
            f"interrupted after {state.n_iter} iterations with max|gradient| = "
            f"{last.gradient_norm:.1e}; the estimator holds the parameters reached"
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
    warn(
        f"{beginning}stopped after {state.n_iter} iterations with {reached} ({state.message}); "
        f"{advice}"
    )
