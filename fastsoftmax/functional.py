"""Losses and gradients, from features and from logits: docstring, validation, hand over."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.backend import accumulator, jit_disabled
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.docs import X_AND_W, fill_in
from fastsoftmax._evaluation.targets import Reduction, Targets, make_targets
from fastsoftmax._kernels.modes import GRADIENT, LOSS
from fastsoftmax.reference import Array, LinearGrad, row_losses_and_gradients

__all__ = [
    "LinearGrad",
    "cross_entropy",
    "cross_entropy_value_and_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
]


_shared = fill_in(
    features=X_AND_W
    + """
    y : array_like of int, shape (n_samples,), or of float, shape (n_samples, n_classes)
        Class labels in [0, n_classes), or rows of non-negative targets, whose sums are free.
    bias : array_like of shape (n_classes,), optional
        Intercepts b; not penalised.
    l2 : float, default 0.0
        λ ≥ 0. The penalty is λ‖W‖², not λ/2‖W‖², and is added once, never divided.""",
    logits="""
    logits : array_like of shape (n_samples, n_classes)
        z, at least two classes. float32 and float64 are computed in their own precision, smaller
        types in float32, wider integers in float64.
    y : array_like of int, shape (n_samples,), or of float, shape (n_samples, n_classes)
        Class labels in [0, n_classes), or rows of non-negative targets, whose sums are free.""",
    options="""
    sample_weight : array_like of shape (n_samples,), optional
        Finite s ≥ 0.
    class_weight : array_like of shape (n_classes,), optional
        Finite weights ≥ 0 of the target's classes.
    label_smoothing : float, default 0.0
        ε in [0, 1]: targets become (1 - ε)·y + ε/K.
    ignore_index : int, optional
        Rows with this label count for nothing. Not with probability targets.
    lse_square_scale : float, default 0.0
        α ≥ 0 adds s_i·α·lse(z_i)² to row i's loss (z-loss); class weights do not apply to it.""",
    mean_or_sum="""
    reduction : {"mean", "sum"}, default "mean"
        "mean" divides by Σ s_i·class_weight[y_i] over the rows not ignored, for probability targets
        by Σ s_i; "sum" does not divide.""",
    reduction="""
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by Σ s_i·class_weight[y_i] over the rows not ignored, for probability targets
        by Σ s_i; "sum" does not divide; "none" gives the weighted loss of every row, and does not
        go with ``l2``.""",
    raises="""
    Raises
    ------
    TypeError
        Where a dtype cannot be computed with (objects, complex numbers, float labels).
    ValueError
        Where a shape, a label, a weight, an option or ``out`` is out of its range, or a mean is
        over nothing. The message names the argument; nothing has been written then.

    References
    ----------
    "Derivative of Cross-Entropy Softmax", course note, CS 584-A, 2021.""",
)


@_shared
def linear_cross_entropy(
    X: npt.ArrayLike,
    W: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    l2: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    lse_square_scale: float = 0.0,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy of a linear softmax model, logits never stored.

    .. math:: J = \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i}) + λ‖W‖²,
              \quad z_i = W x_i + b

    Parameters
    ----------
    <features>
    <options>
    <reduction>

    Returns
    -------
    float, or ndarray of float64, shape (n_samples,)
        The loss, accumulated in float64; with ``reduction="none"`` that of every row.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import linear_cross_entropy
    >>> X = np.eye(2, dtype=np.float32)
    >>> round(linear_cross_entropy(X, np.zeros((2, 2)), [0, 1]), 6)  # log 2
    0.693147
    """
    l2 = validate.as_strength(l2)
    validate.check_reduction(reduction)
    if reduction == "none" and l2:
        raise ValueError('l2: expected 0 with reduction="none": the penalty belongs to no row')
    sums, targets, losses, _ = _run_linear(
        X, W, y, bias, False, reduction == "none",
        sample_weight=sample_weight, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, lse_square_scale=lse_square_scale, reduction=reduction,
    )  # fmt: skip
    return sums.loss(targets.total, l2) if losses is None else losses / targets.total


@_shared
def linear_cross_entropy_value_and_grad(
    X: npt.ArrayLike,
    W: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    l2: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    lse_square_scale: float = 0.0,
    reduction: Reduction = "mean",
    input_grad: bool = False,
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
    <features>
    <options>
    <mean_or_sum>
    input_grad : bool, default False
        Whether the gradient in X, (P - Y) W for plain labels, is computed too.

    Returns
    -------
    loss : float
        J, accumulated in float64.
    grad : LinearGrad
        ``weight`` (n_classes, n_features), ``bias`` (n_classes,) and ``input`` (n_samples,
        n_features), C-ordered in the compute dtype; ``bias`` is None without a bias, ``input``
        unless asked for.

    <raises>

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
    l2 = validate.as_strength(l2)
    input_grad = validate.as_flag(input_grad, "input_grad")
    validate.check_reduction(reduction, gradient=True)
    sums, targets, _, dX = _run_linear(
        X, W, y, bias, True, input_grad,
        sample_weight=sample_weight, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, lse_square_scale=lse_square_scale, reduction=reduction,
    )  # fmt: skip
    loss, weight_grad, bias_grad = sums.finish(targets.total, l2)
    return loss, LinearGrad(weight_grad, None if bias is None else bias_grad, dX)


def _run_linear(
    X: Any, W: Any, y: Any, bias: Any, gradient: bool, by_row: bool, **options: Any
) -> tuple[Any, Targets, Array | None, Array | None]:
    """Validate and evaluate; ``by_row`` asks for row losses or, with ``gradient``, for dX."""
    X = validate.as_features(X, empty=options["reduction"] != "mean")
    dtype = validate.compute_dtype(X.dtype, "X")
    W = validate.as_weights(W, X.shape[1], dtype)
    bias = validate.as_bias(bias, len(W), dtype)
    targets = make_targets(y, len(X), len(W), dtype, **options)
    mode = GRADIENT if gradient else LOSS
    sums = accumulator(W, bias, mode=mode, sparse=isinstance(X, CSR))
    losses = np.zeros(len(X)) if by_row and not gradient else None
    dX = np.empty(X.shape, dtype) if by_row and gradient else None
    sums.add(X, targets, losses, dX)
    return sums, targets, losses, dX


@_shared
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

    No (N, K) array is made.

    Parameters
    ----------
    <logits>
    <options>
    <reduction>

    Returns
    -------
    float, or ndarray of float64, shape (n_samples,)
        The loss, accumulated in float64; with ``reduction="none"`` that of every row.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> round(cross_entropy(np.zeros((3, 2)), [0, 1, 1]), 6)  # log 2
    0.693147
    """
    validate.check_reduction(reduction)
    Z, targets = _prepare_logits(
        logits, y,
        sample_weight=sample_weight, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, lse_square_scale=lse_square_scale, reduction=reduction,
    )  # fmt: skip
    losses = np.zeros(len(Z)) if reduction == "none" else None
    total = _sum_of_losses(Z, targets, losses, None)
    return total / targets.total if losses is None else losses / targets.total


