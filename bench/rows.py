"""Tasks on rows of logits: softmax, log_softmax, logsumexp and cross-entropy, and a plain copy."""

from __future__ import annotations

import functools
from typing import Any

import frameworks
import machine
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


def cross_entropy_in_place(Z: np.ndarray, y: np.ndarray) -> Any:
    """Return the mean loss of logits less their row's maximum, and leave its gradient in Z."""
    rows = np.arange(len(y))
    picked = Z[rows, y]
    np.exp(Z, out=Z)
    sums = Z.sum(axis=1)
    Z /= (len(y) * sums)[:, None]
    Z[rows, y] -= 1 / len(y)
    return (np.log(sums) - picked).mean(dtype=np.float64)


def truth(name: str, axis: int, a: Arrays) -> list[np.ndarray]:
    """The result by NumPy in the problem's own dtype, sums in float64."""
    x = a["x"]
    top = x.max(axis=axis, keepdims=True)
    total = np.exp(x - top).sum(axis=axis, keepdims=True, dtype=np.float64)
    lse = (top + np.log(total)).astype(x.dtype)
    if name == "logsumexp":
        return [lse.squeeze(axis)]
    return [x - lse if name == "log_softmax" else np.exp(x - lse)]


def with_fastsoftmax(name: str, axis: int, a: Arrays) -> Any:
    """The function of the task's name, into an array given."""
    import fastsoftmax

    function, x = getattr(fastsoftmax, name), a["x"]
    if name == "logsumexp":
        return lambda: [function(x, axis=axis)]
    out = np.empty_like(x)
    return lambda: [function(x, axis=axis, out=out)]


def with_copy(a: Arrays) -> Any:
    """`torch.Tensor.copy_`, all cores: what the memory allows."""
    import torch

    x = torch.from_numpy(a["x"])
    out = torch.empty_like(x)
    return lambda: out.copy_(x)


def with_scipy(name: str, axis: int, a: Arrays) -> Any:
    """`scipy.special`'s function."""
    import scipy.special

    return lambda: [getattr(scipy.special, name)(a["x"], axis=axis)]


def with_numpy(name: str, axis: int, a: Arrays) -> Any:
    """`z = x - x.max(...)`, exp, sum, and division or log, in place where it can be."""

    def run() -> Any:
        top = a["x"].max(axis=axis, keepdims=True)
        z = a["x"] - top
        if name == "log_softmax":
            z -= np.log(np.exp(z).sum(axis=axis, keepdims=True))
            return [z]
        np.exp(z, out=z)
        sums = z.sum(axis=axis, keepdims=True)
        if name == "logsumexp":
            return [(top + np.log(sums)).squeeze(axis)]
        z /= sums
        return [z]

    return run


def with_torch(name: str, axis: int, a: Arrays) -> Any:
    """`torch._softmax`, `_log_softmax` or `logsumexp`, into an array given."""
    import torch

    x = torch.from_numpy(a["x"])
    if name == "logsumexp":
        out = torch.empty(x.shape[1 - axis], dtype=x.dtype)
        return lambda: [torch.logsumexp(x, axis, out=out)]
    out = torch.empty_like(x)
    function = torch._softmax if name == "softmax" else torch._log_softmax
    return lambda: [function(x, axis, False, out=out)]


def with_jax(name: str, axis: int, a: Arrays) -> Any:
    """`jax.jit` of `jax.nn`'s function."""
    import jax

    jax.config.update("jax_enable_x64", True)
    function = jax.jit(lambda x: getattr(jax.nn, name)(x, axis=axis))
    x = jax.numpy.asarray(a["x"])
    return lambda: [jax.block_until_ready(function(x))]


def with_onnxruntime(name: str, a: Arrays) -> Any:
    """An ONNX model of the one operator along the last axis, bound to arrays given."""
    import onnx
    import onnxruntime
    from onnx import helper

    operator = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "ReduceLogSumExp"}
    x, dtype = a["x"], helper.np_dtype_to_tensor_dtype(a["x"].dtype)
    if name == "logsumexp":
        out, options = np.empty(len(x), x.dtype), {"keepdims": 0}
        constants = [helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])]
    else:
        out, options, constants = np.empty_like(x), {"axis": 1}, []
    node = helper.make_node(operator[name], ["x", *(c.name for c in constants)], ["out"], **options)
    ends = [[helper.make_tensor_value_info(n, dtype, v.shape)] for n, v in (("x", x), ("out", out))]
    graph = helper.make_graph([node], name, *ends, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = machine.N_THREADS
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), how, providers=["CPUExecutionProvider"]
    )
    bound = session.io_binding()
    bound.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    bound.bind_output("out", "cpu", 0, x.dtype, out.shape, out.ctypes.data)

    def run() -> Any:
        session.run_with_iobinding(bound)
        return [out]

    return run


def peers(name: str, axis: int) -> dict[str, Any]:
    found = {
        "fastsoftmax": with_fastsoftmax,
        "SciPy": with_scipy,
        "NumPy": with_numpy,
        "torch": with_torch,
        "JAX": with_jax,
    }
    bound = {p: functools.partial(f, name, axis) for p, f in found.items()}
    if axis == 1:
        bound["onnxruntime"] = functools.partial(with_onnxruntime, name)
    return {"copy": with_copy} | bound


# ---------------------------------------------------------------------- loss and gradient of logits


def loss_truth(a: Arrays) -> list[np.ndarray]:
    loss, gradient = numpy_loss(a)()
    return [np.array(loss), gradient]


def fastsoftmax_loss(a: Arrays) -> Any:
    """`cross_entropy_value_and_grad(x, y, out=out)`."""
    from fastsoftmax import cross_entropy_value_and_grad

    out = np.empty_like(a["x"])
    return lambda: cross_entropy_value_and_grad(a["x"], a["y"], out=out)


def numpy_loss(a: Arrays) -> Any:
    """`Z = x - x.max(axis=1, keepdims=True)`, then exp and division in place."""

    def run() -> Any:
        Z = a["x"] - a["x"].max(axis=1, keepdims=True)
        return cross_entropy_in_place(Z, a["y"]), Z

    return run


def _torch_loss(a: Arrays, how: Any) -> Any:
    import torch

    y = torch.from_numpy(a["y"])
    return how(lambda x: torch.nn.functional.cross_entropy(x, y), a["x"])


def torch_loss(a: Arrays) -> Any:
    """`F.cross_entropy(x, y)`, then `backward()`."""
    return _torch_loss(a, frameworks.torch_eager)


def torch_compiled_loss(a: Arrays) -> Any:
    """`torch.compile(torch.func.grad_and_value(...))` of the same loss, compiled before."""
    return _torch_loss(a, frameworks.torch_compiled)


def jax_loss(a: Arrays) -> Any:
    """`jax.jit(jax.value_and_grad(...))` of the loss with `jax.nn.logsumexp`."""
    import jax

    def loss(x: Any, y: Any) -> Any:
        picked = jax.numpy.take_along_axis(x, y[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(x, axis=1) - picked).mean()

    return frameworks.jax_compiled(loss, a["x"], a["y"], n_parameters=1)


LOSS_PEERS = {
    "fastsoftmax": fastsoftmax_loss,
    "copy": with_copy,
    "NumPy": numpy_loss,
    "torch": torch_loss,
    "torch compiled": torch_compiled_loss,
    "JAX": jax_loss,
}
