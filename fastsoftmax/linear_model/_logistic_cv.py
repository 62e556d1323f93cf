"""scikit-learn's LogisticRegressionCV, by the one-pass kernels."""

import numbers
from typing import Any, NamedTuple, Self

import numpy as np
import sklearn
from sklearn.base import _fit_context
from sklearn.linear_model import LogisticRegressionCV as Theirs
from sklearn.model_selection import check_cv
from sklearn.utils import metadata_routing

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import Dataset, Fold, InMemory
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import Targets, make_targets
from fastsoftmax._optimize import minimize
from fastsoftmax._optimize.sample import Sample
from fastsoftmax.linear_model._cv_scores import FoldScorer
from fastsoftmax.linear_model._fitting import check_data, check_overflow, end_of_fit
from fastsoftmax.linear_model._labels import check_weights, encode_labels, shrunk
from fastsoftmax.linear_model._parameters import (
    LIMITS,
    SOLVERS,
    are_defaults,
    features_of,
    l2_of,
    runs_here,
    say_handed_over,
    warn_as_scikit_learn,
    with_rows,
)
from fastsoftmax.linear_model._scores import ScoresMixin
from fastsoftmax.reference import Array


class LogisticRegressionCV(ScoresMixin, Theirs):  # type: ignore[misc]
    """Drop-in for ``sklearn.linear_model.LogisticRegressionCV``: change the import.

    For every fold, `LogisticRegression` is fitted for the values of C in ascending order and scored
    on the rows left out; then the best C is fitted to all rows. A fit begins where the one before
    it ended, or, from the second fold on, where the folds before it lead one to expect its optimum.
    Parameters, attributes, warnings and errors are scikit-learn's, of the installed release. X is
    not copied, except for the rows that a fold leaves out, while they are scored; float32 is
    computed in float32.

    L1 and elastic-net penalties, the dual problem and the solver "liblinear" are handed to
    scikit-learn's own `fit`, which takes as long as it takes; with ``verbose`` a line says so.

    Parameters
    ----------
    Cs, l1_ratios, fit_intercept, cv, dual, penalty, scoring, solver, tol, max_iter, class_weight, \
n_jobs, verbose, refit, intercept_scaling, random_state, use_legacy_attributes
        As in scikit-learn. Where the fit runs here, ``tol`` and ``solver`` mean what they mean in
        `LogisticRegression`, and ``n_jobs`` has no effect: folds come one after the other, and the
        threads are Numba's. ``verbose`` prints a line for every fold and C.

    Attributes
    ----------
    coef_, intercept_, classes_, C_, Cs_, l1_ratio_, l1_ratios_, coefs_paths_, scores_, n_iter_, \
n_features_in_, feature_names_in_
        As in scikit-learn, in float64 as there. ``n_iter_`` is 0 where the point at which a
        fit begins is good enough.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import scale
    >>> from fastsoftmax.linear_model import LogisticRegressionCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegressionCV(
    ...     Cs=5, cv=3, l1_ratios=(0,), scoring="neg_log_loss", use_legacy_attributes=False
    ... ).fit(scale(X), y)
    >>> model.C_, model.scores_.shape, bool(model.score(scale(X), y) > -0.1)
    (1.0, (3, 1, 5), True)
    """

    # In one of two layouts each.
    C_: Any
    l1_ratio_: Any
    coefs_paths_: Any
    scores_: Any
    n_iter_: Array

    @with_rows
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Self:
        """Find the best C for X (n_samples, n_features) and labels y (n_samples,), and fit to it.

        Parameters
        ----------
        <rows>
        **params
            Metadata for the splitter and the scorer, by scikit-learn's routing.

        Returns
        -------
        LogisticRegressionCV
            Itself.

        Raises
        ------
        ValueError
            As scikit-learn's; for a C that is not positive, and for a fold without weight.
        """
        given = getattr(self, "l1_ratios", None)
        if given is None or isinstance(given, str):  # "warn": the default
            given = [None]
        ratios = list(given if isinstance(given, (list, tuple)) else np.ravel(given))
        # scikit-learn refuses params that cannot be routed.
        refused = bool(params) and not sklearn.get_config()["enable_metadata_routing"]
        if ratios and not refused and runs_here(self, ratios):
            self._fit(X, y, sample_weight, ratios, params)
        else:
            if not refused:
                say_handed_over(self)
            super().fit(X, y, sample_weight, **params)
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def _fit(self, X: Any, y: Any, sample_weight: Any, ratios: list[Any], params: Any) -> None:
        """Fit by the kernels."""
        self._warn()
        X, y = check_data(self, X, y, **features_of(self))
        classes, labels = encode_labels(y)
        self._check_classes(classes)
        for_splitter, for_scorer = self._route(sample_weight, params)
        folds = check_cv(self.cv, y, classifier=True).split(X, y, **for_splitter)
        weight = check_weights(sample_weight, self.class_weight, X, y, classes, labels)
        weight, factor = shrunk(weight)
        rows = _Rows(X, y, labels, classes, weight, factor)
        Cs = _as_Cs(self.Cs)
        scorer = FoldScorer(self.scoring, X, y, labels, classes, sample_weight, for_scorer)
        whole = InMemory(validate.as_features(X), rows.targets(weight))
        # Rows that a fold leaves out are as good as any for means and preconditioners.
        sample = Sample(self._problem(whole, rows, C=np.inf))

        found: list[tuple[Array, Array, list[float]]] = []
        for train, test in folds:
            guide = np.mean([coefs for coefs, *_ in found], axis=0) if found else None
            coefs, n_iter = self._path(rows.fold(train), rows, Cs, sample, guide)
            found.append((coefs, n_iter, scorer.scores(test, Cs, coefs)))
            self._tell(len(found), Cs, *found[-1][1:])
        paths, n_iter, scores = (np.stack(of_folds) for of_folds in zip(*found, strict=True))
        self.classes_, self.Cs_ = classes, Cs
        if self.refit:
            best = int(np.argmax(scores.sum(axis=0)))
            guide = paths[:, best].mean(axis=0, keepdims=True)
            ((coef,), _) = self._path(whole, rows, Cs[best : best + 1], sample, guide)
            C, ratio = Cs[best], ratios[0]
        else:
            each = scores.argmax(axis=1)
            coef = paths[np.arange(len(paths)), each].mean(axis=0)
            C, ratio = Cs[each].mean(), 0.0
        self.coef_ = coef[:, : X.shape[1]]
        self.intercept_ = coef[:, -1] if self.fit_intercept else np.zeros(len(coef))
        self._leave(paths, scores, n_iter, C, ratio, ratios)

    def _warn(self) -> None:
        """Warn as scikit-learn does, where it may have something to say."""
        awaited = [self.l1_ratios, self.scoring, self.use_legacy_attributes]
        is_default = [isinstance(value, str) and value == "warn" for value in awaited]
        if any(is_default) or self.l1_ratios is None or not are_defaults(self, "penalty"):
            scoring = self.scoring if is_default[1] else None
            few = {"Cs": [1.0], "cv": 2, "refit": False, "n_jobs": None, "scoring": scoring}
            warn_as_scikit_learn(Theirs, self, n_rows=4, **few)

    def _check_classes(self, classes: Array) -> None:
        """Refuse what scikit-learn refuses, in its words."""
        if len(classes) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {classes[0]}."
            )
        weights = self.class_weight
        if isinstance(weights, dict) and not set(weights) <= set(classes):
            raise ValueError(
                "The given class_weight dict must have the class labels as keys; "
                f"classes={classes} but key={weights.keys()}"
            )

    def _route(self, sample_weight: Any, params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metadata of the splitter, and those of the scorer."""
        if sklearn.get_config()["enable_metadata_routing"]:
            given = {"sample_weight": sample_weight, **params}
            routed = metadata_routing.process_routing(self, "fit", **given)
            return routed.splitter.split, routed.scorer.score
        return {}, {} if sample_weight is None else {"sample_weight": sample_weight}

    def _problem(self, data: Dataset, rows: "_Rows", C: float) -> Problem:
        """Return the problem that C poses on some rows."""
        K = len(rows.classes)
        return Problem(data, K, l2_of(C, K, data.total, rows.factor), self.fit_intercept)

    def _path(
        self, data: Dataset, rows: "_Rows", Cs: Array, sample: Sample, guide: Array | None
    ) -> tuple[Array, Array]:
        """Return the coefficients for each C, see `_coefficients`, and the iterations they took.

        ``guide`` are those of similar rows, if they are known. From C to C the coefficients here
        are expected to change as those do, which saves a fifth of the passes.
        """
        last, before = None, -1
        coefs: dict[int, Array] = {}
        n_iter = np.empty(len(Cs), np.int32)
        for j in np.argsort(Cs, kind="stable"):
            problem = self._problem(data, rows, Cs[j])
            begin: dict[str, Any] = {}
            if last is not None:
                begin["state"] = minimize.carried_over(last, problem.l2)
            if guide is not None and last is None:
                begin["start"] = self._split(guide[j])
            elif guide is not None and (guide[j] != guide[before]).any():
                begin["start"] = self._split(_along(guide[before], guide[j], coefs[before]))
            last = minimize.minimize(
                problem,
                solver=SOLVERS[self.solver],
                tol=self.tol,
                max_iter=self.max_iter,
                sample=sample,
                **begin,
            )
            if last.state.message == minimize.INTERRUPTED:
                raise KeyboardInterrupt
            check_overflow(last, self, rows.X)
            end_of_fit(last, self.tol, LIMITS[self.solver])
            coefs[j], n_iter[j] = _coefficients(last, self.fit_intercept), last.state.n_iter
            before = j
        return np.stack([coefs[j] for j in range(len(Cs))]), n_iter

    def _split(self, coef: Array) -> tuple[Array, Array | None]:
        """Return W (K, D) and b (K,) of coefficients, see `_coefficients`."""
        both = np.concatenate([-coef, coef]) / 2 if len(coef) == 1 else coef
        return (both[:, :-1], both[:, -1]) if self.fit_intercept else (both, None)

    def _tell(self, fold: int, Cs: Array, n_iter: Array, scores: list[float]) -> None:
        """Print what has become of a fold."""
        if self.verbose:
            for C, n, score in zip(Cs, n_iter, scores, strict=True):
                print(f"fold {fold}, C = {C:.3g}: {n} iterations, score {score:.6g}")

    def _leave(
        self, paths: Array, scores: Array, n_iter: Array, C: float, ratio: Any, ratios: Any
    ) -> None:
        """Leave the results on the estimator, in the layout that ``use_legacy_attributes`` names.

        Every ratio in ``l1_ratios`` is that of the same penalty here, and has the same results.
        """
        n_rows, given = paths.shape[2], ratios != [None]
        # (n_folds, n_l1_ratios, n_cs, ...)
        paths, scores, n_iter = (np.stack([a] * len(ratios), 1) for a in (paths, scores, n_iter))
        self.l1_ratios_ = np.asarray(ratios)
        if self.use_legacy_attributes:
            keys = self.classes_ if n_rows > 1 else self.classes_[1:]
            last = slice(None) if given else 0  # no axis of ratios where none were given
            scores = scores.swapaxes(1, 2)[:, :, last]
            self.coefs_paths_ = {
                k: paths[:, :, :, i].swapaxes(1, 2)[:, :, last] for i, k in enumerate(keys)
            }
            self.scores_ = {k: scores.copy() for k in keys}
            self.n_iter_ = n_iter.swapaxes(1, 2)[None, :, :, last]
            self.C_, self.l1_ratio_ = np.array([C] * n_rows), np.array([ratio] * n_rows)
            return
        self.coefs_paths_, self.scores_, self.n_iter_ = paths, scores, n_iter
        self.C_, self.l1_ratio_ = float(C), float(ratio) if given else 0.0

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description; arrays of other libraries become NumPy's."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags


def _as_Cs(Cs: Any) -> Array:
    """Return the values of C, positive numbers."""
    array = np.logspace(-4, 4, Cs) if isinstance(Cs, numbers.Integral) else np.asarray(Cs)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not (array > 0).all():
        raise ValueError(f"Cs: expected a positive integer or positive numbers, got {Cs!r}")
    return array


def _along(before: Array, after: Array, here: Array) -> Array:
    """Where a path that is ``here`` is expected to go, if its guide goes from one point to another.

    That is after + (here - before)·|after| / |before|: what they differ by grows as the guide does.
    """
    growth = np.linalg.norm(after) / max(float(np.linalg.norm(before)), 1e-300)
    return np.asarray(after + growth * (here - before))


def _coefficients(last: minimize.Iterate, fit_intercept: bool) -> Array:
    """W and, behind it, b as scikit-learn keeps them: (K, D + 1), for two classes (1, D + 1)."""
    W, b = last.parameters
    both = np.column_stack([W, b]) if fit_intercept else W
    return both[1:] - both[:1] if len(both) == 2 else both


class _Rows(NamedTuple):
    """Checked rows, the numbers of their labels among the classes, and weights, None for ones.

    The weights have been divided by ``factor``.
    """

    X: Any
    y: Array
    labels: Array
    classes: Array
    weight: Array | None
    factor: float

    def targets(self, weight: Array | None) -> Targets:
        """Targets of all rows with these weights."""
        n_rows = len(self.labels)
        dtype = validate.compute_dtype(self.X.dtype, "X")
        return make_targets(self.labels, n_rows, len(self.classes), dtype, sample_weight=weight)

    def fold(self, train: Array) -> Fold:
        """Return all rows, but those that are not in ``train`` with a weight of zero."""
        n_rows = len(self.labels)
        counts = np.bincount(np.arange(n_rows)[train], minlength=n_rows)
        counts = counts.astype(validate.compute_dtype(self.X.dtype, "X"))
        weight = counts if self.weight is None else counts * self.weight
        if not weight.any():
            raise ValueError("cv: expected folds whose rows have a weight, got one without")
        return Fold(validate.as_features(self.X), self.targets(weight))
