"""One registry of what is measured: tasks, their problems, and the peers that solve them.

A peer is a factory: from a problem's arrays to a function without arguments that returns the result
as NumPy arrays or things that convert to them. Setting up (layout, compiling, moving data) happens
in the factory, as a user would do it once; what the function does is timed. The factory's docstring
says what is run, and is printed in the report. Factories import their library, so that a missing
one costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import batches
import grid_points
import linear
import numpy as np
import objectives
import rows
import torch_training

Arrays = dict[str, np.ndarray]
Run = Callable[[], Any]
DTYPES = ("float32", "float64")


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
        n_rows = max(int(self.shape[0] * scale), 50)
        return dataclasses.replace(self, shape=(n_rows, *self.shape[1:]))


@dataclasses.dataclass(frozen=True)
class Task:
    """What is computed: data, the truth to check against, the peers, and the work in it."""

    make: Callable[[Problem], Arrays]
    truth: Callable[[Arrays], list[np.ndarray]]
    peers: dict[str, Callable[[Arrays], Run]]
    shapes: list[tuple[int, ...]]
    # (bytes that must move at least, floating-point operations of the products)
    work: Callable[[Problem], tuple[float, float]]
    dtypes: tuple[str, ...] = DTYPES
    # How far peers may be off, relative to the largest value, where more than `check` allows ours.
    peer_tolerance: Callable[[Problem], float] = lambda problem: 0.0

    def about(self) -> dict[str, str]:
        """What each peer that is installed runs, in a line."""
        return {
            peer: " ".join(getattr(factory, "func", factory).__doc__.split())
            for peer, factory in self.peers.items()
            if available(peer)
        }


REQUIRES = {
    "scikit-learn": "sklearn",
    "torch": "torch",
    "torch compiled": "torch",
    "torch chunked": "torch",
    "copy": "torch",
    "SciPy": "scipy",
    "JAX": "jax",
    "sklearnex": "daal4py",
    "bfloat16": "ml_dtypes",
    "onnxruntime": "onnxruntime",
}


def available(peer: str) -> bool:
    """Whether the peer's library, and the compiler it needs, is installed; nothing is imported."""
    if peer == "torch compiled" and not shutil.which(os.environ.get("CXX", "g++")):
        return False
    if peer == "onnxruntime" and not importlib.util.find_spec("onnx"):  # which makes the model
        return False
    return peer not in REQUIRES or importlib.util.find_spec(REQUIRES[peer]) is not None


TASKS = {
    "linear": Task(linear.make, linear.truth, linear.PEERS, linear.SHAPES, linear.work),
    "batches": Task(linear.make, linear.truth, batches.PEERS, batches.SHAPES, linear.work),
    "batches_input_grad": Task(
        linear.make,
        functools.partial(torch_training.truth, True),
        batches.INPUT_GRAD_PEERS,
        batches.SHAPES,
        functools.partial(torch_training.work, True),
        dtypes=("float32",),
    ),
    # Its points are grid.py's and growth.py's.
    "grid": Task(
        grid_points.make,
        linear.truth,
        grid_points.PEERS,
        [],
        linear.work,
        peer_tolerance=grid_points.plain_sum_error,
    ),
    **{
        f"{name}-axis{axis}": Task(
            make=rows.make,
            truth=functools.partial(rows.truth, name, axis),
            peers=rows.peers(name, axis),
            shapes=rows.SHAPES,
            work=rows.work,
            peer_tolerance=rows.column_sum_error,
        )
        for name in ("softmax", "log_softmax", "logsumexp")
        for axis in (1, 0)
    },
    "cross_entropy": Task(rows.make, rows.loss_truth, rows.LOSS_PEERS, rows.SHAPES, rows.work),
    "sparse": Task(
        objectives.make_sparse,
        objectives.sparse_truth,
        objectives.SPARSE_PEERS,
        objectives.SPARSE_SHAPES,
        objectives.sparse_work,
    ),
    "hessp": Task(
        linear.make,
        objectives.hessp_truth,
        objectives.HESSP_PEERS,
        objectives.HESSP_SHAPES,
        objectives.hessp_work,
    ),
    "value": Task(
        linear.make,
        lambda a: linear.truth(a)[:1],
        objectives.VALUE_PEERS,
        linear.SHAPES[:1],
        objectives.value_work,
    ),
    "halves": Task(
        objectives.make_halves,
        linear.truth,
        objectives.HALVES_PEERS,
        objectives.HALVES_SHAPES,
        objectives.half_work,
        dtypes=("float32",),
    ),
    "images": Task(
        objectives.make_images,
        linear.truth,
        objectives.IMAGE_PEERS,
        [(60_000, 784, 10)],
        objectives.image_work,
        dtypes=("float32",),
    ),
}
if importlib.util.find_spec("torch"):  # none of its peers does without
    TASKS |= {
        name: Task(
            linear.make,
            functools.partial(torch_training.truth, of_input),
            torch_training.peers(of_input),
            torch_training.SHAPES,
            functools.partial(torch_training.work, of_input),
            dtypes=("float32",),
        )
        for name, of_input in torch_training.TASKS.items()
    }
PROBLEMS = [
    Problem(name, shape, dtype)
    for name, task in TASKS.items()
    for dtype in task.dtypes
    for shape in task.shapes
]


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
