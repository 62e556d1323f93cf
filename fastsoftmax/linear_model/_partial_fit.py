"""Training of `SoftmaxRegression` in mini-batches: ``partial_fit``."""

import copy
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, validate_data

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax.linear_model import _adam
from fastsoftmax.linear_model._fitting import FEATURES, check_parameters
from fastsoftmax.linear_model._labels import check_weights, label_numbers
from fastsoftmax.reference import Array


class PartialFit:
    """Training by Adam, for an estimator with the parameters of `SoftmaxRegression`."""

    def partial_fit(
        self: Any, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> Any:
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
        options = FEATURES if earlier is None else {**FEATURES, "dtype": earlier.W.dtype}
        reset = not hasattr(self, "coef_")
        X, y = validate_data(self, X, y, reset=reset, ensure_all_finite=False, **options)
        labels = label_numbers(y, classes)
        if self.class_weight == "balanced":
            raise ValueError('class_weight: expected a dict for partial_fit, got "balanced"')
        weight = check_weights(sample_weight, self.class_weight, X, y, classes, labels)
        checked = validate.as_features(X)
        targets = make_targets(labels, len(labels), len(classes), X.dtype, sample_weight=weight)
        optimizer = self._begin(len(classes), X) if earlier is None else copy.deepcopy(earlier)
        optimizer.learning_rate, optimizer.l2 = float(self.learning_rate), float(self.l2)
        seed = check_random_state(self.random_state).randint(2**31) + optimizer.step
        with np.errstate(over="ignore", invalid="ignore"):
            optimizer.see(checked)
            batch_rows = self._batch_rows(len(labels))
            loss = optimizer.epoch(checked, targets, batch_rows, np.random.default_rng(seed))
        if not (np.isfinite(optimizer.W).all() and np.isfinite(loss)):
            check_array(X, accept_sparse="csr", input_name="X")  # NaN or inf: raises and says so
            raise ValueError("the loss overflows: lower learning_rate, or scale the features down")
        self._optimizer, self.classes_, self.loss_ = optimizer, classes, loss
        self.coef_, self.intercept_ = optimizer.W, optimizer.b
        self.n_iter_ = getattr(self, "n_iter_", 0) + 1
        return self

    def _check_classes(self: Any, classes: Any, first: bool) -> Array:
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

    def _begin(self: Any, n_classes: int, X: Any) -> _adam.Adam:
        """Begin at the parameters of an earlier fit or of a loaded model, or at zero."""
        W, b = np.zeros((n_classes, X.shape[1])), np.zeros(n_classes)
        if hasattr(self, "coef_"):
            W, b = self.coef_, self.intercept_
        return _adam.Adam.start(
            W.astype(X.dtype),
            b.astype(X.dtype),
            l2=float(self.l2),
            fit_intercept=bool(self.fit_intercept),
            learning_rate=float(self.learning_rate),
        )

    def _batch_rows(self: Any, n_rows: int) -> int:
        """Rows of a mini-batch."""
        return _adam.automatic_batch_size(n_rows) if self.batch_size == "auto" else self.batch_size
