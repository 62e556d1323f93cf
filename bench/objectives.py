"""More tasks: sparse X, Hessian products, the value alone, features of 8 and of 16 bits."""

from __future__ import annotations

import math
from typing import Any

import linear
import machine
import numpy as np
from rows import cross_entropy_in_place

Arrays = dict[str, np.ndarray]

SPARSE_SHAPES = [(500_000, 50_000, 60, 20)]
HESSP_SHAPES = [(200_000, 50, 10), (60_000, 784, 10)]
N_PRODUCTS = 10


# -------------------------------------------------------------------------------- text-like CSR


def make_sparse(problem: Any) -> Arrays:
    """Rows of a bag of words: columns by Zipf's law, in ascending order, none twice."""
    n_rows, n_features, n_nonzeros, n_classes = problem.shape
    rng = np.random.default_rng(0)
    frequency = 1.0 / np.arange(1, n_features + 1)
    edges = np.cumsum(frequency / frequency.sum())
    names = rng.permutation(n_features)  # frequent words are anywhere in the vocabulary
    rows = []
    for start in range(0, n_rows, 10_000):
        drawn = np.searchsorted(edges, rng.random((min(10_000, n_rows - start), 3 * n_nonzeros)))
        for row in np.minimum(drawn, n_features - 1):
            kept = np.unique(row)
            rows.append(names[rng.permutation(kept)[:n_nonzeros]])
    lengths = np.array([len(row) for row in rows])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    indices = np.concatenate([np.sort(row) for row in rows]).astype(np.int32)
    data = (1 + rng.exponential(size=len(indices))).astype(problem.dtype)
    data /= np.repeat(np.sqrt(lengths), lengths).astype(problem.dtype)
    W = rng.standard_normal((n_classes, n_features), dtype=problem.dtype)
    y = rng.integers(0, n_classes, n_rows)
    return {"data": data, "indices": indices, "indptr": indptr, "W": W, "y": y}


def csr(a: Arrays) -> Any:
    from scipy.sparse import csr_matrix

    shape = (len(a["indptr"]) - 1, a["W"].shape[1])
    return csr_matrix((a["data"], a["indices"], a["indptr"]), shape=shape)


def sparse_truth(a: Arrays) -> list[np.ndarray]:
    loss, gradient = with_scipy({**a, "data": a["data"].astype(float), "W": a["W"].astype(float)})()
    return [np.array(loss), gradient]


def sparse_work(problem: Any) -> tuple[float, float]:
    n_rows, _, n_nonzeros, n_classes = problem.shape
    size = np.dtype(problem.dtype).itemsize
    nonzeros = float(n_rows) * n_nonzeros
    return nonzeros * (size + 4), 4.0 * nonzeros * n_classes


def fastsoftmax_sparse(a: Arrays) -> Any:
    """`SoftmaxObjective(X, y)`, prepared before, at a vector."""
    from fastsoftmax import SoftmaxObjective

    obj = SoftmaxObjective(csr(a), a["y"], n_classes=len(a["W"]), fit_intercept=False)
    w = obj.pack(a["W"])

    def run() -> Any:
        loss, gradient = obj(w)
        return loss, obj.unpack(gradient)[0]

    return run


def sklearn_sparse(a: Arrays) -> Any:
    """`LinearModelLoss.loss_gradient` of a CSR matrix, coef F-ordered."""
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    n_classes = len(a["W"])
    model = LinearModelLoss(HalfMultinomialLoss(n_classes=n_classes), fit_intercept=False)
    X, coef, y = csr(a), np.asfortranarray(a["W"]), a["y"].astype(a["data"].dtype)

    def run() -> Any:
        loss, grad = model.loss_gradient(coef, X, y, n_threads=machine.N_THREADS)
        return loss, grad.reshape(coef.shape, order="F")

    return run


def with_scipy(a: Arrays) -> Any:
    """SciPy's CSR products and NumPy in place; Wᵀ and Xᵀ stored by rows beforehand."""
    X, y = csr(a), a["y"]
    transposed, W_t = X.T.tocsr(), np.ascontiguousarray(a["W"].T)

    def run() -> Any:
        Z = X @ W_t
        Z -= Z.max(axis=1, keepdims=True)
        loss = cross_entropy_in_place(Z, y)
        return loss, (transposed @ Z).T

    return run


SPARSE_PEERS = {
    "fastsoftmax": fastsoftmax_sparse,
    "scikit-learn": sklearn_sparse,
    "SciPy": with_scipy,
}

# ------------------------------------------------------------- a gradient and ten Hessian products


def directions(a: Arrays) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((N_PRODUCTS, a["W"].size + a["b"].size))


