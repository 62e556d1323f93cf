"""From tensors to the functions of arrays, and from their gradients to PyTorch's autograd."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from fastsoftmax import functional
from fastsoftmax._evaluation import validate

# The tensors of a loss, in this order everywhere; linear_weight is None for logits.
_TENSORS = ("input", "linear_weight", "linear_bias", "target", "weight")
# What the functions of arrays call their arguments, in PyTorch's words.
_NAMES = {"X": "input", "logits": "input", "W": "linear_weight", "bias": "linear_bias",
          "y": "target", "class_weight": "weight"}  # fmt: skip


def loss_of(*tensors: Tensor | None, **options: Any) -> Tensor:
    """Loss of the tensors named by _TENSORS, the first of them a matrix."""
    validate.check_reduction(options["reduction"])
    needs = tuple(torch.is_grad_enabled() and t is not None and t.requires_grad for t in tensors)
    loss: Tensor = _Loss.apply(options, needs, *tensors)[0]
    return loss


# --------------------------------------------------------------- by the functions of arrays


@contextlib.contextmanager
def _torch_names() -> Iterator[None]:
    """Name arguments in errors as PyTorch does."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(":")
        raise type(error)(f"{_NAMES.get(name, name)}{colon}{rest}") from None


def _array(tensor: Tensor | None) -> Any:
    """Return the tensor's elements where they lie, as an array."""
    if tensor is None:
        return None
    if tensor.dtype == torch.bfloat16:
        return validate.view_halves(tensor.detach())
    return tensor.numpy(force=True)


def _evaluate(
    options: dict[str, Any], needs: tuple[bool, ...], tensors: Any, sample_weight: Any = None
) -> tuple[Any, list[Tensor]]:
    """Loss, and its gradients in the tensors that need one, in the dtype of the arithmetic."""
    X, W, bias, y, class_weight = map(_array, tensors)
    given: Any = {**options, "class_weight": class_weight, "sample_weight": sample_weight}
    try:
        with _torch_names():
            if W is None and any(needs):
                loss, of_logits = functional.cross_entropy_value_and_grad(X, y, **given)
                return loss, [torch.from_numpy(of_logits)]
            if W is None:
                return functional.cross_entropy(X, y, **given), []
            if not any(needs):
                return functional.linear_cross_entropy(X, W, y, bias=bias, **given), []
            loss, grad = functional.linear_cross_entropy_value_and_grad(
                X, W, y, bias=bias, input_grad=needs[0], **given
            )
    except ValueError:
        if options["reduction"] != "mean":
            raise
        # In PyTorch a mean over nothing is NaN, and its gradient 0. What else is wrong is wrong
        # with the sum as well.
        return math.nan, _evaluate({**options, "reduction": "sum"}, needs, tensors)[1]
    found = zip((grad.input, grad.weight, grad.bias), needs, strict=False)
    return loss, [torch.from_numpy(gradient) for gradient, need in found if need]


def _weighted_gradients(
    options: dict[str, Any], needs: tuple[bool, ...], row_weights: Tensor, tensors: Any
) -> list[Tensor]:
    """Gradients of the sum of the row losses, each times its weight, which may be negative."""
    options = {**options, "reduction": "sum"}
    if tensors[1] is None:
        (of_logits,) = _evaluate(options, needs, tensors)[1]
        return [of_logits.mul_(row_weights[:, None])]
    weights = _array(row_weights)
    if not np.isfinite(weights).all():
        gradients = _evaluate(options, needs, tensors)[1]
        return [gradient.fill_(math.nan) for gradient in gradients]
    # Functions of arrays take weights ≥ 0.
    gradients = _evaluate(options, needs, tensors, np.maximum(weights, 0))[1]
    if weights.min(initial=0) < 0:
        subtracted = _evaluate(options, needs, tensors, np.maximum(-weights, 0))[1]
        gradients = [a.sub_(b) for a, b in zip(gradients, subtracted, strict=True)]
    return gradients


# --------------------------------------------------------------- to and from autograd


def _refuse(what: str, concerned: Any) -> NoReturn:
    """Raise an error that names the first tensor concerned."""
    names = [name for name, yes in zip(_TENSORS, concerned, strict=False) if yes]
    raise NotImplementedError(
        f"{names[0] if names else 'grad_output'}: fastsoftmax.torch computes no {what}; "
        "torch.nn.functional has the same function, which does"
    )


class _FirstOrder(torch.autograd.Function):
    """A function of options, needs and tensors that takes no part in other transforms."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> NoReturn:
        """Name the first tensor that is mapped over."""
        _refuse("batches of torch.func.vmap", (dim is not None for dim in in_dims[-5:]))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        """Name the first tensor with a tangent."""
        _refuse("derivatives in forward mode", (tangent is not None for tangent in tangents[-5:]))


class _Loss(_FirstOrder):
    """The loss and, behind it, its gradients: further results, so that torch.func knows them."""

    @staticmethod
    def forward(options: Any, needs: Any, *tensors: Any) -> tuple[Tensor, ...]:
        """Compute both in one pass, unless the gradient depends on what comes down."""
        in_forward = needs if options["reduction"] != "none" else (False,)
        loss, gradients = _evaluate(options, in_forward, tensors)
        dtype = tensors[0].dtype
        if dtype.itemsize < 4 and torch.is_autocast_enabled("cpu"):
            dtype = torch.float32  # as PyTorch's losses
        return torch.as_tensor(loss, dtype=dtype, device="cpu"), *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the tensors to make the gradients once more, where they are asked for twice."""
        ctx.options, ctx.needs, *tensors = inputs
        ctx.gradients = list(output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Hand the gradients over."""
        found: Any = iter(())
        needs = ctx.needs
        if grad_output is None:
            needs = (False,) * len(needs)
        else:
            tensors = ctx.saved_tensors  # first of all: an error where the graph was freed
            gradients, ctx.gradients = ctx.gradients, []
            found = iter(_Gradients.apply(ctx.options, needs, gradients, grad_output, *tensors))
        return None, None, *(next(found) if need else None for need in needs)


class _Gradients(_FirstOrder):
    """Gradients times what comes down: a function of its own, as it cannot be derived again."""

    @staticmethod
    def forward(
        options: Any, needs: Any, gradients: list[Tensor], grad_output: Tensor, *tensors: Any
    ) -> tuple[Tensor, ...]:
        """Scale the gradients in place; they are made here if they have not been, or were used."""
        if options["reduction"] == "none":
            gradients = _weighted_gradients(options, needs, grad_output, tensors)
        else:
            gradients = gradients or _evaluate(options, needs, tensors)[1]
            if (scale := grad_output.item()) != 1:
                gradients = [gradient.mul_(scale) for gradient in gradients]
        needing = (tensor for tensor, need in zip(tensors, needs, strict=True) if need)
        return tuple(g.to(tensor.dtype) for g, tensor in zip(gradients, needing, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Remember what needed a gradient."""
        ctx.needs = inputs[1]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> NoReturn:
        """Refuse, rather than leave second derivatives out."""
        _refuse("second derivatives", ctx.needs)
