"""Softmax regression as a function of one flat parameter vector."""

import operator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import InMemory
from fastsoftmax._evaluation.docs import fill_in
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.stream import Source, Streamed
from fastsoftmax._evaluation.targets import make_targets
from fastsoftmax.reference import Array

__all__ = ["SoftmaxObjective"]

# Classes up to which their number is taken from the largest label.
_MOST_COUNTED = 1 << 20


def _forwarded(name: str, doc: str) -> Any:
    """Make a property of the objective out of one of its problem."""
    return property(operator.attrgetter(f"problem.{name}"), doc=doc)


_shared = fill_in(
    w="""
        Parameters
        ----------
        w : array_like of shape (size,)
            The flat vector of W and b.""",
    raises="""
        Raises
        ------
        TypeError, ValueError
            Where a vector is not of real numbers, or not of this length.""",
)


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
        A fresh starting point: zeros.
    size : int
        Length of the flat vector: K·D, and K more with an intercept.
    n_classes, n_features, n_rows : int
        K, D and N.
    l2 : float
        λ.
    fit_intercept : bool
        Whether b exists.
    dtype : dtype
        The precision of the arithmetic, float32 or float64.

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

    size: int = _forwarded("size", "Length of the flat vector.")
    n_rows: int = _forwarded("n_rows", "N, the number of rows.")
    n_features: int = _forwarded("n_features", "D, the number of features.")
    n_classes: int = _forwarded("n_classes", "K, the number of classes.")
    l2: float = _forwarded("l2", "The strength λ of the penalty λ‖W‖².")
    fit_intercept: bool = _forwarded("fit_intercept", "Whether b exists.")
    dtype: np.dtype[Any] = _forwarded("dtype", "The precision of the arithmetic.")

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
        rows = validate.as_features(X)
        if n_classes is not None:
            n_classes = validate.as_count(n_classes, "n_classes", at_least=2)
        y = validate.as_targets(y).copy()  # later changes of the caller's must not be seen
        n_classes = n_classes or _count_classes(y, len(rows))
        options: dict[str, Any] = {"class_weight": class_weight, "label_smoothing": label_smoothing}
        if sample_weight is not None:
            options["sample_weight"] = np.array(sample_weight)
        dtype = validate.compute_dtype(rows.dtype, "X")
        targets = make_targets(y, len(rows), n_classes, dtype, **options)
        self.problem = Problem(InMemory(rows, targets), n_classes, l2, fit_intercept)

    @classmethod
    def from_problem(cls, problem: Problem) -> Self:
        """Wrap a problem that has been checked; this is for the package's own use."""
        objective = cls.__new__(cls)
        objective.problem = problem
        return objective

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
    ) -> Self:
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
        n_features = validate.as_count(n_features, "n_features", at_least=1)
        n_classes = validate.as_count(n_classes, "n_classes", at_least=2)
        validate.as_strength(l2)
        options: dict[str, Any] = {"class_weight": class_weight, "label_smoothing": label_smoothing}
        data = Streamed(source, n_features, n_classes=n_classes, **options)
        return cls.from_problem(Problem(data, n_classes, l2, fit_intercept))

    @property
    def x0(self) -> Array:
        """A fresh vector of zeros to start from."""
        return self.problem.zeros()

    def _vector(self, w: npt.ArrayLike, name: str) -> Array:
        return validate.as_vector(w, self.size, name)

    def pack(self, W: npt.ArrayLike, b: npt.ArrayLike | None = None) -> Array:
        """Flat vector of W (K, D) and, with an intercept, b (K,)."""
        W = validate.as_weights(W, self.n_features, np.float64)
        if len(W) != self.n_classes:
            raise ValueError(f"W: expected {self.n_classes} rows, one a class, got {len(W)}")
        if not self.fit_intercept:
            if b is not None:
                raise ValueError("b: expected None for an objective without intercept")
            return W.ravel().copy()
        if b is None:
            raise ValueError(f"b: expected shape ({self.n_classes},), got None")
        b = validate.as_bias(b, self.n_classes, np.float64)
        return np.concatenate([W.ravel(), b])

    def unpack(self, w: npt.ArrayLike) -> tuple[Array, Array | None]:
        """Split a flat vector into views (W, b); b is None without an intercept."""
        return self.problem.split(self._vector(w, "w"))

    @_shared
    def __call__(self, w: npt.ArrayLike) -> tuple[float, Array]:
        """J and its gradient at ``w``, in one pass over X.

        <w>

        Returns
        -------
        loss : float
            J, accumulated in float64.
        gradient : ndarray of float64, shape (size,)
            ∇J, a fresh array in the order of ``w``.

        <raises>
        """
        return self.problem.evaluate(self._vector(w, "w"))

    @_shared
    def value(self, w: npt.ArrayLike) -> float:
        """J at ``w``, in one pass over X that takes less time than the gradient's.

        <w>

        Returns
        -------
        float
            J, with the same bits as `__call__` gives.

        <raises>
        """
        return self.problem.value(self._vector(w, "w"))

    @_shared
    def hessp(self, w: npt.ArrayLike, v: npt.ArrayLike) -> Array:
        r"""Product of the Hessian at ``w`` with the direction ``v``, in one pass over X.

        .. math:: \frac{1}{\sum_i s_i} \sum_i s_i T_i (p_i ∘ (u_i - ⟨p_i, u_i⟩)) x_i^T + 2λV,
                  \quad u_i = V x_i + c

        Here T is the sum of the row's targets, 1 for plain labels, and (V, c) is ``v`` unpacked.

        Parameters
        ----------
        w, v : array_like of shape (size,)
            The flat vectors of the point and of the direction.

        Returns
        -------
        ndarray of float64, shape (size,)
            The product, in the order of ``w``.

        <raises>
        """
        return self.problem.hessian_product(self._vector(w, "w"), self._vector(v, "v"))

    @_shared
    def hess_diag(self, w: npt.ArrayLike) -> Array:
        r"""Diagonal of the Hessian at ``w``, in one pass over X.

        .. math:: H_{kd,kd} = \frac{1}{\sum_i s_i} \sum_i s_i T_i p_{ik} (1 - p_{ik}) x_{id}^2 + 2λ

        <w>

        Returns
        -------
        ndarray of float64, shape (size,)
            The diagonal, in the order of ``w``.

        <raises>
        """
        return self.problem.hessian_diagonal(self._vector(w, "w"))

    @_shared
    def hess(self, w: npt.ArrayLike) -> Array:
        r"""Hessian at ``w``, in one pass over X, for SciPy's ``hess=`` and for inference.

        .. math:: \frac{1}{\sum_i s_i} \sum_i s_i T_i (\mathrm{diag}(p_i) - p_i p_i^T)
                  ⊗ \tilde x_i \tilde x_i^T + 2λI, \quad \tilde x_i = (x_i, 1)

        Here 2λ is for weights alone, and T is the sum of the row's targets, 1 for plain labels. It
        is positive semidefinite; without a penalty adding the same to the weights of all classes
        changes nothing, so that K·D - D, or with an intercept (K - 1)(D + 1), is the largest rank.

        <w>

        Returns
        -------
        ndarray of float64, shape (size, size)
            A symmetric matrix, rows and columns in the order of ``w``; the products of rows are
            formed in the dtype of X. The same bits for any number of threads and any chunks.

        Raises
        ------
        TypeError, ValueError
            Where ``w`` is not of real numbers or not of this length, and where ``size`` exceeds
            8192.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsoftmax import SoftmaxObjective
        >>> obj = SoftmaxObjective(np.eye(2), [0, 1], fit_intercept=False)
        >>> obj.hess(obj.x0)
        array([[ 0.125,  0.   , -0.125,  0.   ],
               [ 0.   ,  0.125,  0.   , -0.125],
               [-0.125,  0.   ,  0.125,  0.   ],
               [ 0.   , -0.125,  0.   ,  0.125]])
        """
        return self.problem.hessian(self._vector(w, "w"))


def _count_classes(y: Array, n_rows: int) -> int:
    """Return the number of classes that the targets show."""
    if y.ndim == 2:
        return int(y.shape[1])
    labels, _ = validate.as_labels(y, n_rows, None)
    largest = int(labels.max())
    if largest >= max(_MOST_COUNTED, n_rows):  # more likely some other numbers: keys, times
        raise ValueError(
            f"n_classes: expected it to be given, as {n_rows} rows have labels up to {largest}"
        )
    return max(largest + 1, 2)
