"""One registry of what is measured: tasks, their problems, and the peers that solve them.

A peer is a factory: from a problem's arrays to a function without arguments that returns the result
as NumPy arrays or things that convert to them. Setting up (layout, jit, moving data) happens in the
factory, as a user would do it once; what the function does is timed. Factories import their
library, so that a missing one costs nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import objectives
import rows

Arrays = dict[str, np.ndarray]
Run = Callable[[], Any]
N_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A named size in a dtype."""

    task: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        sizes = "x".join(str(n) for n in self.shape)
        return f"{self.task}-{sizes}-{self.dtype}"

    def scaled(self, scale: float) -> Problem:
        """The same problem with fewer rows, for a quick look at whether everything works."""
        rows = max(int(self.shape[0] * scale), 50)
        return dataclasses.replace(self, shape=(rows, *self.shape[1:]))


@dataclasses.dataclass(frozen=True)
class Task:
    """What is computed: data, the truth to check against, the peers, and the work in it."""

    make: Callable[[Problem], Arrays]
    truth: Callable[[Arrays], list[np.ndarray]]
    peers: dict[str, Callable[[Arrays], Run]]
    problems: list[Problem]
    # (bytes that must move at least, floating-point operations of the products)
    work: Callable[[Problem], tuple[float, float]]
    # How far peers may be off, relative to the largest value, where more than `check` allows ours.
    peer_tolerance: Callable[[Problem], float] = lambda problem: 0.0


REQUIRES = {
    "scikit-learn": "sklearn",
    "torch": "torch",
    "copy": "torch",
    "SciPy": "scipy",
    "torch dense": "torch",
    "torch linear_cross_entropy": "torch",
    "jax": "jax",
    "sklearnex": "daal4py",
}


def available(peer: str) -> bool:
    """Whether the peer's library is installed, without importing it."""
    module = REQUIRES.get(peer)
    return module is None or importlib.util.find_spec(module) is not None


# ------------------------------------------------------------------ loss and gradient, linear


def make_linear(problem: Problem) -> Arrays:
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


def linear_truth(a: Arrays) -> list[np.ndarray]:
    """Loss and gradients in float64, in pieces."""
    X, W, b, y = a["X"], a["W"].astype(float), a["b"].astype(float), a["y"]
    loss, gradient, bias = 0.0, np.zeros_like(W), np.zeros_like(b)
    for start in range(0, len(X), 4096):
        x, labels = X[start : start + 4096].astype(float), y[start : start + 4096]
        Z = x @ W.T + b
        m = Z.max(axis=1, keepdims=True)
        E = np.exp(Z - m)
        sums = E.sum(axis=1, keepdims=True)
        rows = np.arange(len(x))
        loss += (np.log(sums[:, 0]) + m[:, 0] - Z[rows, labels]).sum()
        E /= sums
        E[rows, labels] -= 1
        gradient += E.T @ x
        bias += E.sum(axis=0)
    return [np.array(loss / len(X)), gradient / len(X), bias / len(X)]


def linear_work(problem: Problem) -> tuple[float, float]:
    n_rows, n_features, n_classes = problem.shape
    itemsize = np.dtype(problem.dtype).itemsize
    return n_rows * (n_features * itemsize + 8), 4.0 * n_rows * n_features * n_classes


def fastsoftmax_linear(a: Arrays) -> Run:
    from fastsoftmax import linear_cross_entropy_value_and_grad

    def run() -> Any:
        loss, grad = linear_cross_entropy_value_and_grad(a["X"], a["W"], a["y"], bias=a["b"])
        return loss, grad.weight, grad.bias

    return run


def numpy_linear(a: Arrays) -> Run:
    from fastsoftmax import reference

    def run() -> Any:
        loss, grad = reference.linear_cross_entropy_value_and_grad(
            a["X"], a["W"], a["y"], bias=a["b"]
        )
        return loss, grad.weight, grad.bias

    return run


def sklearn_linear(a: Arrays) -> Run:
    """What LogisticRegression's lbfgs evaluates, in the layout it uses: coef in F order."""
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    n_classes = len(a["W"])
    model = LinearModelLoss(HalfMultinomialLoss(n_classes=n_classes), fit_intercept=True)
    coef = np.asfortranarray(np.column_stack([a["W"], a["b"]]))
    y = a["y"].astype(a["X"].dtype)

    def run() -> Any:
        loss, grad = model.loss_gradient(coef, a["X"], y, n_threads=N_THREADS)
        grad = grad.reshape(coef.shape, order="F")
        return loss, grad[:, :-1], grad[:, -1]

    return run


def _torch_linear(a: Arrays, loss_of: Callable[..., Any]) -> Run:
    import torch

    torch.set_num_threads(N_THREADS)
    X, y = torch.from_numpy(a["X"]), torch.from_numpy(a["y"])
    W = torch.from_numpy(a["W"]).requires_grad_()
    b = torch.from_numpy(a["b"]).requires_grad_()

    def run() -> Any:
        W.grad = b.grad = None
        loss = loss_of(torch.nn.functional, X, W, y, b)
        loss.backward()
        return loss.detach().numpy(), W.grad.numpy(), b.grad.numpy()

    return run


