"""Problems of whole fits: data as they come in practice, and the objective to be reached."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import objectives

Data = tuple[Any, np.ndarray]


@dataclasses.dataclass(frozen=True)
class FitProblem:
    """What is fitted: `make` gives X and labels, ``l2`` is λ of λ‖W‖²."""

    name: str
    make: Callable[[int], Data]
    n_rows: int
    l2: float
    about: str
    # What the project promises: the fastest of a library takes at least so many times as long.
    promises: dict[str, float]


def correlated(n_features: int, n_classes: int, spread: float, dtype: str) -> Any:
    """Labels drawn from a softmax model of features whose scales differ.

    Features are mixtures of 5/4 as many normal factors: eigenvalues of their correlation lie about
    300:1 apart.
    """
    n_factors = n_features + n_features // 4

    def make(n_rows: int) -> Data:
        rng = np.random.default_rng(0)
        mixing = rng.standard_normal((n_factors, n_features), dtype=np.float32)
        scales = rng.permutation(np.geomspace(1 / math.sqrt(spread), math.sqrt(spread), n_features))
        weights = rng.standard_normal((n_features, n_classes)) * 2 / math.sqrt(n_features)
        X = np.empty((n_rows, n_features), dtype)
        y = np.empty(n_rows, np.int64)
        for start in range(0, n_rows, 20_000):
            rows = slice(start, min(start + 20_000, n_rows))
            part = rng.standard_normal((rows.stop - start, n_factors), dtype=np.float32) @ mixing
            part /= np.linalg.norm(mixing, axis=0)
            y[rows] = (part @ weights + rng.gumbel(size=(len(part), n_classes))).argmax(axis=1)
            X[rows] = part * scales
        return X, y

    return make


def text(dtype: str) -> Any:
    """Bags of words from a vocabulary of 50,000; classes by a softmax model of them."""

    def make(n_rows: int) -> Data:
        shape = (n_rows, *objectives.SPARSE_SHAPES[0][1:])
        arrays = objectives.make_sparse(_Shape(shape, dtype))
        X = objectives.csr(arrays)
        rng = np.random.default_rng(1)
        logits = 2 * (X @ arrays["W"].T) + rng.gumbel(size=(n_rows, len(arrays["W"])))
        return X, logits.argmax(axis=1)

    return make


@dataclasses.dataclass(frozen=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: str


def noisy_digits(dtype: str) -> Any:
    """scikit-learn's digits over and over, with noise: the classes nearly separate."""

    def make(n_rows: int) -> Data:
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        rows = np.arange(n_rows) % len(X)
        noise = np.random.default_rng(0).standard_normal((n_rows, X.shape[1]))
        return (X[rows] + noise).astype(dtype), y[rows]

    return make


def _linear(shape: tuple[int, int, int], spread: float, dtype: str, promises: Any) -> FitProblem:
    n_rows, n_features, n_classes = shape
    scales = f"{spread}:1" if spread > 1 else "equal"
    return FitProblem(
        name=f"{n_rows // 1000}k-{n_features}-{n_classes}-scales{spread}-{dtype}",
        make=correlated(n_features, n_classes, spread, dtype),
        n_rows=n_rows,
        # So small that features scaled to one deviation have the same optimum within the goal:
        # otherwise peers could not use StandardScaler.
        l2=1e-8,
        about=f"N = {n_rows:,}, D = {n_features}, K = {n_classes}, {dtype}, correlated columns, "
        f"scales {scales}, noisy labels",
        promises=promises,
    )


SHAPES = [(200_000, 50, 10), (60_000, 784, 10)]
PROBLEMS = [
    *[
        _linear(shape, spread, dtype, promises)
        for dtype, spread, promises in (
            ("float32", 30, {"scikit-learn": 25, "sklearnex": 20}),
            ("float32", 1, {"scikit-learn": 10, "sklearnex": 10}),
            ("float64", 30, {"scikit-learn": 10, "sklearnex": 10}),
            ("float64", 1, {"scikit-learn": 10, "sklearnex": 10}),
        )
        for shape in SHAPES
    ],
    FitProblem(
        name="20k-64-987-float64",
        make=correlated(64, 987, 1, "float64"),
        n_rows=20_000,
        l2=1 / (2 * 20_000),  # C = 1
        about="N = 20,000, D = 64, K = 987, float64, correlated columns, noisy labels",
        promises={"scikit-learn": 8},
    ),
    FitProblem(
        name="text-csr-float32",
        make=text("float32"),
        n_rows=500_000,
        l2=1e-6,
        about="CSR, N = 500,000, D = 50,000, 60 entries a row, Zipf columns, K = 20, float32",
        promises={"scikit-learn": 5},
    ),
    *[
        FitProblem(
            name=f"digits-100k-{dtype}",
            make=noisy_digits(dtype),
            n_rows=100_000,
            l2=1e-6,
            about="scikit-learn's digits tiled with noise of deviation 1 (pixels are 0 to 16), "
            f"N = 100,000, D = 64, K = 10, {dtype}, nearly separable",
            promises={"scikit-learn": 3},
        )
        for dtype in ("float32", "float64")
    ],
]
