"""scikit-learn's LogisticRegression, by the one-pass kernels."""

import functools
import inspect
import warnings
from typing import Any, Self

import numpy as np
from sklearn import linear_model
from sklearn.base import _fit_context

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import InMemory
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax.linear_model._fitting import Prepared, check_data, fit_prepared
from fastsoftmax.linear_model._labels import check_weights, encode_labels
from fastsoftmax.linear_model._scores import ScoresMixin

# scikit-learn's solvers, and the one that runs here instead. Both Newton solvers are the same here.
_SOLVERS = {"lbfgs": "auto", "newton-cg": "newton-cg", "newton-cholesky": "newton-cg"}
# How scikit-learn's warning begins where a solver needs more iterations.
_LIMITS = {
    "lbfgs": "lbfgs failed to converge",
    "newton-cg": "newton-cg failed to converge. Increase the number of iterations.",
    "newton-cholesky": "Newton solver did not converge after {n_iter} iterations.",
}
_signature = inspect.signature(linear_model.LogisticRegression)
_PENALTY_IS_DEPRECATED = _signature.parameters["penalty"].default == "deprecated"


class LogisticRegression(ScoresMixin, linear_model.LogisticRegression):  # type: ignore[misc]
    r"""Drop-in for ``sklearn.linear_model.LogisticRegression``: change the import.

    Minimises the same function: :math:`\frac{1}{\sum_i s_i} \sum_i s_i \ell_i + \frac{1}{2C\sum_i
    s_i}‖W‖²`, multinomial for three classes and more, binomial with ``coef_`` of shape (1, D) for
    two; the penalty never touches the intercepts. Parameters, attributes, warnings and errors are
    scikit-learn's, of the installed release. "lbfgs" chooses between L-BFGS and Newton's method
    by itself; "newton-cg" and "newton-cholesky" both run Newton's method with conjugate gradients.

    Not here: L1 and elastic-net penalties, and the solvers "liblinear", "sag" and "saga". They
    raise a ValueError.

    Parameters
    ----------
    penalty, C, l1_ratio, dual, tol, fit_intercept, intercept_scaling, class_weight, random_state, \
solver, max_iter, verbose, warm_start, n_jobs
        As in scikit-learn. ``tol`` bounds max|∇| of the function above. ``intercept_scaling`` and
        ``n_jobs`` have no effect: threads are Numba's.

    Attributes
    ----------
    coef_, intercept_, classes_, n_iter_, n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from fastsoftmax.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression(C=1.0, max_iter=1000).fit(X, y)
    >>> model.coef_.shape, bool(model.score(X, y) > 0.94)
    ((1, 30), True)
    """

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n_samples, n_features), dense or sparse, and labels y (n_samples,).

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
            Finite features; float32 is computed in float32, everything else in float64.
        y : array_like of shape (n_samples,)
            Labels, at least two different ones.
        sample_weight : array_like of shape (n_samples,), optional
            Weights ≥ 0.

        Returns
        -------
        LogisticRegression
            Itself.

        Raises
        ------
        ValueError
            As scikit-learn's; also for penalties and solvers that are not here.
        KeyboardInterrupt
            On Ctrl-C; the estimator then holds the parameters reached, and has warned of it.
        """
        self._check_supported()
        # Whether X is finite shows in the fit: see `check_overflow`.
        X, y = check_data(self, X, y, ensure_all_finite=False)
        classes, labels = encode_labels(y)
        if len(classes) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {classes[0]!r}"
            )
        weight = check_weights(sample_weight, self.class_weight, X, y, classes, labels)
        dtype = validate.compute_dtype(X.dtype, "X")
        targets = make_targets(labels, len(labels), len(classes), dtype, sample_weight=weight)
        # Two penalised rows ±w/2 have half the squared norm of w. Without a penalty C is infinite.
        C = np.inf if self.penalty is None else float(self.C)
        l2 = (1.0 if len(classes) == 2 else 0.5) / (C * targets.total)
        data = InMemory(validate.as_features(X), targets)
        problem = Problem(data, len(classes), l2, self.fit_intercept)
        prepared = Prepared(X, y, sample_weight, problem, classes)
        fit_prepared(self, prepared, solver=_SOLVERS[self.solver], at_limit=_LIMITS[self.solver])
        return self

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description; arrays of other libraries become NumPy's."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    def _check_supported(self) -> None:
        """Refuse what scikit-learn has and this estimator does not."""
        if self.solver not in _SOLVERS:
            raise ValueError(
                f"fastsoftmax's LogisticRegression supports the solvers {list(_SOLVERS)}, "
                f"got solver={self.solver!r}"
            )
        if self.dual:
            raise ValueError(f"Solver {self.solver} supports only dual=False, got dual={self.dual}")
        l1_ratio = getattr(self, "l1_ratio", None)
        given = self.penalty if self.penalty != "deprecated" else None
        if given in ("l1", "elasticnet") or (l1_ratio and given is None):
            raise ValueError(
                f"Solver {self.solver} supports only 'l2' or None penalties, got penalty="
                f"{self.penalty!r} and l1_ratio={l1_ratio!r}: for L1 and elastic net use "
                "sklearn.linear_model.LogisticRegression"
            )
        self._warn_as_scikit_learn(l1_ratio)

    def _warn_as_scikit_learn(self, l1_ratio: float | None) -> None:
        """Warn as scikit-learn 1.8 and later does of parameters on their way out."""
        warn = functools.partial(warnings.warn, stacklevel=5)
        if _PENALTY_IS_DEPRECATED and self.penalty != "deprecated":
            warn(
                "'penalty' was deprecated in version 1.8 and will be removed in 1.10. To avoid "
                "this warning, leave 'penalty' set to its default value and use 'l1_ratio' or 'C' "
                "instead.",
                FutureWarning,
            )
        if _PENALTY_IS_DEPRECATED and l1_ratio is None:
            warn(
                "'l1_ratio=None' was deprecated in version 1.8 and will trigger an error in 1.10. "
                "Use 0<=l1_ratio<=1 instead.",
                FutureWarning,
            )
        if l1_ratio and 0 < l1_ratio < 1:
            warn(
                "l1_ratio parameter is only used when penalty is 'elasticnet'. Got "
                f"(penalty={self.penalty})"
            )
        if _PENALTY_IS_DEPRECATED and self.penalty == "l2" and l1_ratio != 0:
            warn(
                f"Inconsistent values: penalty={self.penalty} with l1_ratio={l1_ratio}. penalty "
                "is deprecated. Please use l1_ratio only."
            )
        if self.penalty is None and self.C != 1.0:
            warn("Setting penalty=None will ignore the C and l1_ratio parameters")
        if _PENALTY_IS_DEPRECATED and self.n_jobs is not None:
            warn(
                "'n_jobs' has no effect since 1.8 and will be removed in 1.10. You provided "
                f"'n_jobs={self.n_jobs}', please leave it unspecified.",
                FutureWarning,
            )
