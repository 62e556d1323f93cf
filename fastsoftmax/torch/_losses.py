"""The functions and modules: docstring, checks in PyTorch's terms, hand over."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from fastsoftmax._evaluation.docs import fill_in
from fastsoftmax.torch._autograd import loss_of

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

_shared = fill_in(
    weight="""
    weight : Tensor of shape (C,), optional
        Weights ≥ 0 of the classes.""",
    reduction="""
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the targets' weights, for probabilities by the number of rows;
        over nothing it is NaN.""",
    label_smoothing="""
    label_smoothing : float, default 0.0
        ε in [0, 1]: targets t become (1 - ε)·t + ε/C.""",
    returns="""
    Returns
    -------
    Tensor of the dtype of ``input``
        A scalar, or with ``reduction="none"`` the loss of every row.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as described; the message names it.""",
)


@torch.compiler.disable
@_shared
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`torch.nn.functional.cross_entropy`: the loss of logits and targets.

    Parameters
    ----------
    input : Tensor of shape (C,), (N, C) or (N, C, d_1, ..., d_K)
        Logits of at least two classes. More than two dimensions are copied, to put C last.
    target : Tensor
        Class indices, in the shape of ``input`` without C, or probabilities, in its whole shape.
    <weight>
    size_average, reduce : bool, optional
        Deprecated: they override ``reduction``.
    ignore_index : int, default -100
        Rows with this class index count for nothing. Must be negative with probabilities.
    <reduction>
    <label_smoothing>

    <returns>

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.torch import cross_entropy
    >>> logits = torch.zeros(2, 2, requires_grad=True)
    >>> cross_entropy(logits, torch.tensor([0, 1])).backward()
    >>> logits.grad
    tensor([[-0.2500,  0.2500],
            [ 0.2500, -0.2500]])
    """
    _check_tensors(input=input, target=target, weight=weight)
    if size_average is not None or reduce is not None:
        reduction = _reduction_of_flags(size_average, reduce)
    if input.ndim == 0:
        raise ValueError("input: expected shape (C,), (N, C) or (N, C, d_1, ...), got ()")
    logits = input.movedim(1, -1) if input.ndim > 1 else input
    soft = target.shape == input.shape
    if not soft and target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target: expected shape {tuple(logits.shape[:-1])} of class indices or "
            f"{tuple(input.shape)} of probabilities, got {tuple(target.shape)}"
        )
    if soft and ignore_index >= 0:
        raise ValueError(
            f"ignore_index: expected a negative number with probabilities, got {ignore_index}"
        )
    rows = math.prod(logits.shape[:-1]), logits.shape[-1]
    if soft:
        target = target.movedim(1, -1) if input.ndim > 1 else target
    loss = loss_of(
        logits.reshape(rows), None, None, target.reshape(rows if soft else rows[:1]), weight,
        reduction=reduction, ignore_index=None if soft else ignore_index,
        label_smoothing=label_smoothing,
    )  # fmt: skip
    return loss.reshape(logits.shape[:-1]) if reduction == "none" else loss


