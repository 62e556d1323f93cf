"""Cross-entropy from logits: what a training loop calls on the output of any model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate, reference
from fastsoftmax._backend import jit_disabled
from fastsoftmax._options import Reduction, Targets, make_targets

Array = npt.NDArray[Any]

__all__ = ["cross_entropy", "cross_entropy_value_and_grad"]


def cross_entropy(
    logits: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    lse_square_scale: float = 0.0,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy of logits and targets.

    .. math:: \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i})

    Parameters and errors are those of `cross_entropy_value_and_grad`; ``reduction`` may be "none"
    as well. No (N, K) array is made.

    Returns
    -------
    float, or ndarray of float64, shape (n_samples,)
        The loss, accumulated in float64; with ``reduction="none"`` that of every row.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> round(cross_entropy(np.zeros((3, 2)), [0, 1, 1]), 6)  # log 2
    0.693147
    """
    Z, targets = _prepare(
        logits, y,
        sample_weight=sample_weight, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, lse_square_scale=lse_square_scale, reduction=reduction,
    )  # fmt: skip
    losses = np.zeros(len(Z)) if reduction == "none" else None
    total = _sum_of_losses(Z, targets, losses, None)
    return total / targets.total if losses is None else losses


def cross_entropy_value_and_grad(
    logits: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    lse_square_scale: float = 0.0,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> tuple[float, Array]:
    r"""Cross-entropy and its gradient with respect to the logits, in one pass.

    .. math::
        J &= \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i}) \\
        ∇_{z_i} J &= \frac{s_i}{\sum_i s_i} (\mathrm{softmax}(z_i) - e_{y_i})

    Parameters
    ----------
    logits : array_like of shape (n_samples, n_classes)
        z, at least two classes. float32 and float64 are computed in their own precision, smaller
        types in float32, wider integers in float64.
    y : array_like of int, shape (n_samples,), or of float, shape (n_samples, n_classes)
        Class labels in [0, n_classes), or rows of non-negative targets, whose sums are free.
    sample_weight : array_like of shape (n_samples,), optional
        Finite s ≥ 0.
    class_weight : array_like of shape (n_classes,), optional
        Finite weights ≥ 0 of the target's classes.
    label_smoothing : float, default 0.0
        ε in [0, 1]: targets become (1 - ε)·y + ε/K.
    ignore_index : int, optional
        Rows with this label count for nothing. Not with probability targets.
    lse_square_scale : float, default 0.0
        α ≥ 0 adds s_i·α·lse(z_i)² to row i's loss (z-loss); class weights do not apply to it.
    reduction : {"mean", "sum"}, default "mean"
        "mean" divides by Σ s_i·class_weight[y_i] over the rows not ignored, for probability targets
        by Σ s_i; "sum" does not divide.
    out : ndarray of shape (n_samples, n_classes), optional
        Where to write the gradient, C-ordered and of the compute dtype: the logits or the target
        rows themselves, or an array that shares no memory with the input.

    Returns
    -------
    loss : float
        J, accumulated in float64.
    grad : ndarray of shape (n_samples, n_classes)
        ``out`` if given.

    Raises
    ------
    TypeError
        Where a dtype cannot be computed with.
    ValueError
        Where a shape, a label, a weight, an option or ``out`` is out of its range, or a mean is
        over nothing. The message names the argument; nothing has been written then.

    References
    ----------
    "Derivative of Cross-Entropy Softmax", course note, CS 584-A, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_value_and_grad
    >>> loss, grad = cross_entropy_value_and_grad(np.zeros((2, 2)), [0, 1])
    >>> grad
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    if reduction == "none":
        raise ValueError('reduction: expected "mean" or "sum" where a gradient is computed')
    Z, targets = _prepare(
        logits, y,
        sample_weight=sample_weight, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, lse_square_scale=lse_square_scale, reduction=reduction,
    )  # fmt: skip
    if out is None:
        out = np.empty(Z.shape, Z.dtype)
    else:
        _validate.check_out(out, Z.shape, Z.dtype, np.asarray(logits), "logits")
        if not out.flags.c_contiguous:
            raise ValueError("out: expected a C-contiguous array")
        for name, given in (("y", y), ("sample_weight", sample_weight)):
            if given is not None:
                _validate.check_overlap(out, np.asarray(given), name)
    return _sum_of_losses(Z, targets, None, out) / targets.total, out


def _prepare(logits: Any, y: Any, **options: Any) -> tuple[Array, Targets]:
    """Logits as a contiguous array of the compute dtype, and the reduced options."""
    shape = "(n_samples, n_classes)"
    Z = _validate.as_array(logits, "logits", 2, shape)
    dtype = _validate.compute_dtype(Z.dtype, "logits")
    if Z.shape[1] < 2 or (len(Z) == 0 and options["reduction"] == "mean"):
        raise ValueError(f"logits: expected shape {shape}, rows and two classes, got {Z.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        Z = np.require(Z, dtype, ["C", "A"])
    return Z, make_targets(y, len(Z), Z.shape[1], dtype, **options)


def _sum_of_losses(
    Z: Array, targets: Targets, losses: Array | None, gradient: Array | None
) -> float:
    """Σ of the row losses; fills ``losses`` (N,) and ``gradient`` (N, K) where given."""
    if len(Z) == 0:
        return 0.0
    if jit_disabled():
        s, t = targets.scales(len(Z)), targets.rows(Z.shape[1])
        rows, R = reference.row_losses_and_gradients(Z, s, t, targets.alpha)
        if losses is not None:
            losses[...] = rows
        if gradient is not None:
            np.divide(R, Z.dtype.type(targets.total), out=gradient)
        return float(rows.sum())
    from fastsoftmax._engine import make_terms
    from fastsoftmax._rowwise import logits_loss

    return logits_loss(Z, make_terms(targets, 0, losses), float(targets.total), gradient)