@_shared
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
    <logits>
    <options>
    <mean_or_sum>
    out : ndarray of shape (n_samples, n_classes), optional
        Where to write the gradient, C-ordered and of the compute dtype: the logits or the target
        rows themselves, or an array that shares no memory with the input.

    Returns
    -------
    loss : float
        J, accumulated in float64.
    grad : ndarray of shape (n_samples, n_classes)
        ``out`` if given.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_value_and_grad
    >>> loss, grad = cross_entropy_value_and_grad(np.zeros((2, 2)), [0, 1])
    >>> grad
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    validate.check_reduction(reduction, gradient=True)
    Z, targets = _prepare_logits(
        logits, y,
        sample_weight=sample_weight, class_weight=class_weight, label_smoothing=label_smoothing,
        ignore_index=ignore_index, lse_square_scale=lse_square_scale, reduction=reduction,
    )  # fmt: skip
    if out is None:
        out = np.empty(Z.shape, Z.dtype)
    else:
        validate.check_out(out, Z.shape, Z.dtype, contiguous=True)
        for name, given in (("logits", logits), ("y", y), ("sample_weight", sample_weight)):
            if given is not None:
                validate.check_overlap(out, np.asarray(given), name)
    return _sum_of_losses(Z, targets, None, out) / targets.total, out


def _prepare_logits(logits: Any, y: Any, **options: Any) -> tuple[Array, Targets]:
    """Logits as a contiguous array of the compute dtype, and the reduced options."""
    shape = "(n_samples, n_classes)"
    Z = validate.as_array(logits, "logits", 2, shape)
    dtype = validate.compute_dtype(Z.dtype, "logits")
    if Z.shape[1] < 2 or (len(Z) == 0 and options["reduction"] == "mean"):
        raise ValueError(f"logits: expected shape {shape}, rows and two classes, got {Z.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        Z = np.require(Z, dtype, ["C", "A"])
    return Z, make_targets(y, len(Z), Z.shape[1], dtype, **options)


def _sum_of_losses(Z: Array, targets: Targets, losses: Array | None, dZ: Array | None) -> float:
    """Σ of the row losses; fills ``losses`` (N,) and the gradient ``dZ`` (N, K) where given."""
    if len(Z) == 0:
        return 0.0
    if jit_disabled():
        s, t = targets.scales(len(Z)), targets.rows(Z.shape[1])
        rows, R = row_losses_and_gradients(Z, s, t, targets.alpha)
        if losses is not None:
            losses[...] = rows
        if dZ is not None:
            np.divide(R, Z.dtype.type(targets.total), out=dZ)
        return float(rows.sum())
    from fastsoftmax._evaluation.rowwise import logits_loss
    from fastsoftmax._evaluation.terms import make_terms

    return logits_loss(Z, make_terms(targets, Z.dtype, 0, losses), float(targets.total), dZ)
