"""scikit-learn's LogisticRegression, by the one-pass kernels."""

from typing import Any, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.linear_model import LogisticRegression as Theirs

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import InMemory
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax.linear_model._fitting import Prepared, check_data, fit_prepared
from fastsoftmax.linear_model._labels import check_weights, encode_labels, shrunk
from fastsoftmax.linear_model._parameters import (
    LIMITS,
    SOLVERS,
    are_defaults,
    features_of,
    is_number,
    l2_of,
    runs_here,
    say_handed_over,
    warn_as_scikit_learn,
    with_rows,
)
from fastsoftmax.linear_model._scores import ScoresMixin


class LogisticRegression(ScoresMixin, Theirs):  # type: ignore[misc]
    r"""Drop-in for ``sklearn.linear_model.LogisticRegression``: change the import.

    Minimises the same function: :math:`\frac{1}{\sum_i s_i} \sum_i s_i \ell_i + \frac{1}{2C\sum_i
    s_i}‖W‖²`, multinomial for three classes and more, binomial with ``coef_`` of shape (1, D) for
    two; the penalty never touches the intercepts. Parameters, attributes, warnings and errors are
    scikit-learn's, of the installed release. "lbfgs", "sag" and "saga" run L-BFGS, and
    "newton-cg" and "newton-cholesky" Newton's method by conjugate gradients.

    L1 and elastic-net penalties, the dual problem and the solver "liblinear" are handed to
    scikit-learn's own `fit`, which takes as long as it takes; with ``verbose`` a line says so.

    Parameters
    ----------
    penalty, C, l1_ratio, dual, tol, fit_intercept, intercept_scaling, class_weight, random_state, \
solver, max_iter, verbose, warm_start, n_jobs
        As in scikit-learn. Where the fit runs here, ``tol`` bounds max|∇| of the function above,
        and ``intercept_scaling``, ``random_state`` and ``n_jobs`` have no effect: threads are
        Numba's.

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

    @with_rows
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n_samples, n_features), dense or sparse, and labels y (n_samples,).

        Parameters
        ----------
        <rows>

        Returns
        -------
        LogisticRegression
            Itself.

        Raises
        ------
        ValueError
            As scikit-learn's.
        KeyboardInterrupt
            On Ctrl-C; the estimator then holds the parameters reached, and has warned of it.
        """
        ratios = [getattr(self, "l1_ratio", 0.0)]
        if runs_here(self, ratios, unpenalised=is_number(self.C, np.inf)):
            self._fit(X, y, sample_weight)
        else:
            say_handed_over(self)
            super().fit(X, y, sample_weight)
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Fit by the kernels."""
        if is_number(self.C, np.inf) or not are_defaults(self, "penalty", "l1_ratio", "n_jobs"):
            warn_as_scikit_learn(Theirs, self, n_rows=2)
        # Whether X is finite shows in the fit: see `check_overflow`.
        X, y = check_data(self, X, y, ensure_all_finite=False, **features_of(self))
        classes, labels = encode_labels(y)
        if len(classes) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {classes[0]!r}"
            )
        weight = check_weights(sample_weight, self.class_weight, X, y, classes, labels)
        weight, factor = shrunk(weight)
        dtype = validate.compute_dtype(X.dtype, "X")
        targets = make_targets(labels, len(labels), len(classes), dtype, sample_weight=weight)
        C = np.inf if getattr(self, "penalty", "l2") is None else self.C
        l2 = l2_of(C, len(classes), targets.total, factor)
        data = InMemory(validate.as_features(X), targets)
        problem = Problem(data, len(classes), l2, self.fit_intercept)
        prepared = Prepared(X, y, sample_weight, problem, classes)
        fit_prepared(self, prepared, solver=SOLVERS[self.solver], at_limit=LIMITS[self.solver])

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description; arrays of other libraries become NumPy's."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags
