"""What estimators predict, by the kernels: one pass over X, and nothing large but the result."""

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted, validate_data

from fastsoftmax._evaluation import scores, validate
from fastsoftmax.linear_model._fitting import FEATURES
from fastsoftmax.reference import Array


def predict_scores(model: Any, X: Any, mode: int) -> Array:
    """Return what ``mode`` makes of the logits of a fitted model, in the dtype of X and ``coef_``.

    A model of one row of weights, for two classes, has the logits 0 and z.
    """
    check_is_fitted(model)
    X = validate_data(model, X, reset=False, **FEATURES)
    W = model.coef_.toarray() if issparse(model.coef_) else model.coef_  # sparsify() was called
    bias = np.broadcast_to(model.intercept_, len(W))
    if len(W) == 1:
        W, bias = np.concatenate([0 * W, W]), np.concatenate([0 * bias, bias])
    dtype = np.result_type(X.dtype, W.dtype)
    W = validate.as_weights(W, X.shape[1], dtype)
    intercepts = validate.as_bias(bias, len(W), dtype)
    return scores.score(validate.as_features(X, empty=True), W, intercepts, mode)