def hessp_truth(a: Arrays) -> list[np.ndarray]:
    """By the formula, in float64 and in pieces: the first and the last product."""
    X, W, b = a["X"], a["W"].astype(float), a["b"].astype(float)
    products = [np.zeros(W.size + b.size) for _ in range(2)]
    for start in range(0, len(X), 4096):
        x = X[start : start + 4096].astype(float)
        Z = x @ W.T + b
        P = np.exp(Z - Z.max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        for product, v in zip(products, directions(a)[[0, -1]], strict=True):
            U = x @ v[: W.size].reshape(W.shape).T + v[W.size :]
            R = P * (U - (P * U).sum(axis=1, keepdims=True))
            product[: W.size] += (R.T @ x).ravel()
            product[W.size :] += R.sum(axis=0)
    return [product / len(X) for product in products]


def hessp_work(problem: Any) -> tuple[float, float]:
    n_rows, n_features, n_classes = problem.shape
    size = np.dtype(problem.dtype).itemsize
    flops = (4.0 + 6.0 * N_PRODUCTS) * n_rows * n_features * n_classes
    return (1 + N_PRODUCTS) * float(n_rows) * n_features * size, flops


def fastsoftmax_hessp(a: Arrays) -> Any:
    """`SoftmaxObjective(X, y)`, prepared before, and ten of its `hessp(w, v)`."""
    (obj, w), vs = _objective(a), directions(a)

    def run() -> Any:
        obj(w)
        products = [obj.hessp(w, v) for v in vs]
        return products[0], products[-1]

    return run


def sklearn_hessp(a: Arrays) -> Any:
    """`LinearModelLoss.gradient_hessian_product`, and ten products by what it returns."""
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    W, b, X = a["W"], a["b"], a["X"]
    model = LinearModelLoss(HalfMultinomialLoss(n_classes=len(W)), fit_intercept=True)
    coef = np.asfortranarray(np.column_stack([W, b]))
    y = a["y"].astype(X.dtype)

    def packed(v: np.ndarray) -> np.ndarray:
        both = np.column_stack([v[: W.size].reshape(W.shape), v[W.size :]])
        return both.astype(X.dtype).ravel(order="F")

    vs = [packed(v) for v in directions(a)]

    def unpacked(product: np.ndarray) -> np.ndarray:
        both = product.reshape(coef.shape, order="F")
        return np.concatenate([both[:, :-1].ravel(), both[:, -1]])

    def run() -> Any:
        _, product = model.gradient_hessian_product(
            coef, X, y, l2_reg_strength=0.0, n_threads=machine.N_THREADS
        )
        products = [product(v) for v in vs]
        return unpacked(products[0]), unpacked(products[-1])

    return run


HESSP_PEERS = {"fastsoftmax": fastsoftmax_hessp, "scikit-learn": sklearn_hessp}

# ------------------------------------------------------------------------------- the value alone


def value_work(problem: Any) -> tuple[float, float]:
    n_rows, n_features, n_classes = problem.shape
    size = np.dtype(problem.dtype).itemsize
    return float(n_rows) * n_features * size, 2.0 * n_rows * n_features * n_classes


def _objective(a: Arrays) -> Any:
    from fastsoftmax import SoftmaxObjective

    obj = SoftmaxObjective(a["X"], a["y"], n_classes=len(a["W"]))
    return obj, obj.pack(a["W"], a["b"])


def value(a: Arrays) -> Any:
    """`SoftmaxObjective.value(w)`."""
    obj, w = _objective(a)
    return lambda: [obj.value(w)]


def value_and_gradient(a: Arrays) -> Any:
    """`SoftmaxObjective(w)` of fastsoftmax too, which has the gradient as well."""
    obj, w = _objective(a)
    return lambda: [obj(w)[0]]


VALUE_PEERS = {"fastsoftmax": value, "value and gradient": value_and_gradient}

# -------------------------------------------------------------------------------- 8-bit images


def make_images(problem: Any) -> Arrays:
    """Images with as many dark pixels as handwritten digits have."""
    n_rows, n_features, n_classes = problem.shape
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (n_rows, n_features)).astype(np.uint8)
    X[rng.random(X.shape) < 0.8] = 0
    W = rng.standard_normal((n_classes, n_features)) / (100 * math.sqrt(n_features))
    b = np.zeros(n_classes, np.float32)
    return {"X": X, "W": W.astype(np.float32), "b": b, "y": rng.integers(0, n_classes, n_rows)}


def image_work(problem: Any) -> tuple[float, float]:
    n_rows, n_features, n_classes = problem.shape
    return float(n_rows) * n_features, 4.0 * n_rows * n_features * n_classes


def float_images(a: Arrays) -> Any:
    """The same function of fastsoftmax on the images as float32, converted before."""
    return linear.with_fastsoftmax({**a, "X": a["X"].astype(np.float32)})


IMAGE_PEERS = {"fastsoftmax": linear.with_fastsoftmax, "float32 images": float_images}


# ------------------------------------------------------------------------- features of 16 bits

HALVES_SHAPES = [(1_000_000, 100, 10), (60_000, 784, 10), (200_000, 768, 100)]


def make_halves(problem: Any) -> Arrays:
    """Features that float16, bfloat16 and float32 all hold exactly."""
    arrays = linear.make(problem)
    X = np.clip(np.round(16 * arrays["X"]), -127, 127) / 16
    return {**arrays, "X": X.astype(np.float32)}


def half_work(problem: Any) -> tuple[float, float]:
    n_rows, n_features, n_classes = problem.shape
    return 2.0 * n_rows * n_features, 4.0 * n_rows * n_features * n_classes


def float16_features(a: Arrays) -> Any:
    """`linear_cross_entropy_value_and_grad` of float16 features."""
    return linear.with_fastsoftmax({**a, "X": a["X"].astype(np.float16)})


def bfloat16_features(a: Arrays) -> Any:
    """The same of bfloat16 features."""
    from ml_dtypes import bfloat16

    return linear.with_fastsoftmax({**a, "X": a["X"].astype(bfloat16)})


def float32_features(a: Arrays) -> Any:
    """The same of float32 features."""
    return linear.with_fastsoftmax(a)


HALVES_PEERS = {
    "fastsoftmax": float16_features,
    "bfloat16": bfloat16_features,
    "float32": float32_features,
}
