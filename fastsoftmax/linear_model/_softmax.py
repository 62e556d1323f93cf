"""Multinomial logistic regression with this project's own parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fastsoftmax import _validate, reference, training
from fastsoftmax.linear_model._fitting import (
    FEATURES,
    CallbackSupportMixin,
    Tasks,
    check_overflow,
    check_weights,
    encode_labels,
    end_of_fit,
    print_line,
    with_callbacks,
)
from fastsoftmax.linear_model._mini_batches import MiniBatches
from fastsoftmax.linear_model._streaming import objective_of
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.solvers import State

Array = npt.NDArray[Any]
Solver = Literal["auto", "lbfgs", "newton-cg", "adam"]


class SoftmaxRegression(CallbackSupportMixin, MiniBatches, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Multinomial logistic regression on the fused kernel.

    Minimises :math:`J(W, b) = \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i})
    + λ‖W‖²` with :math:`z_i = W x_i + b`. There is one row of W for each class, for two classes as
    well. X is neither copied nor changed. The solvers work in a metric made of a sample of the rows
    (see `fastsoftmax.metrics`), so scales and correlations of the features hardly matter, and the
    optimum is where it was.

    Parameters
    ----------
    l2 : float, default 1e-4
        λ ≥ 0. scikit-learn's ``C`` corresponds to λ = 1/(2·C·Σs), for two classes to twice that.
    solver : {"auto", "lbfgs", "newton-cg", "adam"}, default "auto"
        "auto" begins with L-BFGS and changes to Newton's method where convergence is slow, as it is
        where the classes separate. "adam" takes mini-batches: near the optimum in few passes,
        never at it.
    tol : float, default 1e-4
        The fit ends when no entry of ∇J, in the original coordinates, exceeds it. For "adam": when
        the loss has not fallen by as much in ``n_iter_no_change`` epochs.
    max_iter : int, default 1000
        Most iterations of the solver, epochs for "adam".
    fit_intercept : bool, default True
        Whether b exists; it is never penalised.
    class_weight : dict or "balanced", optional
        Weights of the classes, by label, as in scikit-learn.
    warm_start : bool, default False
        Whether fit starts from the parameters of an earlier one.
    verbose : int, default 0
        Print a line after every iteration.
    random_state : int, RandomState instance or None, default None
        Order of the batches and the validation split of "adam".
    batch_size : int or "auto", default "auto"
        Rows of a mini-batch.
    learning_rate : float, default 0.02
        Step of Adam in the coordinates of standardised features; it falls as 1/√steps.
    early_stopping : bool, default False
        Whether "adam" holds ``validation_fraction`` of the rows back and ends when their loss has
        not improved for ``n_iter_no_change`` epochs, with the parameters that were best.
    validation_fraction : float, default 0.1
    n_iter_no_change : int, default 5

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features)
        W, in the dtype of X (float32 or float64).
    intercept_ : ndarray of shape (n_classes,)
        b, zeros without an intercept.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_iter_ : int
        Iterations made.
    loss_ : float
        J at the end.
    n_features_in_ : int
        Features seen in fit.
    feature_names_in_ : ndarray of str
        Their names, where X had names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastsoftmax.linear_model import SoftmaxRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxRegression().fit(X, y)
    >>> model.coef_.shape, bool(model.score(X, y) > 0.95)
    ((3, 4), True)
    """

    def __init__(
        self,
        l2: float = 1e-4,
        *,
        solver: Solver = "auto",
        tol: float = 1e-4,
        max_iter: int = 1000,
        fit_intercept: bool = True,
        class_weight: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: Any = None,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float = 0.02,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
    ) -> None:
        self.l2 = l2
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change

    # ------------------------------------------------------------------------------- fitting

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SoftmaxRegression:
        """Fit to X (n_samples, n_features) and labels y (n_samples,), or to a source of both.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features), or source
            Finite features; float32 is computed in float32, everything else in float64. Rows that
            do not fit in memory come from a source, which every pass streams anew: what
            `fastsoftmax.sources.open_source` returns, or `fastsoftmax.sources.Chunks`.
        y : array_like of shape (n_samples,), or of float, shape (n_samples, n_classes)
            Labels of any sortable kind, at least two different ones; or rows of non-negative
            targets, ``classes_`` then being 0, 1, ... None with a source.
        sample_weight : array_like of shape (n_samples,), optional
            Finite weights ≥ 0.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        ValueError
            Where scikit-learn's estimators raise it: shapes, NaN or inf, fewer than two classes.
        KeyboardInterrupt
            On Ctrl-C; the estimator then holds the parameters reached, and has warned of it.

        Warns
        -----
        ConvergenceWarning
            Where ``max_iter`` ends the fit before ``tol`` is reached.
        """
        return self._fit(X, y, sample_weight)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        progress: Any = None,
        resume: Callable[[], State | None] | None = None,
    ) -> SoftmaxRegression:
        """Fit; ``resume``, called when the rows have been seen, may give a state to go on from."""
        self._check_parameters()
        X, y, objective, classes = self._objective(X, y, sample_weight)
        start = self._start(classes, objective.n_features)
        self._forget_batches()
        if self.solver == "adam":
            self.classes_ = classes
            self._fit_in_batches(objective, start)
        else:
            tasks = Tasks(self, X, y, sample_weight, functools.partial(_attributes, classes))
            state = None if resume is None else resume()
            last = self._minimize(objective, start, tasks, progress, state)
            check_overflow(last, self, X)
            for name, value in tasks.parameters(last).items():
                setattr(self, name, value)
            end_of_fit(last, self.tol)
            tasks.close()
        return self

    def _objective(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[Any, Any, SoftmaxObjective, Array]:
        """Return X and y checked, the objective of their rows, and the classes."""
        options: dict[str, Any] = {"l2": float(self.l2), "fit_intercept": bool(self.fit_intercept)}
        if callable(X):
            if self.solver == "adam":
                raise ValueError('solver: "adam" takes arrays, or chunks one by one in partial_fit')
            objective, classes = objective_of(X, y, sample_weight, self.class_weight, **options)
            self._set_features(X.n_features, getattr(X, "feature_names", None))
            return X, y, objective, classes
        X, y, classes, labels = self._check_data(X, y)
        objective = SoftmaxObjective(
            X,
            y if labels is None else labels,
            n_classes=len(classes),
            sample_weight=check_weights(sample_weight, self.class_weight, X, y, classes, labels),
            class_weight=self._probability_weights(len(classes)) if labels is None else None,
            **options,
        )
        return X, y, objective, classes

    def _set_features(self, n_features: int, names: list[str] | None) -> None:
        self.n_features_in_ = n_features
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _check_parameters(self) -> None:
        _validate.as_strength(self.l2)
        _validate.as_strength(self.tol, "tol")
        _validate.as_count(self.max_iter, "max_iter", at_least=1)
        _validate.as_count(self.n_iter_no_change, "n_iter_no_change", at_least=1)
        if not _validate.as_strength(self.learning_rate, "learning_rate") > 0:
            raise ValueError(f"learning_rate: expected a number > 0, got {self.learning_rate!r}")
        if self.batch_size != "auto":
            _validate.as_count(self.batch_size, "batch_size", at_least=1)
        if not 0 < _validate.as_strength(self.validation_fraction, "validation_fraction") < 1:
            raise ValueError("validation_fraction: expected a number between 0 and 1")
        if self.solver not in (*training.SOLVERS, "adam"):
            raise ValueError(
                f"solver: expected one of {[*training.SOLVERS, 'adam']}, got {self.solver!r}"
            )

    def _check_data(self, X: Any, y: Any) -> tuple[Any, Array, Array, Array | None]:
        """X and y checked, classes, and the labels' numbers; None for probability targets."""
        unchecked = {"ensure_all_finite": self.solver == "adam"}  # see `check_overflow`
        if getattr(np.asarray(y), "ndim", 0) == 2 and np.shape(y)[1] > 1 and _is_float(y):
            X, y = validate_data(self, X, y, multi_output=True, **unchecked, **FEATURES)
            return X, y, np.arange(y.shape[1]), None
        X, y = validate_data(self, X, y, **unchecked, **FEATURES)
        classes, labels = encode_labels(y)
        if len(classes) < 2:
            raise ValueError(f"y: expected at least two classes, got only one class: {classes[0]}")
        return X, y, classes, labels

    def _probability_weights(self, n_classes: int) -> Array | None:
        """Class weights for probability targets."""
        if self.class_weight is None:
            return None
        if not isinstance(self.class_weight, dict):
            raise ValueError(
                f"class_weight: expected None or a dict with probability targets, got "
                f"{self.class_weight!r}"
            )
        return np.array([self.class_weight.get(k, 1.0) for k in range(n_classes)])

    def _start(self, classes: Array, n_features: int) -> tuple[Array, Array | None] | None:
        """W and b of an earlier fit to start from."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        if self.coef_.shape != (len(classes), n_features):
            raise ValueError(
                f"warm_start: coef_ of shape {self.coef_.shape} does not fit {len(classes)} "
                f"classes and {n_features} features"
            )
        W, b = self.coef_.astype(float), self.intercept_.astype(float)
        return W, b if self.fit_intercept else None

    def _minimize(
        self,
        objective: SoftmaxObjective,
        start: Any,
        tasks: Tasks,
        progress: Any,
        state: State | None,
    ) -> training.Iterate:
        def report(iterate: training.Iterate) -> None:
            tasks(iterate)
            if progress is not None:
                progress(iterate)
            if self.verbose:
                print_line(iterate.state.n_iter, iterate.state.loss, iterate.gradient_norm)

        W0 = np.zeros((objective.n_classes, objective.n_features))
        W, b = start or (W0, None)
        tasks.start({"coef_": W, "intercept_": np.zeros(len(W)) if b is None else b, "n_iter_": 0})
        return training.minimize(
            objective,
            solver=self.solver,
            tol=self.tol,
            max_iter=self.max_iter,
            start=start,
            state=state,
            progress=report,
        )

    # ----------------------------------------------------------------------------- predicting

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of what this estimator takes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **FEATURES)
        logits: Array = X @ self.coef_.T + self.intercept_
        return logits

    def decision_function(self, X: Any) -> Array:
        """Logits (n_samples, n_classes); for two classes their difference z₁ - z₀ (n_samples,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> Array:
        """Name the most probable class of every row."""
        best = self._logits(X).argmax(axis=1)
        labels: Array = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities (n_samples, n_classes)."""
        probabilities: Array = reference.softmax(self._logits(X), axis=1)
        return probabilities

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of the probabilities, by log-softmax: finite where they underflow."""
        logarithms: Array = reference.log_softmax(self._logits(X), axis=1)
        return logarithms


def _attributes(classes: Array, iterate: training.Iterate) -> dict[str, Any]:
    W, b = iterate.parameters
    dtype = iterate.objective.objective.dtype
    return {
        "classes_": classes,
        "coef_": W.astype(dtype),
        "intercept_": b.astype(dtype),
        "n_iter_": iterate.state.n_iter,
        "loss_": iterate.state.loss,
    }


def _is_float(y: Any) -> bool:
    return np.asarray(y).dtype.kind == "f"
