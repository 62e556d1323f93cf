"""Tasks on rows of logits: softmax, log_softmax, logsumexp and cross-entropy, and a plain copy."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

SHAPES = [(1_000_000, 10), (100_000, 1000), (2000, 50_000), (64, 1000)]


def make(problem: Any) -> Arrays:
    """Logits of a few units, and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(problem.shape, dtype=problem.dtype)
    x *= 3
    return {"x": x, "y": rng.integers(0, problem.shape[1], problem.shape[0])}


def work(problem: Any) -> tuple[float, float]:
    """Bytes read and written, no products."""
    size = float(np.prod(problem.shape)) * np.dtype(problem.dtype).itemsize
    return size * (1 if problem.task.startswith("logsumexp") else 2), 0.0


def column_sum_error(problem: Any) -> float:
    """A tenth of what a plain sum of a column may lose in its own precision; 0 along rows.

    SciPy, NumPy and torch form such sums: at a million rows in float32 they are off by 0.2 %.
    """
    if not problem.task.endswith("axis0"):
        return 0.0
    return problem.shape[0] * float(np.finfo(problem.dtype).eps) / 10


def truth_of(name: str, axis: int) -> Any:
    """The result by NumPy in the problem's own dtype: checked to its accuracy, not beyond."""

    def truth(a: Arrays) -> list[np.ndarray]:
        x = a["x"]
        top = x.max(axis=axis, keepdims=True)
        total = np.exp(x - top).sum(axis=axis, keepdims=True, dtype=np.float64)
        lse = (top + np.log(total)).astype(x.dtype)
        if name == "logsumexp":
            return [lse.squeeze(axis)]
        if name == "log_softmax":
            return [x - lse]
        return [np.exp(x - lse)]

    return truth


def cross_entropy_truth(a: Arrays) -> list[np.ndarray]:
    x, y = a["x"], a["y"]
    rows = np.arange(len(x))
    top = x.max(axis=1, keepdims=True)
    lse = top + np.log(np.exp(x - top).sum(axis=1, keepdims=True, dtype=np.float64))
    loss = (lse[:, 0] - x[rows, y]).mean()
    grad = np.exp(x - lse.astype(x.dtype))
    grad[rows, y] -= 1
    grad /= len(x)
    return [np.array(loss), grad]


def fastsoftmax_rows(name: str, axis: int) -> Any:
    def prepare(a: Arrays) -> Any:
        import fastsoftmax

        function, x = getattr(fastsoftmax, name), a["x"]
        if name == "logsumexp":
            return lambda: [function(x, axis=axis)]
        out = np.empty_like(x)
        return lambda: [function(x, axis=axis, out=out)]

    return prepare


def scipy_rows(name: str, axis: int) -> Any:
    def prepare(a: Arrays) -> Any:
        import scipy.special

        function, x = getattr(scipy.special, name), a["x"]
        return lambda: [function(x, axis=axis)]

    return prepare


def torch_rows(name: str, axis: int) -> Any:
    """Torch's variants that write into an array given, where it has them."""

    def prepare(a: Arrays) -> Any:
        import torch

        x = torch.from_numpy(a["x"])
        if name == "logsumexp":
            out = torch.empty(x.shape[1 - axis], dtype=x.dtype)
            return lambda: [torch.logsumexp(x, axis, out=out)]
        out = torch.empty_like(x)
        function = torch._softmax if name == "softmax" else torch._log_softmax
        return lambda: [function(x, axis, False, out=out)]

    return prepare


def jax_rows(name: str, axis: int) -> Any:
    def prepare(a: Arrays) -> Any:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        function = jax.jit(lambda x: getattr(jax.nn, name)(x, axis=axis))
        x = jnp.asarray(a["x"])
        return lambda: [jax.block_until_ready(function(x))]

    return prepare


def numpy_rows(name: str, axis: int) -> Any:
    """The usual three lines of NumPy."""

    def prepare(a: Arrays) -> Any:
        x = a["x"]

        def run() -> Any:
            e = np.exp(x - x.max(axis=axis, keepdims=True))
            s = e.sum(axis=axis, keepdims=True)
            if name == "softmax":
                return [e / s]
            top = x.max(axis=axis, keepdims=True)
            if name == "log_softmax":
                return [x - top - np.log(s)]
            return [(top + np.log(s)).squeeze(axis)]

        return run

    return prepare


def copy(a: Arrays) -> Any:
    """A plain copy with all cores: what the memory allows. Nothing to check."""
    import torch

    x = torch.from_numpy(a["x"])
    out = torch.empty_like(x)
    return lambda: out.copy_(x)


def fastsoftmax_loss(a: Arrays) -> Any:
    from fastsoftmax import cross_entropy_value_and_grad

    out = np.empty_like(a["x"])
    return lambda: cross_entropy_value_and_grad(a["x"], a["y"], out=out)


def numpy_loss(a: Arrays) -> Any:
    from fastsoftmax import reference

    return lambda: reference.cross_entropy_value_and_grad(a["x"], a["y"])


def torch_loss(a: Arrays) -> Any:
    import torch

    x, y = torch.from_numpy(a["x"]).requires_grad_(), torch.from_numpy(a["y"])

    def run() -> Any:
        x.grad = None
        loss = torch.nn.functional.cross_entropy(x, y)
        loss.backward()
        return loss.detach().numpy(), x.grad.numpy()

    return run


def jax_loss(a: Arrays) -> Any:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x, y = jnp.asarray(a["x"]), jnp.asarray(a["y"])

    def loss(x: Any, y: Any) -> Any:
        picked = jnp.take_along_axis(x, y[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(x, axis=1) - picked).mean()

    function = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(function(x, y))


def row_peers(name: str, axis: int) -> dict[str, Any]:
    return {
        "fastsoftmax": fastsoftmax_rows(name, axis),
        "copy": copy,
        "SciPy": scipy_rows(name, axis),
        "NumPy": numpy_rows(name, axis),
        "torch": torch_rows(name, axis),
        "jax": jax_rows(name, axis),
    }


LOSS_PEERS = {
    "fastsoftmax": fastsoftmax_loss,
    "copy": copy,
    "NumPy reference": numpy_loss,
    "torch": torch_loss,
    "jax": jax_loss,
}
