"""Estimators with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate, reference, solvers
from fastsoftmax.coordinates import StandardizedObjective
from fastsoftmax.objective import SoftmaxObjective

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        'fastsoftmax.linear_model needs scikit-learn and SciPy: pip install "fastsoftmax[train]"'
    ) from error

Array = npt.NDArray[Any]

__all__ = ["SoftmaxRegression"]

# What fit and predict accept; other sparse formats are converted, as scikit-learn does.
_FEATURES = {"dtype": (np.float64, np.float32), "accept_sparse": "csr"}


class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Multinomial logistic regression on the fused kernel.

    Minimises :math:`J(W, b) = \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i})
    + λ‖W‖²` with :math:`z_i = W x_i + b` by L-BFGS. There is one row of W for each class, for two
    classes as well. Features are standardised virtually: X is neither copied nor changed, and the
    penalty stays on W as it is, so only the number of iterations depends on their scales.

    Parameters
    ----------
    l2 : float, default 1e-4
        λ ≥ 0. scikit-learn's ``C`` corresponds to λ = 1/(2·C·Σs).
    tol : float, default 1e-4
        The fit ends when no entry of ∇J, in the original coordinates, exceeds it.
    max_iter : int, default 1000
        Most iterations of the solver.
    fit_intercept : bool, default True
        Whether b exists; it is never penalised.

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
        tol: float = 1e-4,
        max_iter: int = 1000,
        fit_intercept: bool = True,
    ) -> None:
        self.l2 = l2
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> SoftmaxRegression:
        """Fit to X (n_samples, n_features) and labels y (n_samples,).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Finite features; float32 is computed in float32, everything else in float64.
        y : array_like of shape (n_samples,)
            Labels of any sortable kind, at least two different ones.
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
        progress: solvers.Progress | None = None,
    ) -> SoftmaxRegression:
        l2, tol = _validate.as_strength(self.l2), _validate.as_strength(self.tol, "tol")
        max_iter = _validate.as_count(self.max_iter, "max_iter", at_least=1)
        X, y = validate_data(self, X, y, **_FEATURES)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y: expected at least two classes, got only one class: {classes[0]}")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, X, dtype=X.dtype, ensure_non_negative=True
            )
        objective = SoftmaxObjective(
            X,
            labels,
            n_classes=len(classes),
            l2=l2,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
        )
        self._minimize(objective, tol, max_iter, progress)
        self.classes_ = classes
        return self

    def _minimize(
        self,
        objective: SoftmaxObjective,
        tol: float,
        max_iter: int,
        progress: solvers.Progress | None,
    ) -> None:
        standardized = StandardizedObjective(objective)
        solution = solvers.minimize_lbfgs(
            standardized,
            standardized.x0,
            tol=tol,
            max_iter=max_iter,
            norm=lambda g: float(np.abs(standardized.original_gradient(g)).max()),
            progress=progress,
        )
        if not np.isfinite(solution.loss):
            raise ValueError("X: values so large that the loss overflows; scale the features down")
        if solution.gradient_norm > tol:
            warnings.warn(
                f"stopped after {solution.n_iter} iterations with max|gradient| = "
                f"{solution.gradient_norm:.1e} > tol = {tol:.1e} ({solution.message}); increase "
                "max_iter, l2 or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
        W, b = standardized.original(solution.x)
        self.coef_ = W.astype(objective.dtype)
        self.intercept_ = (np.zeros(len(W)) if b is None else b).astype(objective.dtype)
        self.n_iter_ = solution.n_iter

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of what this estimator takes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **_FEATURES)
        logits: Array = X @ self.coef_.T + self.intercept_
        return logits

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Logits (n_samples, n_classes); for two classes their difference z₁ - z₀ (n_samples,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: npt.ArrayLike) -> Array:
        """Name the most probable class of every row."""
        best = self._logits(X).argmax(axis=1)
        labels: Array = self.classes_[best]
        return labels

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Class probabilities (n_samples, n_classes)."""
        return reference.softmax(self._logits(X))

    def predict_log_proba(self, X: npt.ArrayLike) -> Array:
        """Logarithms of the probabilities, by log-softmax: finite where they underflow."""
        return reference.log_softmax(self._logits(X))
