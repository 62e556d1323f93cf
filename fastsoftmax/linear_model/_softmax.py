"""Multinomial logistic regression with this project's own parameters."""

import copy
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax.linear_model._adam import Adam
from fastsoftmax.linear_model._callbacks import CallbackSupportMixin, with_callbacks
from fastsoftmax.linear_model._fitting import (
    check_data,
    check_parameters,
    fit_prepared,
    prepare,
    refuse_infinite,
)
from fastsoftmax.linear_model._labels import check_weights, label_numbers
from fastsoftmax.linear_model._scores import ScoresMixin
from fastsoftmax.reference import Array

Solver = Literal["auto", "lbfgs", "newton-cg"]

_MAX_BATCH = 32768  # rows of a mini-batch of `partial_fit`, unless they are given


class SoftmaxRegression(ScoresMixin, CallbackSupportMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Multinomial logistic regression on the fused kernel.

    Minimises :math:`J(W, b) = \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i})
    + λ‖W‖²` with :math:`z_i = W x_i + b`. There is one row of W for each class, for two classes as
    well. X is neither copied nor changed. A preconditioner, made of a sample of the rows, takes
    scales and correlations of the features out of the solvers' way; the optimum stays where it is.

    Parameters
    ----------
    l2 : float, default 1e-4
        λ ≥ 0. scikit-learn's ``C`` corresponds to λ = 1/(2·C·Σs), for two classes to twice that.
    solver : {"auto", "lbfgs", "newton-cg"}, default "auto"
        "auto" and "lbfgs" run L-BFGS, "newton-cg" Newton's method by conjugate gradients, which
        as a rule takes more passes.
    tol : float, default 1e-4
        The fit ends when no entry of ∇J, in the original coordinates, exceeds it.
    max_iter : int, default 1000
        Most iterations of the solver.
    fit_intercept : bool, default True
        Whether b exists; it is never penalised.
    class_weight : dict or "balanced", optional
        Weights of the classes, by label, as in scikit-learn.
    warm_start : bool, default False
        Whether fit starts from the parameters of an earlier one.
    verbose : int, default 0
        Print a line after every iteration.
    random_state : int, RandomState instance or None, default None
        Order of the mini-batches of `partial_fit`.
    batch_size : int or "auto", default "auto"
        Rows of a mini-batch of `partial_fit`.
    learning_rate : float, default 0.02
        Step of `partial_fit` in the coordinates of standardised features; it falls as 1/√steps.

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

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
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
        check_parameters(self)
        fit_prepared(self, prepare(self, X, y, sample_weight))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go on training with one pass over X in mini-batches, by Adam.

        After `fit`, or on a model that was loaded, training goes on from its parameters.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
            Some rows. The features' means and scales follow the rows of all calls.
        y : array_like of shape (n_samples,)
            Their labels.
        classes : array_like of shape (n_classes,), optional
            All labels there will be; needed in the first call.
        sample_weight : array_like of shape (n_samples,), optional
            Finite weights ≥ 0.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        ValueError
            As `fit`; where ``classes`` is missing, changes, or lacks a label of ``y``. Nothing has
            been learnt then.
        """
        check_parameters(self)
        earlier = self.__dict__.get("_optimizer")
        classes = self._check_classes(classes, earlier is None)
        # Training goes on in the precision in which it began. Whether X is finite it finds out.
        begun = None if earlier is None else earlier.W.dtype
        reset = not hasattr(self, "coef_")
        X, y = check_data(self, X, y, dtype=begun, reset=reset, ensure_all_finite=False)
        labels = label_numbers(y, classes)
        if self.class_weight == "balanced":
            raise ValueError('class_weight: expected a dict for partial_fit, got "balanced"')
        weight = check_weights(sample_weight, self.class_weight, X, y, classes, labels)
        checked = validate.as_features(X)
        dtype = validate.compute_dtype(X.dtype, "X")
        targets = make_targets(labels, len(labels), len(classes), dtype, sample_weight=weight)
        if earlier is not None:
            optimizer = copy.deepcopy(earlier)
        else:  # at the parameters of an earlier fit or of a loaded model, or at zero
            zeros = np.zeros((len(classes), X.shape[1])), np.zeros(len(classes))
            W, b = zeros if reset else (self.coef_, self.intercept_)
            optimizer = Adam(W.astype(dtype), b.astype(dtype), bool(self.fit_intercept))
        optimizer.learning_rate, optimizer.l2 = float(self.learning_rate), float(self.l2)
        batch_rows = self.batch_size
        if batch_rows == "auto":  # enough to make progress, each large enough for all cores
            batch_rows = min(max(len(labels) // 30, 64), _MAX_BATCH)
        seed = check_random_state(self.random_state).randint(2**31) + optimizer.step
        with np.errstate(over="ignore", invalid="ignore"):
            optimizer.see(checked)
            loss = optimizer.epoch(checked, targets, batch_rows, np.random.default_rng(seed))
        if not (np.isfinite(optimizer.W).all() and np.isfinite(loss)):
            refuse_infinite(X)
            raise ValueError("the loss overflows: lower learning_rate, or scale the features down")
        self._optimizer, self.classes_, self.loss_ = optimizer, classes, loss
        self.coef_: Array = optimizer.W
        self.intercept_: Array = optimizer.b
        self.n_iter_ = getattr(self, "n_iter_", 0) + 1
        return self

    def _check_classes(self, classes: Any, first: bool) -> Array:
        """Return all classes there will be, which must be those of earlier calls."""
        if classes is None:
            if not hasattr(self, "classes_"):
                raise ValueError("classes: expected all labels in the first call of partial_fit")
            return np.asarray(self.classes_)
        classes = np.unique(classes)
        if len(classes) < 2:
            raise ValueError(f"classes: expected at least two labels, got {classes}")
        if (not first or hasattr(self, "coef_")) and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes: expected {self.classes_} as before, got {classes}")
        return np.asarray(classes)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of what this estimator takes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = False
        return tags