def torch_dense(a: Arrays) -> Run:
    return _torch_linear(a, lambda F, X, W, y, b: F.cross_entropy(F.linear(X, W, b), y))


def torch_fused(a: Arrays) -> Run:
    return _torch_linear(a, lambda F, X, W, y, b: F.linear_cross_entropy(X, W, y, linear_bias=b))


def jax_linear(a: Arrays) -> Run:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    X, W, b, y = (jnp.asarray(a[name]) for name in ("X", "W", "b", "y"))

    def loss(W: Any, b: Any, X: Any, y: Any) -> Any:
        Z = X @ W.T + b
        picked = jnp.take_along_axis(Z, y[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(Z, axis=1) - picked).mean()

    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def run() -> Any:
        value, (weight, bias) = jax.block_until_ready(function(W, b, X, y))
        return value, weight, bias

    return run


def sklearnex_linear(a: Arrays) -> Run:
    """OneDAL's own objective, which sklearnex's LogisticRegression minimises."""
    import daal4py as d4p

    n_rows, n_features = a["X"].shape
    n_classes = len(a["W"])
    precision = "float" if a["X"].dtype == np.float32 else "double"
    algorithm = d4p.optimization_solver_cross_entropy_loss(
        nClasses=n_classes,
        numberOfTerms=n_rows,
        fptype=precision,
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


LINEAR_SHAPES = [
    (1_000_000, 100, 10),
    (60_000, 784, 10),
    (1_000_000, 20, 3),
    (200_000, 50, 100),
    (100_000, 512, 1000),
    (20_000, 256, 10_000),
]
TASKS = {
    "linear": Task(
        make=make_linear,
        truth=linear_truth,
        peers={
            "fastsoftmax": fastsoftmax_linear,
            "NumPy reference": numpy_linear,
            "scikit-learn": sklearn_linear,
            "torch dense": torch_dense,
            "torch linear_cross_entropy": torch_fused,
            "jax": jax_linear,
            "sklearnex": sklearnex_linear,
        },
        problems=[
            Problem("linear", shape, dtype)
            for dtype in ("float32", "float64")
            for shape in LINEAR_SHAPES
        ],
        work=linear_work,
    ),
}
for _name in ("softmax", "log_softmax", "logsumexp"):
    for _axis in (1, 0):
        _task = f"{_name}-axis{_axis}"
        TASKS[_task] = Task(
            make=rows.make,
            truth=rows.truth_of(_name, _axis),
            peers=rows.row_peers(_name, _axis),
            problems=[Problem(_task, s, d) for d in ("float32", "float64") for s in rows.SHAPES],
            work=rows.work,
            peer_tolerance=rows.column_sum_error,
        )
TASKS["cross_entropy"] = Task(
    make=rows.make,
    truth=rows.cross_entropy_truth,
    peers=rows.LOSS_PEERS,
    problems=[Problem("cross_entropy", s, d) for d in ("float32", "float64") for s in rows.SHAPES],
    work=rows.work,
)
TASKS["sparse"] = Task(
    make=objectives.make_sparse,
    truth=objectives.sparse_truth,
    peers=objectives.SPARSE_PEERS,
    problems=[
        Problem("sparse", s, d) for d in ("float32", "float64") for s in objectives.SPARSE_SHAPES
    ],
    work=objectives.sparse_work,
)
TASKS["hessp"] = Task(
    make=make_linear,
    truth=objectives.hessp_truth,
    peers=objectives.HESSP_PEERS,
    problems=[
        Problem("hessp", s, d) for d in ("float32", "float64") for s in objectives.HESSP_SHAPES
    ],
    work=objectives.hessp_work,
)
TASKS["value"] = Task(
    make=make_linear,
    truth=lambda a: linear_truth(a)[:1],
    peers=objectives.VALUE_PEERS,
    problems=[Problem("value", (1_000_000, 100, 10), d) for d in ("float32", "float64")],
    work=objectives.value_work,
)
TASKS["images"] = Task(
    make=objectives.make_images,
    truth=linear_truth,
    peers=objectives.image_peers(fastsoftmax_linear),
    problems=[Problem("images", (60_000, 784, 10), "float32")],
    work=objectives.image_work,
)
PROBLEMS = [problem for task in TASKS.values() for problem in task.problems]


def check(results: Any, truth: list[np.ndarray], problem: Problem, peer: str) -> None:
    """Raise where a result is not what it should be: nothing wrong is ever timed."""
    if peer == "copy":
        return
    tolerance = 2e-4 if problem.dtype == "float32" else 1e-9
    if peer != "fastsoftmax":
        tolerance = max(tolerance, TASKS[problem.task].peer_tolerance(problem))
    for result, want in zip(results, truth, strict=True):
        error = np.abs(np.asarray(result, float) - want).max()
        scale = np.abs(want).max()
        if not error <= tolerance * scale + tolerance * 1e-2:
            raise AssertionError(f"off by {error:.1e} where values reach {scale:.1e}")
