"""Print a digest of the bits of some 460 results, a line for each call.

A refactoring must not change them on one machine and one set of versions:

    python bench/bits.py > before.txt        # on the old code
    python bench/bits.py | diff before.txt - # on the new code

``--only fit`` runs the calls whose names contain "fit".
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp

import fastsoftmax as fs
from fastsoftmax import linear_model

Call = tuple[str, Callable[[], Any]]


def digest(value: Any) -> str:
    """Hash of the bytes of arrays and numbers, whatever holds them."""
    found = hashlib.sha256()
    for part in _parts(value):
        array = np.ascontiguousarray(part)
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _parts(part)
    elif value is not None:
        yield value


def problem(N: int, D: int, K: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Rows, weights, labels and the like, of some scale."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D)).astype(dtype)
    W = (rng.standard_normal((K, D)) / np.sqrt(D)).astype(dtype)
    return rng, X, W, rng.integers(0, K, N), rng.standard_normal(K).astype(dtype)


SHAPES = ((7, 1, 2), (100, 3, 3), (1037, 20, 3), (2051, 100, 10), (513, 70, 130), (300, 257, 1000))


def linear_calls() -> Iterator[Call]:
    for (N, D, K), dtype in itertools.product(SHAPES, (np.float32, np.float64)):
        rng, X, W, y, b = problem(N, D, K, dtype)
        s, c = rng.random(N).astype(dtype), rng.random(K).astype(dtype)
        Y = rng.random((N, K)).astype(dtype)
        name = f"linear {N} {D} {K} {np.dtype(dtype)}"
        options: dict[str, dict[str, Any]] = {
            "plain": {},
            "bias": {"bias": b, "l2": 0.1},
            "input": {"bias": b, "input_grad": True},
            "weights": {"sample_weight": s, "class_weight": c, "label_smoothing": 0.1},
            "alpha": {"lse_square_scale": 0.01, "ignore_index": 1, "reduction": "sum"},
        }
        for key, kw in options.items():
            yield (
                f"{name} {key}",
                lambda X=X, W=W, y=y, kw=kw: fs.linear_cross_entropy_value_and_grad(X, W, y, **kw),
            )
        yield (
            f"{name} soft",
            lambda X=X, W=W, Y=Y: fs.linear_cross_entropy_value_and_grad(X, W, Y, input_grad=True),
        )
        yield f"{name} value", lambda X=X, W=W, y=y: fs.linear_cross_entropy(X, W, y)
        yield (
            f"{name} rows",
            lambda X=X, W=W, y=y: fs.linear_cross_entropy(X, W, y, reduction="none"),
        )
        yield (
            f"{name} F",
            lambda X=X, W=W, y=y: fs.linear_cross_entropy_value_and_grad(
                np.asfortranarray(X), W, y
            ),
        )
    _, X, W, y, _ = problem(2051, 100, 10)
    for kind in ("f2", "i1", "u1", "i4", ">f4", "?"):
        Z = (X * 3).astype(kind)
        yield f"linear of {kind}", lambda Z=Z: fs.linear_cross_entropy_value_and_grad(Z, W, y)


def sparse_calls() -> Iterator[Call]:
    for (N, D, K), dtype in itertools.product(
        ((500, 300, 2), (1500, 3000, 20), (700, 400, 50)), ("f4", "f8")
    ):
        _, _, W, y, b = problem(N, D, K, dtype)
        X = sp.random(N, D, 0.02, format="csr", dtype=np.dtype(dtype), random_state=1)
        name = f"sparse {N} {D} {K} {dtype}"
        yield (
            name,
            lambda X=X, W=W, y=y, b=b: fs.linear_cross_entropy_value_and_grad(
                X, W, y, bias=b, l2=0.1
            ),
        )
        yield (
            f"{name} input",
            lambda X=X, W=W, y=y: fs.linear_cross_entropy_value_and_grad(X, W, y, input_grad=True),
        )
        yield from objective_calls(name, X, y, K)


def objective_calls(name: str, X: Any, y: Any, K: int) -> Iterator[Call]:
    obj = fs.SoftmaxObjective(X, y, n_classes=K, l2=0.01, label_smoothing=0.05)
    rng = np.random.default_rng(5)
    w, v = rng.standard_normal(obj.size) * 0.1, rng.standard_normal(obj.size)
    yield f"{name} objective", lambda: obj(w)
    yield f"{name} objective value", lambda: obj.value(w)
    yield f"{name} hessp", lambda: obj.hessp(w, v)
    yield f"{name} diagonal", lambda: obj.hess_diag(w)
    if obj.size <= 2000:
        yield f"{name} Hessian", lambda: obj.hess(w)


def stream_calls() -> Iterator[Call]:
    for dtype in ("f4", "f8"):
        _, X, _, y, _ = problem(5003, 50, 10, dtype)
        yield from objective_calls(f"dense {dtype}", X, y, 10)
        for rows in (37, 1000, 4096):

            def source(X: Any = X, y: Any = y, rows: int = rows) -> Iterator[Any]:
                for start in range(0, len(X), rows):
                    yield X[start : start + rows], y[start : start + rows]

            obj = fs.SoftmaxObjective.from_chunks(source, n_features=50, n_classes=10, l2=0.01)
            w = np.random.default_rng(5).standard_normal(obj.size) * 0.1
            yield f"stream {dtype} {rows}", lambda obj=obj, w=w: (obj(w), obj.hessp(w, w))


def row_calls() -> Iterator[Call]:
    functions = {"softmax": fs.softmax, "log_softmax": fs.log_softmax, "logsumexp": fs.logsumexp}
    shapes = ((10,), (32, 10), (64, 1000), (5000, 7), (3000, 33), (40, 5000), (3, 200_000))
    for shape, dtype in itertools.product(shapes, ("f4", "f8", "f2", "i4")):
        x = (np.random.default_rng(2).standard_normal(shape) * 4).astype(dtype)
        for (name, function), axis in itertools.product(functions.items(), (-1, 0, None)):
            yield f"{name} {shape} {dtype} {axis}", lambda f=function, x=x, a=axis: f(x, axis=a)
    x = np.random.default_rng(3).standard_normal((30, 40, 50)).astype("f4")
    for (name, function), axis in itertools.product(functions.items(), (1, (0, 2), (1, 2))):
        yield f"{name} cube {axis}", lambda f=function, a=axis: f(x, axis=a)
    for (N, K), dtype in itertools.product(((32, 10), (64, 1000), (20_000, 10), (900, 300)), "fd"):
        rng = np.random.default_rng(4)
        Z, y, Y = rng.standard_normal((N, K)).astype(dtype), rng.integers(0, K, N), rng.random(K)
        kw = {"class_weight": Y, "label_smoothing": 0.1, "lse_square_scale": 0.01}
        name = f"cross_entropy {N} {K} {dtype}"
        yield name, lambda Z=Z, y=y: fs.cross_entropy_value_and_grad(Z, y)
        yield f"{name} soft", lambda Z=Z, y=y, kw=kw: fs.cross_entropy_value_and_grad(Z, y, **kw)
        yield f"{name} rows", lambda Z=Z, y=y: fs.cross_entropy(Z, y, reduction="none")


def fit_calls() -> Iterator[Call]:
    from sklearn.datasets import load_digits

    def attributes(model: Any) -> Any:
        return model.coef_, model.intercept_, model.n_iter_

    digits = load_digits(return_X_y=True)
    rng, X, W, _, _ = problem(3000, 30, 5)
    y = (X @ W.T * 3 + rng.gumbel(size=(3000, 5))).argmax(axis=1)
    text = sp.random(1500, 4000, 0.01, format="csr", dtype=np.float32, random_state=1)
    labels = rng.integers(0, 4, 1500)
    for name, data in {"digits": digits, "noisy": (X, y), "text": (text, labels)}.items():
        for solver in ("auto", "lbfgs", "newton-cg"):
            yield (
                f"fit {name} {solver}",
                lambda data=data, solver=solver: attributes(
                    linear_model.SoftmaxRegression(1e-3, solver=solver).fit(*data)
                ),
            )
        yield (
            f"fit {name} logistic",
            lambda data=data: attributes(linear_model.LogisticRegression(max_iter=1000).fit(*data)),
        )
        yield (
            f"fit {name} partial",
            lambda data=data: attributes(
                linear_model.SoftmaxRegression(random_state=0).partial_fit(
                    *data, classes=np.unique(data[1])
                )
            ),
        )
    two = linear_model.LogisticRegression(max_iter=1000)
    yield "fit two", lambda: attributes(two.fit(X, y > 1))
    yield "fit two proba", lambda: two.predict_proba(X)


def main() -> None:
    """Print the digests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the names of the calls to run")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    parts = (linear_calls, sparse_calls, stream_calls, row_calls, fit_calls)
    for name, call in itertools.chain.from_iterable(part() for part in parts):
        if only not in name:
            continue
        found = set()
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            found |= {digest(call()) for _ in range(3)}  # serial and parallel, see _pace
        print(name, *sorted(found), flush=True)


if __name__ == "__main__":
    main()
