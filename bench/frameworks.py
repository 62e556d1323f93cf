"""Loss and gradients by the libraries that differentiate: torch as it is and compiled, and JAX."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import machine

CHUNKS = (1024, 4096, 16384)


def torch_eager(loss: Callable[..., Any], *parameters: Any) -> Any:
    """Return what evaluates a loss and its gradients as a training loop does."""
    import torch

    torch.set_num_threads(machine.N_THREADS)
    tensors = [torch.from_numpy(parameter).requires_grad_() for parameter in parameters]

    def run() -> Any:
        for tensor in tensors:
            tensor.grad = None
        value = loss(*tensors)
        value.backward()
        return value.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)

    return run


def torch_compiled(loss: Callable[..., Any], *parameters: Any) -> Any:
    """Return the same of the compiled function; the first call compiles."""
    import torch

    torch.set_num_threads(machine.N_THREADS)
    tensors = [torch.from_numpy(parameter) for parameter in parameters]
    function = torch.compile(torch.func.grad_and_value(loss, argnums=tuple(range(len(tensors)))))

    def run() -> Any:
        gradients, value = function(*tensors)
        return value.numpy(), *(gradient.numpy() for gradient in gradients)

    return run


def torch_chunked(loss: Callable[..., Any], *parameters: Any) -> Any:
    """Return the fastest of CHUNKS of ``loss``, which takes torch's options first."""
    import torch

    def with_chunks(n_rows: int) -> Any:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=n_rows)
        run = torch_eager(lambda *tensors: loss(options, *tensors), *parameters)
        run.note = f"{n_rows:,} rows"
        return run

    with warnings.catch_warnings():
        # torch warns where it leaves the chunks out.
        warnings.simplefilter("error", UserWarning)
        return min(map(with_chunks, CHUNKS), key=_median_time)


def _median_time(run: Callable[[], Any]) -> float:
    durations = []
    for _ in range(4):
        started = time.perf_counter()
        run()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[1:])  # the first run warms up


def jax_compiled(loss: Callable[..., Any], *arrays: Any, n_parameters: int) -> Any:
    """Return what evaluates a loss and its gradients; data are arguments, not constants."""
    import jax

    jax.config.update("jax_enable_x64", True)
    moved = [jax.numpy.asarray(array) for array in arrays]
    function = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(n_parameters))))

    def run() -> Any:
        value, gradients = jax.block_until_ready(function(*moved))
        return value, *gradients

    return run
