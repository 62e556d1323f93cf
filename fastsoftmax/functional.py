"""The public functions: docstring, validation, hand over."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate, reference
from fastsoftmax.reference import LinearGrad

__all__ = [
    "LinearGrad",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "warmup",
]


def linear_cross_entropy(
    X: npt.ArrayLike,
    W: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    l2: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    r"""Cross-entropy of a linear softmax model, logits never stored.

    .. math:: J = \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i}) + λ‖W‖²,
              \quad z_i = W x_i + b

    Parameters and errors are those of `linear_cross_entropy_value_and_grad`.

    Returns
    -------
    float
        The loss, accumulated in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import linear_cross_entropy
    >>> X = np.eye(2, dtype=np.float32)
    >>> round(linear_cross_entropy(X, np.zeros((2, 2)), [0, 1]), 6)  # log 2
    0.693147
    """
    return linear_cross_entropy_value_and_grad(
        X, W, y, bias=bias, l2=l2, sample_weight=sample_weight
    )[0]


def linear_cross_entropy_value_and_grad(
    X: npt.ArrayLike,
    W: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    l2: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
) -> tuple[float, LinearGrad]:
    r"""Loss and gradient of a linear softmax model in one pass over X.

    With logits :math:`z_i = W x_i + b` and :math:`p_i = \mathrm{softmax}(z_i)`,

    .. math::
        J &= \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i}) + λ‖W‖² \\
        ∇_W J &= \frac{1}{\sum_i s_i} \sum_i s_i (p_i - e_{y_i}) x_i^T + 2λW \\
        ∇_b J &= \frac{1}{\sum_i s_i} \sum_i s_i (p_i - e_{y_i})

    The (N, K) matrices Z and P never exist. The same bits come out for every thread count.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
        Features; any memory layout, never modified, never copied whole. Its dtype decides the
        compute dtype: float32 and float64 their own; bool, integers of up to 16 bits and float16
        in float32; wider integers in float64.
    W : array_like of shape (n_classes, n_features)
        Weights, cast to the compute dtype.
    y : array_like of int, shape (n_samples,)
        Class labels in [0, n_classes).
    bias : array_like of shape (n_classes,), optional
        Intercepts b; not penalised.
    l2 : float, default 0.0
        λ ≥ 0. The penalty is λ‖W‖², not λ/2‖W‖².
    sample_weight : array_like of shape (n_samples,), optional
        Finite s ≥ 0, not all zero.

    Returns
    -------
    loss : float
        J, accumulated in float64.
    grad : LinearGrad
        ``weight`` (n_classes, n_features) and ``bias`` (n_classes,), in the compute dtype; ``bias``
        is None without a bias, ``input`` is None.

    Raises
    ------
    TypeError
        Where a dtype cannot be computed with (objects, complex numbers, float labels).
    ValueError
        Where a shape, a label, a weight or ``l2`` is out of its range. The message names it.

    References
    ----------
    "Derivative of Cross-Entropy Softmax", course note, CS 584-A, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import linear_cross_entropy_value_and_grad
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss, grad = linear_cross_entropy_value_and_grad(X, np.zeros((2, 2)), [0, 1])
    >>> grad.weight
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    X = _validate.as_features(X)
    dtype = _validate.compute_dtype(X.dtype, "X")
    W = _validate.as_weights(W, X.shape[1], dtype)
    offset = _validate.as_bias(bias, len(W), dtype)
    labels = _validate.as_labels(y, len(X), len(W))
    weight = _validate.as_sample_weight(sample_weight, len(X), dtype)
    l2 = _validate.as_strength(l2)

    if _validate.jit_disabled():
        return reference.linear_cross_entropy_value_and_grad(
            X, W, labels, bias=offset, l2=l2, sample_weight=weight
        )
    from fastsoftmax._engine import Accumulator

    sums = Accumulator(W, offset)
    sums.add(X, labels, weight)
    total = len(X) if weight is None else float(weight.sum(dtype=np.float64))
    loss, weight_grad, bias_grad = sums.finish(total, l2)
    return loss, LinearGrad(weight_grad, None if offset is None else bias_grad, None)


def warmup(dtypes: tuple[Any, ...] = (np.float32, np.float64)) -> None:
    """Compile the common kernels, or load them from Numba's disk cache, now.

    Parameters
    ----------
    dtypes : tuple of dtypes
        Which precisions to prepare.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.warmup()
    """
    for dtype in dtypes:
        # The smallest problem takes the serial kernels, the other one the parallel ones.
        for n_rows, n_features, n_classes in ((1, 1, 2), (2048, 64, 64)):
            X = np.zeros((n_rows, n_features), dtype)
            W = np.zeros((n_classes, n_features), dtype)
            linear_cross_entropy_value_and_grad(X, W, np.zeros(n_rows, np.int64))
