"""Scores of rows by a linear softmax model: probabilities, their logarithms, the best class."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation import scores, validate
from fastsoftmax._evaluation.docs import X_AND_W, fill_in
from fastsoftmax.reference import Array

__all__ = ["linear_argmax", "linear_log_softmax", "linear_softmax"]

_shared = fill_in(
    parameters=X_AND_W
    + """
    bias : array_like of shape (n_classes,), optional
        Intercepts b.""",
    out="""
    out : ndarray of shape (n_samples, n_classes), optional
        Where to write the result: C-contiguous, of the compute dtype, sharing no memory with the
        other arguments.""",
    raises="""
    Raises
    ------
    TypeError
        Where a dtype cannot be computed with, or ``out`` has another dtype than the result.
    ValueError
        Where a shape or ``out`` is not as described. The message names the argument; nothing has
        been written then.""",
)


@_shared
def linear_softmax(
    X: npt.ArrayLike, W: npt.ArrayLike, *, bias: npt.ArrayLike | None = None, out: Any = None
) -> Array:
    r"""Class probabilities of a linear softmax model, logits never stored.

    .. math:: p_{ik} = \exp(z_{ik}) / \sum_j \exp(z_{ij}), \quad z_i = W x_i + b

    Parameters
    ----------
    <parameters>
    <out>

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The same bits for any number of threads.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import linear_softmax
    >>> linear_softmax(np.eye(2), np.zeros((2, 2)))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    return _score(X, W, bias, scores.SOFTMAX, out)


@_shared
def linear_log_softmax(
    X: npt.ArrayLike, W: npt.ArrayLike, *, bias: npt.ArrayLike | None = None, out: Any = None
) -> Array:
    r"""Logarithms of class probabilities of a linear softmax model, logits never stored.

    .. math:: z_{ik} - \log \sum_j \exp(z_{ij}), \quad z_i = W x_i + b

    Parameters
    ----------
    <parameters>
    <out>

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Finite where probabilities underflow; the same bits for any number of threads.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import linear_log_softmax
    >>> linear_log_softmax(np.eye(2), 1000.0 * np.eye(2))
    array([[    0., -1000.],
           [-1000.,     0.]])
    """
    return _score(X, W, bias, scores.LOG_SOFTMAX, out)


@_shared
def linear_argmax(
    X: npt.ArrayLike, W: npt.ArrayLike, *, bias: npt.ArrayLike | None = None
) -> npt.NDArray[np.int64]:
    r"""Name the most probable class of every row, logits never stored.

    .. math:: \arg\max_k z_{ik}, \quad z_i = W x_i + b

    Parameters
    ----------
    <parameters>

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        Of several largest logits the first; a NaN counts as the largest, as in numpy.argmax.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import linear_argmax
    >>> linear_argmax(np.eye(2), [[0, 1], [1, 0]])
    array([1, 0])
    """
    return _score(X, W, bias, scores.ARGMAX, None)


def _score(X: Any, W: Any, bias: Any, mode: int, out: Any) -> Array:
    """Validate and score."""
    X = validate.as_features(X, empty=True)
    dtype = validate.compute_dtype(X.dtype, "X")
    given = {"X": X, "W": W, "bias": bias}  # before casts, as their memory may be the caller's
    W = validate.as_weights(W, X.shape[1], dtype)
    bias = validate.as_bias(bias, len(W), dtype)
    if out is not None:
        validate.check_out(out, (len(X), len(W)), dtype, contiguous=True)
        for name, array in given.items():
            validate.check_disjoint(out, array, name)
    return scores.score(X, W, bias, mode, out)
