"""What estimators predict, by the kernels: one pass over X, and nothing large but the result."""

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from fastsoftmax._evaluation import scores, validate
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.docs import fill_in
from fastsoftmax._evaluation.scores import ARGMAX, LOG_SOFTMAX, LOGITS, SOFTMAX
from fastsoftmax.linear_model._fitting import check_data
from fastsoftmax.reference import Array

_shared = fill_in(
    X="""
        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
            Finite features, as in `fit`.""",
    raises="""
        Raises
        ------
        NotFittedError
            Before `fit` or `partial_fit`.
        ValueError
            Where X has other features than in `fit`, or NaN or inf.""",
)


class ScoresMixin:
    """Predictions of a linear model with ``coef_``, ``intercept_`` and ``classes_``."""

    classes_: Array

    @_shared
    def decision_function(self, X: Any) -> Array:
        """Logits of every class; for two classes their difference.

        <X>

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            z = X Wᵀ + b, or z₁ - z₀.

        <raises>
        """
        logits = _scores(self, X, LOGITS)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    @_shared
    def predict(self, X: Any) -> Array:
        """Name the most probable class of every row.

        <X>

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, of the dtype of ``classes_``.

        <raises>
        """
        best = _scores(self, X, ARGMAX)
        return np.asarray(self.classes_[best])

    @_shared
    def predict_proba(self, X: Any) -> Array:
        """Class probabilities of every row.

        <X>

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            softmax(X Wᵀ + b), in the dtype that X and ``coef_`` are computed in.

        <raises>
        """
        return _scores(self, X, SOFTMAX)

    @_shared
    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of the probabilities, which are finite where the probabilities underflow.

        <X>

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            log softmax(X Wᵀ + b), in the dtype that X and ``coef_`` are computed in.

        <raises>
        """
        return _scores(self, X, LOG_SOFTMAX)


def _scores(model: Any, X: Any, mode: int) -> Array:
    """Return what ``mode`` makes of the logits of a fitted model; see `scores_of`."""
    check_is_fitted(model)
    X = check_data(model, X, reset=False)
    W = model.coef_.toarray() if issparse(model.coef_) else model.coef_  # sparsify() was called
    bias = np.broadcast_to(model.intercept_, len(W))
    return scores_of(validate.as_features(X, empty=True), W, bias, mode)


def scores_of(X: Array | CSR, W: Array, bias: Array | None, mode: int) -> Array:
    """Return what ``mode`` makes of the logits of checked rows, in the dtype of X and W.

    One row of weights stands for two classes, whose logits are 0 and z.
    """
    if len(W) == 1:
        W, bias = (
            np.concatenate([np.zeros_like(W), W]),
            None if bias is None else np.append(0, bias),
        )
    dtype = np.result_type(X.dtype, W.dtype)
    W = validate.as_weights(W, X.shape[1], dtype)
    return scores.score(X, W, validate.as_bias(bias, len(W), dtype), mode)
