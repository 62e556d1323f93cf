"""Softmax regression as a function of one flat parameter vector."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import _validate
from fastsoftmax._backend import DIAGONAL, LOSS, PRODUCT
from fastsoftmax._data import Data, InMemory, Source, Streamed
from fastsoftmax._options import make_targets

Array = npt.NDArray[Any]

__all__ = ["SoftmaxObjective"]

# Classes up to which their number is taken from the largest label.
_MOST_COUNTED = 1 << 20


class SoftmaxObjective:
    r"""The L2-penalised cross-entropy of a linear softmax model, prepared once.

    .. math:: J(W, b) = \frac{1}{\sum_i s_i} \sum_i s_i (\mathrm{lse}(z_i) - z_{i,y_i}) + λ‖W‖²,
              \quad z_i = W x_i + b

    Calling it gives J and its gradient in one pass over X, as ``scipy.optimize.minimize`` wants
    with ``jac=True``. The flat vector is W (K, D) in C order, then b (K,). Arithmetic runs in the
    dtype of X; the vector, the loss and the returned gradient are float64. Calls may come from
    several threads; each returns a fresh gradient.

    Parameters
    ----------
    X : array_like or SciPy CSR matrix, shape (n_samples, n_features)
        Features, kept by reference and never modified; see
        `fastsoftmax.linear_cross_entropy_value_and_grad` for dtypes and layouts.
    y : array_like of int, shape (n_samples,), or of float, shape (n_samples, n_classes)
        Labels in [0, n_classes), or rows of non-negative targets; copied.
    n_classes : int, optional
        K; by default the largest label plus one, at least 2. Needed for labels of a million and
        more that exceed the number of rows.
    l2 : float, default 0.0
        λ ≥ 0, of λ‖W‖²; b is not penalised.
    fit_intercept : bool, default True
        Whether b exists.
    sample_weight : array_like of shape (n_samples,), optional
        Finite weights s ≥ 0, not all zero, copied.
    class_weight : array_like of shape (n_classes,), optional
        Finite weights ≥ 0 of the target's classes.
    label_smoothing : float, default 0.0
        ε in [0, 1]: targets become (1 - ε)·y + ε/K.

    Attributes
    ----------
    x0 : ndarray of float64, shape (size,)
        A starting point: zeros.
    size, n_classes, n_features : int
        Lengths.

    Raises
    ------
    TypeError, ValueError
        As `fastsoftmax.linear_cross_entropy_value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.optimize import minimize
    >>> from fastsoftmax import SoftmaxObjective
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3))
    >>> y = (X @ [1.0, -2.0, 0.0] > 0).astype(int)
    >>> obj = SoftmaxObjective(X, y, l2=1e-3)
    >>> result = minimize(obj, obj.x0, jac=True, method="L-BFGS-B")
    >>> W, b = obj.unpack(result.x)
    >>> W.shape, b.shape, bool(np.mean((X @ W.T + b).argmax(axis=1) == y) > 0.98)
    ((2, 3), (2,), True)
    """

    def __init__(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        n_classes: int | None = None,
        l2: float = 0.0,
        fit_intercept: bool = True,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: npt.ArrayLike | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        rows = _validate.as_features(X)
        dtype = _validate.compute_dtype(rows.dtype, "X")
        if n_classes is not None:
            n_classes = _validate.as_count(n_classes, "n_classes", at_least=2)
        y = _validate.as_targets(y).copy()  # later changes of the caller's must not be seen
        n_classes = n_classes or _count_classes(y, len(rows))
        targets = make_targets(
            y,
            len(rows),
            n_classes,
            dtype,
            sample_weight=None if sample_weight is None else np.array(sample_weight),
            class_weight=class_weight,
            label_smoothing=label_smoothing,
        )
        self._prepare(InMemory(rows, targets), n_classes, l2, fit_intercept)

    @classmethod
    def from_chunks(
        cls,
        source: Source,
        *,
        n_features: int,
        n_classes: int,
        l2: float = 0.0,
        fit_intercept: bool = True,
        class_weight: npt.ArrayLike | None = None,
        label_smoothing: float = 0.0,
    ) -> SoftmaxObjective:
        """Objective of rows that do not fit in memory: every evaluation streams them once.

        The result has the same bits as with all rows in one array, however they are cut up (not
        under NUMBA_DISABLE_JIT=1, whose products are NumPy's). While the kernel works on a chunk,
        the next one is made in a thread.

        Parameters
        ----------
        source : callable
            ``source()`` gives a fresh iterator over chunks ``(X, y)`` or ``(X, y, sample_weight)``,
            the same rows in the same order each time. All chunks have one dtype of X, and are all
            dense or all CSR. A chunk is read until the next but one is asked for, so two buffers
            in turn are enough. The first pass is made here.
        n_features, n_classes : int
            D and K.
        l2, fit_intercept, class_weight, label_smoothing
            As in `SoftmaxObjective`.

        Returns
        -------
        SoftmaxObjective
            With all its methods, each of them one pass over the chunks.

        Raises
        ------
        TypeError, ValueError
            As `SoftmaxObjective`, naming the chunk, counted from 0; here, or in a later pass whose
            rows are not those of the first. Errors of ``source`` come through as they are.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsoftmax import SoftmaxObjective
        >>> X, y = np.random.default_rng(0).standard_normal((1000, 3)), np.arange(1000) % 4
        >>> def source():
        ...     for start in range(0, 1000, 300):
        ...         yield X[start : start + 300], y[start : start + 300]
        >>> streamed = SoftmaxObjective.from_chunks(source, n_features=3, n_classes=4)
        >>> whole = SoftmaxObjective(X, y)
        >>> streamed.value(np.ones(16)) == whole.value(np.ones(16))
        True
        """
        n_features = _validate.as_count(n_features, "n_features", at_least=1)
        n_classes = _validate.as_count(n_classes, "n_classes", at_least=2)
        _validate.as_strength(l2)
        targets_of = functools.partial(
            make_targets,
            n_classes=n_classes,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            reduction="sum",  # a chunk may well have no weight
        )
        # Wrong options are found before the first pass.
        targets_of(np.empty(0, np.int64), 0, dtype=np.dtype(np.float32))
        objective = cls.__new__(cls)
        data = Streamed(source, n_features, targets_of)
        objective._prepare(data, n_classes, l2, fit_intercept)
        return objective

    def _prepare(self, data: Data, n_classes: int, l2: float, fit_intercept: bool) -> None:
        self._data = data
        self.dtype = _validate.compute_dtype(data.dtype, "X")
        self.n_features, self.n_classes = data.n_features, n_classes
        self.l2, self.fit_intercept = _validate.as_strength(l2), bool(fit_intercept)

    def split(
        self, fraction: float, rng: np.random.Generator
    ) -> tuple[SoftmaxObjective, SoftmaxObjective]:
        """Return objectives of disjoint random rows, the second of ``fraction`` of them."""
        n_rows = self._data.n_rows
        order = rng.permutation(n_rows)
        n_second = max(round(fraction * n_rows), 1)
        if n_second >= n_rows:
            raise ValueError(f"X: {n_rows} rows are too few to split")
        first, second = copy.copy(self), copy.copy(self)
        first._data = self._data.take(np.sort(order[n_second:]))
        second._data = self._data.take(np.sort(order[:n_second]))
        return first, second

    @property
    def n_rows(self) -> int:
        """N."""
        return self._data.n_rows

    @property
    def size(self) -> int:
        """Length of the flat parameter vector."""
        return int(self.n_classes * (self.n_features + self.fit_intercept))

    @property
    def x0(self) -> Array:
        """A fresh vector of zeros to start from."""
        return np.zeros(self.size)

    def pack(self, W: npt.ArrayLike, b: npt.ArrayLike | None = None) -> Array:
        """Flat vector of W (K, D) and, with an intercept, b (K,)."""
        W = _validate.as_weights(W, self.n_features, np.float64)
        if len(W) != self.n_classes:
            raise ValueError(f"W: expected {self.n_classes} rows, one a class, got {len(W)}")
        if not self.fit_intercept:
            if b is not None:
                raise ValueError("b: expected None for an objective without intercept")
            return W.ravel().copy()
        if b is None:
            raise ValueError(f"b: expected shape ({self.n_classes},), got None")
        b = _validate.as_bias(b, self.n_classes, np.float64)
        return np.concatenate([W.ravel(), b])

    def unpack(self, w: npt.ArrayLike) -> tuple[Array, Array | None]:
        """Split a flat vector into views (W, b); b is None without an intercept."""
        return self._split(w, "w")

    def _split(self, w: npt.ArrayLike, name: str) -> tuple[Array, Array | None]:
        w = _validate.as_vector(w, self.size, name)
        n = self.n_classes * self.n_features
        W = w[:n].reshape(self.n_classes, self.n_features)
        return W, w[n:] if self.fit_intercept else None

    def __call__(self, w: npt.ArrayLike) -> tuple[float, Array]:
        """J and its gradient (size,) at ``w``."""
        loss, weight, bias = self._evaluate(*self.unpack(w))
        return loss, flatten(weight, bias)

    def value(self, w: npt.ArrayLike) -> float:
        """J at ``w``, without the gradient's cost."""
        sums = self._sum(*self._cast(w), mode=LOSS)
        return float(sums.loss(self._data.total, self.l2))

    def hessp(self, w: npt.ArrayLike, v: npt.ArrayLike) -> Array:
        r"""Product of the Hessian at ``w`` with the direction ``v``, in one pass over X.

        .. math:: \frac{1}{\sum_i s_i} \sum_i s_i T_i (p_i ∘ (u_i - ⟨p_i, u_i⟩)) x_i^T + 2λV,
                  \quad u_i = V x_i + c

        where T is the sum of the row's targets, 1 for plain labels. Float64, of shape (size,).
        """
        return self._product(w, v)

    def _product(self, w: npt.ArrayLike, v: npt.ArrayLike, center: Array | None = None) -> Array:
        """`hessp`, with ``center`` subtracted from the rows of X."""
        W, b = self._cast(w)
        V, c = self._cast(v, "v")
        sums = self._sum(W, b, center, mode=PRODUCT, direction=(V, c))
        _, weight, bias = self._finish(sums)
        product = flatten(weight, bias)
        product[: V.size] += 2 * self.l2 * np.asarray(v, np.float64)[: V.size]
        return product

    def hess_diag(self, w: npt.ArrayLike) -> Array:
        r"""Diagonal of the Hessian at ``w``, in one pass over X; float64, of shape (size,).

        .. math:: H_{kd,kd} = \frac{1}{\sum_i s_i} \sum_i s_i T_i p_{ik} (1 - p_{ik}) x_{id}^2 + 2λ
        """
        return self._diagonal(w)

    def _diagonal(self, w: npt.ArrayLike, center: Array | None = None) -> Array:
        """`hess_diag`, with ``center`` subtracted from the rows of X."""
        W, b = self._cast(w)
        _, weight, bias = self._finish(self._sum(W, b, center, mode=DIAGONAL))
        return flatten(weight, bias) + 2 * self.l2 * self.penalised

    @property
    def penalised(self) -> Array:
        """1 for the weights of a flat vector, 0 for its intercepts."""
        ones = np.ones(self.size)
        ones[self.n_classes * self.n_features :] = 0
        return ones

    def _cast(self, w: npt.ArrayLike, name: str = "w") -> tuple[Array, Array | None]:
        """W and b of a flat vector in the compute dtype, as kernels want them."""
        return self._as_computed(*self._split(w, name))

    def _as_computed(self, W: Array, b: Array | None) -> tuple[Array, Array | None]:
        W = _validate.as_weights(W, self.n_features, self.dtype)
        return W, _validate.as_bias(b, self.n_classes, self.dtype)

    def _sum(self, W: Array, b: Array | None, center: Array | None = None, **how: Any) -> Any:
        return self._data.sum(W, b, center, **how)

    def _finish(self, sums: Any, l2: float = 0.0) -> tuple[float, Array, Array | None]:
        loss, weight, bias = sums.finish(self._data.total, l2)
        return loss, weight, bias if self.fit_intercept else None

    def _evaluate(
        self, W: Array, b: Array | None, center: Array | None = None
    ) -> tuple[float, Array, Array | None]:
        """J, ∇_W and ∇_b in the compute dtype, with ``center`` subtracted from the rows of X."""
        return self._finish(self._sum(*self._as_computed(W, b), center), self.l2)


def _count_classes(y: Array, n_rows: int) -> int:
    if y.ndim == 2:
        return int(y.shape[1])
    labels, _ = _validate.as_labels(y, n_rows, None)
    largest = int(labels.max())
    if largest >= max(_MOST_COUNTED, n_rows):  # more likely some other numbers: keys, times
        raise ValueError(
            f"n_classes: expected it to be given, as {n_rows} rows have labels up to {largest}"
        )
    return max(largest + 1, 2)


def flatten(weight: Array, bias: Array | None) -> Array:
    parts = [weight.ravel()] if bias is None else [weight.ravel(), bias]
    return np.concatenate(parts, dtype=np.float64)
