r"""PyTorch's cross-entropy losses, on a CPU: change the import.

    import torch
    from fastsoftmax.torch import LinearCrossEntropyLoss     # was: from torch.nn

    head = LinearCrossEntropyLoss(512, 1000)
    loss = head(features, target)                            # loss and gradients in one pass
    loss.backward()                                          # hands them over

`cross_entropy`, `linear_cross_entropy` and the two modules have the signatures and the meaning of
those of the same names in `torch.nn.functional` and `torch.nn` of PyTorch 2.13, and work with
earlier versions as well. Where a gradient is needed, forward computes it with the loss, in one pass
over the features, and keeps it for backward; only with ``reduction="none"``, where the gradient
in the weights depends on what comes down, backward makes a pass of its own. The logits of a linear
model are never stored. Features are read where they lie, and gradients are not copied.

**Types.** float64 is computed in float64; float32, float16 and bfloat16 are computed in float32,
and the loss and every gradient come back in the dtype of their tensor (under `torch.autocast` the
loss in float32, as in PyTorch). The dtype of ``input`` decides, and the other tensors may have
another one.

**What differs from PyTorch.** Tensors are on the CPU, dense and real. There are at least two
classes, and neither ``weight`` nor probabilities are negative or infinite. No gradient is computed
in ``target`` and ``weight``, no second one, none in forward mode, and not for `torch.func.vmap`.
A wrong argument is a TypeError or ValueError that names it, whatever PyTorch raises. Compiled code
may call these functions: `torch.compile` breaks its graph there. A ``linear_weight`` of more than
two dimensions goes through its logits, as it does in PyTorch.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'fastsoftmax.torch needs PyTorch: pip install "fastsoftmax[torch]"'
    ) from error

from fastsoftmax.torch._losses import (
    CrossEntropyLoss,
    LinearCrossEntropyLoss,
    cross_entropy,
    linear_cross_entropy,
)

__all__ = ["CrossEntropyLoss", "LinearCrossEntropyLoss", "cross_entropy", "linear_cross_entropy"]
