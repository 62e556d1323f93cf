"""Loss and gradients of batches, as a training loop has them: few rows, and often many classes.

With ``input_grad`` the gradient in X is asked for as well, as by the layers below a head.
"""

from __future__ import annotations

import functools
from typing import Any

import frameworks
import linear
import torch_training

Arrays = dict[str, Any]

SHAPES = [
    (256, 768, 1000),
    (1024, 768, 1000),
    (1024, 2048, 1000),
    (375, 3000, 500),
    (512, 768, 50_257),
    (64, 512, 100),
    (256, 100, 10),
    (32, 64, 10),
]
PEERS = {name: peer for name, peer in linear.PEERS.items() if name != "sklearnex"}


def with_fastsoftmax(a: Arrays) -> Any:
    """`linear_cross_entropy_value_and_grad(X, W, y, bias=b, input_grad=True)`."""
    from fastsoftmax import linear_cross_entropy_value_and_grad

    def run() -> Any:
        loss, grad = linear_cross_entropy_value_and_grad(
            a["X"], a["W"], a["y"], bias=a["b"], input_grad=True
        )
        return loss, grad.weight, grad.bias, grad.input

    return run


def with_numpy(a: Arrays) -> Any:
    """As without the gradient in X, and `Z @ W` of what is left in Z."""
    return linear.with_numpy(a, input_grad=True)


def with_jax(a: Arrays) -> Any:
    """`jax.jit(jax.value_and_grad(...))` of the dense loss, in W, b and X."""
    arguments = (a[name] for name in ("W", "b", "X", "y"))
    return frameworks.jax_compiled(linear.jax_loss, *arguments, n_parameters=3)


INPUT_GRAD_PEERS = {
    "fastsoftmax": with_fastsoftmax,
    "NumPy": with_numpy,
    **{
        name: functools.partial(peer, True)
        for name, peer in torch_training.FACTORIES.items()
        if name != "fastsoftmax"
    },
    "JAX": with_jax,
}
