"""Loss and gradients of dense features: the arrays, the truth, and what the peers do."""

from __future__ import annotations

import math
from typing import Any

import frameworks
import machine
import numpy as np
from rows import cross_entropy_in_place

Arrays = dict[str, np.ndarray]

SHAPES = [
    (1_000_000, 100, 10),
    (60_000, 784, 10),
    (1_000_000, 20, 3),
    (200_000, 50, 100),
    (100_000, 512, 1000),
    (20_000, 256, 10_000),
]


def make(problem: Any) -> Arrays:
    """Labels of a noisy linear model; weights a little off it, as in the middle of a training."""
    n_rows, n_features, n_classes = problem.shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features), dtype=problem.dtype)
    true = rng.standard_normal((n_classes, n_features), dtype=problem.dtype) / math.sqrt(n_features)
    y = np.empty(n_rows, np.int64)
    for start in range(0, n_rows, 4096):
        logits = 3 * X[start : start + 4096] @ true.T
        logits += rng.gumbel(size=logits.shape).astype(problem.dtype)
        y[start : start + 4096] = logits.argmax(axis=1)
    W = true + rng.standard_normal(true.shape, dtype=problem.dtype) / 10
    return {"X": X, "W": W.astype(problem.dtype), "b": np.zeros(n_classes, problem.dtype), "y": y}


def truth(a: Arrays) -> list[np.ndarray]:
    """Loss and gradients in float64, a few rows at a time."""
    n_rows, sums = len(a["X"]), [0.0, 0.0, 0.0]
    for start in range(0, n_rows, 4096):
        rows = slice(start, start + 4096)
        few = {"W": a["W"].astype(float), "b": a["b"].astype(float), "y": a["y"][rows]}
        means = with_numpy({**few, "X": a["X"][rows].astype(float)})()
        share = len(few["y"]) / n_rows
        sums = [total + share * mean for total, mean in zip(sums, means, strict=True)]
    return [np.asarray(total) for total in sums]


def work(problem: Any) -> tuple[float, float]:
    n_rows, n_features, n_classes = problem.shape
    itemsize = np.dtype(problem.dtype).itemsize
    return n_rows * (n_features * itemsize + 8), 4.0 * n_rows * n_features * n_classes


def with_fastsoftmax(a: Arrays) -> Any:
    """`linear_cross_entropy_value_and_grad(X, W, y, bias=b)`."""
    from fastsoftmax import linear_cross_entropy_value_and_grad

    def run() -> Any:
        loss, grad = linear_cross_entropy_value_and_grad(a["X"], a["W"], a["y"], bias=a["b"])
        return loss, grad.weight, grad.bias

    return run


def with_numpy(a: Arrays, input_grad: bool = False) -> Any:
    """`Z = X @ W.T`, bias and maxima, exp and division by N times the sums in place, `Z.T @ X`."""
    X, W, b, y = (a[name] for name in ("X", "W", "b", "y"))

    def run() -> Any:
        Z = X @ W.T
        Z += b
        Z -= Z.max(axis=1, keepdims=True)
        loss = cross_entropy_in_place(Z, y)
        gradients = Z.T @ X, Z.sum(axis=0)
        return (loss, *gradients, Z @ W) if input_grad else (loss, *gradients)

    return run


def with_sklearn(a: Arrays) -> Any:
    """`LinearModelLoss.loss_gradient`, which lbfgs calls in `LogisticRegression`, coef F-ordered.

    All threads in its loss, OpenBLAS's in its products.
    """
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    model = LinearModelLoss(HalfMultinomialLoss(n_classes=len(a["W"])), fit_intercept=True)
    coef = np.asfortranarray(np.column_stack([a["W"], a["b"]]))
    y = a["y"].astype(a["X"].dtype)

    def run() -> Any:
        loss, grad = model.loss_gradient(coef, a["X"], y, n_threads=machine.N_THREADS)
        grad = grad.reshape(coef.shape, order="F")
        return loss, grad[:, :-1], grad[:, -1]

    return run


def _torch(a: Arrays, how: Any, chunked: bool = False) -> Any:
    import torch
    import torch.nn.functional as F

    X, y = torch.from_numpy(a["X"]), torch.from_numpy(a["y"])

    def dense(W: Any, b: Any) -> Any:
        return F.cross_entropy(F.linear(X, W, b), y)

    def in_chunks(options: Any, W: Any, b: Any) -> Any:
        return F.linear_cross_entropy(X, W, y, linear_bias=b, options=options)

    return how(in_chunks if chunked else dense, a["W"], a["b"])


def with_torch(a: Arrays) -> Any:
    """`F.cross_entropy(F.linear(X, W, b), y)`, then `backward()`."""
    return _torch(a, frameworks.torch_eager)


def with_torch_compiled(a: Arrays) -> Any:
    """`torch.compile(torch.func.grad_and_value(...))` of the same loss, compiled before."""
    return _torch(a, frameworks.torch_compiled)


def with_torch_chunked(a: Arrays) -> Any:
    """`F.linear_cross_entropy`, then `backward()`, the fastest of three sizes of chunks.

    `options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=...)` with 1,024, 4,096 and 16,384
    rows; the brackets say which was the fastest.
    """
    return _torch(a, frameworks.torch_chunked, chunked=True)


def jax_loss(W: Any, b: Any, X: Any, y: Any) -> Any:
    import jax

    Z = X @ W.T + b
    picked = jax.numpy.take_along_axis(Z, y[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(Z, axis=1) - picked).mean()


def with_jax(a: Arrays) -> Any:
    """`jax.jit(jax.value_and_grad(...))` of the dense loss with `jax.nn.logsumexp`."""
    return frameworks.jax_compiled(jax_loss, a["W"], a["b"], a["X"], a["y"], n_parameters=2)


def with_sklearnex(a: Arrays) -> Any:
    """`daal4py.optimization_solver_cross_entropy_loss`, which its LogisticRegression minimises."""
    import daal4py

    n_rows, n_features = a["X"].shape
    n_classes = len(a["W"])
    algorithm = daal4py.optimization_solver_cross_entropy_loss(
        nClasses=n_classes,
        numberOfTerms=n_rows,
        fptype="float" if a["X"].dtype == np.float32 else "double",
        method="defaultDense",
        interceptFlag=True,
        penaltyL1=0,
        penaltyL2=0,
        resultsToCompute="value|gradient",
    )
    labels = a["y"].astype(a["X"].dtype).reshape(-1, 1)
    beta = np.column_stack([a["b"], a["W"]]).reshape(-1, 1)
    algorithm.setup(a["X"], labels, beta)

    def run() -> Any:
        result = algorithm.compute(a["X"], labels, beta)
        gradient = result.gradientIdx.reshape(n_classes, n_features + 1)
        return result.valueIdx[0, 0], gradient[:, 1:], gradient[:, 0]

    return run


PEERS = {
    "fastsoftmax": with_fastsoftmax,
    "NumPy": with_numpy,
    "scikit-learn": with_sklearn,
    "torch": with_torch,
    "torch compiled": with_torch_compiled,
    "torch chunked": with_torch_chunked,
    "JAX": with_jax,
    "sklearnex": with_sklearnex,
}
