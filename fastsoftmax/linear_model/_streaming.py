"""Fits of rows that do not fit in memory, and come from sources instead of arrays."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax.objective import SoftmaxObjective
from fastsoftmax.reference import Array


def problem_of_source(
    source: Any, y: Any, sample_weight: Any, class_weight: Any, **options: Any
) -> tuple[Problem, Array]:
    """Return the problem of a source's rows, and the classes."""
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(f"{name}: expected None with a source, whose chunks contain it")
    missing = [name for name in ("n_features", "classes") if not hasattr(source, name)]
    if missing:
        raise ValueError(
            f"X: expected arrays, or a source as of fastsoftmax.sources; got one without "
            f"{' and '.join(missing)}: wrap a function in fastsoftmax.sources.Chunks"
        )
    classes = np.asarray(source.classes)
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got {len(classes)}")
    if class_weight == "balanced":
        raise ValueError('class_weight: expected None or a dict with a source, got "balanced"')
    chunks = source
    if class_weight is not None:
        weights = compute_class_weight(class_weight, classes=classes, y=classes)
        chunks = _weighted(source, weights)
    objective = SoftmaxObjective.from_chunks(
        chunks, n_features=source.n_features, n_classes=len(classes), **options
    )
    return objective.problem, classes


def _weighted(source: Callable[[], Iterable[Any]], of_class: Array) -> Callable[[], Iterator[Any]]:
    """Multiply the weights of chunks by those of their classes."""

    def chunks() -> Iterator[Any]:
        for X, codes, *weight in source():
            dtype = validate.compute_dtype(X.dtype, "X")
            weights = of_class[codes].astype(dtype)
            yield X, codes, weights * np.asarray(weight[0], dtype) if weight else weights

    return chunks
