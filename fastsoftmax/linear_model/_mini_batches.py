"""Mini-batches of `SoftmaxRegression`: ``partial_fit`` and the solver "adam"."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, validate_data

from fastsoftmax import _validate, adam
from fastsoftmax._options import make_targets
from fastsoftmax.linear_model._fitting import FEATURES, check_weights, label_numbers, print_line
from fastsoftmax.objective import SoftmaxObjective

Array = npt.NDArray[Any]


class MiniBatches:
    """Training by Adam, for an estimator with the parameters of `SoftmaxRegression`."""

    def partial_fit(
        self: Any,
        X: Any,
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Go on training with one pass over X in mini-batches, by Adam.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
            Some rows; those of the first call set the features' scales.
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
        self._check_parameters()
        first = not hasattr(self, "_optimizer")
        classes = self._check_classes(classes, first)
        # Finite or not, training finds out anyway: see below.
        X, y = validate_data(
            self, X, y, reset=first and not hasattr(self, "coef_"), ensure_all_finite=False,
            **FEATURES,
        )  # fmt: skip
        labels = label_numbers(y, classes)
        if self.class_weight == "balanced":
            raise ValueError('class_weight: expected a dict for partial_fit, got "balanced"')
        weight = check_weights(sample_weight, self.class_weight, X, y, classes, labels)
        checked = _validate.as_features(X)
        targets = make_targets(labels, len(labels), len(classes), X.dtype, sample_weight=weight)
        if first:
            optimizer = self._new_optimizer(checked, len(classes), self._start(classes, X.shape[1]))
        else:
            optimizer = copy.deepcopy(self.__dict__["_optimizer"])
            optimizer.learning_rate, optimizer.l2 = float(self.learning_rate), float(self.l2)
        rng = np.random.default_rng(
            check_random_state(self.random_state).randint(2**31) + optimizer.step
        )
        loss = optimizer.epoch(checked, targets, self._batch_rows(len(labels)), rng)
        if not (np.isfinite(optimizer.W).all() and np.isfinite(loss)):
            check_array(X, accept_sparse="csr", input_name="X")  # NaN or inf: raises and says so
            raise ValueError("the loss overflows: lower learning_rate, or scale the features down")
        self._optimizer, self.classes_, self.loss_ = optimizer, classes, loss
        self.coef_, self.intercept_ = optimizer.W, optimizer.b
        self.n_iter_ = getattr(self, "n_iter_", 0) + 1
        return self

    def _check_classes(self: Any, classes: Any, first: bool) -> Array:
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

    def _new_optimizer(self: Any, X: Any, n_classes: int, start: Any) -> adam.Adam:
        dtype = X.dtype
        W, b = start or (np.zeros((n_classes, X.shape[1])), None)
        return adam.Adam.start(
            X,
            W.astype(dtype),
            np.zeros(n_classes, dtype) if b is None else b.astype(dtype),
            l2=float(self.l2),
            fit_intercept=bool(self.fit_intercept),
            learning_rate=float(self.learning_rate),
        )

    def _forget_batches(self: Any) -> None:
        self.__dict__.pop("_optimizer", None)

    def _batch_rows(self: Any, n_rows: int) -> int:
        return adam.automatic_batch_size(n_rows) if self.batch_size == "auto" else self.batch_size

    def _fit_in_batches(self: Any, objective: SoftmaxObjective, start: Any) -> None:
        """Epochs of Adam, until the loss, on held-out rows with early stopping, stops falling."""
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
        training_part, held_out = objective, None
        if self.early_stopping:
            training_part, held_out = objective.split(self.validation_fraction, rng)
        data: Any = training_part._data  # in memory, as fit made it
        X, targets = data.X, data.targets
        optimizer = self._new_optimizer(X, objective.n_classes, start)
        batch_rows = self._batch_rows(len(X))
        best, waited, epoch, interrupted = np.inf, 0, 0, False
        kept = optimizer.W.copy(), optimizer.b
        try:
            while epoch < self.max_iter and waited < self.n_iter_no_change:
                loss = optimizer.epoch(X, targets, batch_rows, rng)
                if held_out is not None:
                    loss = held_out.value(held_out.pack(optimizer.W, _or_none(optimizer)))
                if not np.isfinite(loss):
                    raise ValueError(
                        "the loss overflows: lower learning_rate, or scale the features"
                    )
                epoch += 1
                if self.verbose:
                    print_line(epoch, loss, None)
                waited = 0 if loss < best - self.tol else waited + 1
                if loss < best or held_out is None:
                    kept = optimizer.W.copy(), optimizer.b
                best = min(best, loss)
        except KeyboardInterrupt:
            interrupted = True
        self.coef_, self.intercept_ = kept
        self.n_iter_, self.loss_ = epoch, best
        if interrupted or waited < self.n_iter_no_change:
            ended = f"after {epoch} epochs while the loss still fell"
            warnings.warn(
                f"interrupted {ended}"
                if interrupted
                else f"stopped {ended}; increase max_iter or tol",
                ConvergenceWarning,
                stacklevel=5,
            )
        if interrupted:
            raise KeyboardInterrupt


def _or_none(optimizer: adam.Adam) -> Array | None:
    return optimizer.b if optimizer.fit_intercept else None