@torch.compiler.disable
@_shared
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`torch.nn.functional.linear_cross_entropy`: the loss of a linear layer's logits.

    The same as ``cross_entropy(linear(input, linear_weight, linear_bias), target)``, but the logits
    are never stored.

    Parameters
    ----------
    input : Tensor of shape (D,) or (N, D)
        Features.
    linear_weight : Tensor of shape (C, D) or (C, d_1, ..., d_K, D)
        Weights of at least two classes. Those of more than two dimensions take a batch of features,
        and their logits are stored.
    target : Tensor
        Class indices of shape (), (N,) or (N, d_1, ..., d_K), or probabilities of shape (C,),
        (N, C) or (N, C, d_1, ..., d_K).
    linear_bias : Tensor of the shape of ``linear_weight`` without D, optional
        Intercepts.
    <weight>
    <reduction>
    ignore_index : int, optional
        Rows with this class index count for nothing; None is -100. Not with probabilities.
    <label_smoothing>
    options : object, optional
        PyTorch's choice of chunks, which is ignored: there are no logits to cut into chunks.

    <returns>

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.torch import linear_cross_entropy
    >>> W = torch.zeros(2, 3, requires_grad=True)
    >>> linear_cross_entropy(torch.ones(4, 3), W, torch.tensor([0, 0, 0, 1])).backward()
    >>> W.grad
    tensor([[-0.2500, -0.2500, -0.2500],
            [ 0.2500,  0.2500,  0.2500]])
    """
    _check_tensors(
        input=input, linear_weight=linear_weight, target=target, linear_bias=linear_bias,
        weight=weight,
    )  # fmt: skip
    if linear_weight.ndim < 2:
        raise ValueError(
            "linear_weight: expected shape (C, in_features) or (C, d_1, ..., in_features), got "
            f"{tuple(linear_weight.shape)}"
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise ValueError(
            f"linear_bias: expected shape {tuple(linear_weight.shape[:-1])}, that of linear_weight "
            f"without its last dimension, got {tuple(linear_bias.shape)}"
        )
    if target.shape == (*input.shape[:-1], *linear_weight.shape[:-1]):
        if ignore_index is not None:
            raise ValueError("ignore_index: expected None with probabilities")
    elif ignore_index is None:
        ignore_index = -100
    how: Any = dict(reduction=reduction, label_smoothing=label_smoothing)
    if linear_weight.ndim == 2:
        batched = input.ndim != 1
        if not batched:
            input, target = input.unsqueeze(0), target.unsqueeze(0)
        loss = loss_of(
            input, linear_weight, linear_bias, target, weight, ignore_index=ignore_index, **how
        )
        return loss if batched or reduction != "none" else loss.squeeze(0)
    if input.ndim != 2 or input.shape[1] != linear_weight.shape[-1]:
        raise ValueError(
            f"input: expected shape (N, in_features = {linear_weight.shape[-1]}), got "
            f"{tuple(input.shape)}"
        )
    bias = None if linear_bias is None else linear_bias.flatten()
    logits = torch.nn.functional.linear(input, linear_weight.flatten(0, -2), bias)
    logits = logits.unflatten(1, linear_weight.shape[:-1])
    ignore_index = -100 if ignore_index is None else ignore_index
    return cross_entropy(logits, target, weight, ignore_index=ignore_index, **how)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss`, by `cross_entropy` of this module.

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.torch import CrossEntropyLoss
    >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
    >>> criterion(torch.zeros(3, 2), torch.tensor([0, 1, 1]))  # log 2
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits and targets."""
        return cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class LinearCrossEntropyLoss(torch.nn.Module):
    """`torch.nn.LinearCrossEntropyLoss`, by `linear_cross_entropy` of this module.

    Its parameters are those of ``linear``, a `torch.nn.Linear`; states can be exchanged with
    PyTorch's module.

    Parameters
    ----------
    in_features : int
        D, the number of features.
    num_classes : int
        C, at least 2.
    out_features : tuple of int, default ()
        (d_1, ..., d_K): so many losses for each row of features.
    bias : bool, default False
        Whether there are intercepts.
    device, dtype : optional
        Of the parameters.
    reduction, weight, ignore_index, label_smoothing, options
        As in `linear_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from fastsoftmax.torch import LinearCrossEntropyLoss
    >>> head = LinearCrossEntropyLoss(8, 3)
    >>> loss = head(torch.zeros(5, 8), torch.tensor([0, 1, 2, 1, 0]))  # log 3
    >>> round(loss.item(), 6)
    1.098612
    """

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
    ) -> None:
        if weight is not None and weight.shape != (num_classes,):
            raise ValueError(f"weight: expected shape ({num_classes},), got {tuple(weight.shape)}")
        super().__init__()
        self.register_buffer("weight", weight)
        self.num_classes = num_classes
        self.out_features = out_features
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.options = options
        outputs = math.prod(out_features, start=num_classes)
        self.linear = torch.nn.Linear(in_features, outputs, bias=bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of features and targets."""
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input, self.linear.weight.unflatten(0, shape), target,
            linear_bias=None if bias is None else bias.unflatten(0, shape),
            weight=self.weight, reduction=self.reduction, ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing, options=self.options,
        )  # fmt: skip


def _check_tensors(**tensors: Any) -> None:
    """Refuse by name what is no tensor, or cannot be read where it lies, or wants a gradient."""
    for name, tensor in tensors.items():
        if tensor is None and name in ("linear_bias", "weight"):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_nested:
            raise ValueError(
                f"{name}: expected a dense tensor on the CPU, got one of layout {tensor.layout} on "
                f"{tensor.device}; torch.nn.functional has the same function for those"
            )
        dtypes = _FLOATS + _INTEGERS if name == "target" else _FLOATS
        if tensor.dtype not in dtypes:
            raise TypeError(
                f"{name}: expected one of the dtypes {', '.join(map(str, dtypes))}, got "
                f"{tensor.dtype}"
            )
        if name in ("target", "weight") and tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name}: no gradient is computed in it; expected {name}.detach()")


def _reduction_of_flags(size_average: bool | None, reduce: bool | None) -> str:
    """Return what the two deprecated flags stand for; None is True."""
    reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(
        f"size_average and reduce are deprecated, please use reduction={reduction!r} instead.",
        stacklevel=4,
    )
    return reduction
