"""What both estimators do around a fit: labels, weights, warnings, callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_array

from fastsoftmax import solvers, training

try:  # scikit-learn 1.9 and later
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this release of scikit-learn has no callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Leave a method as it is."""
        return method


Array = npt.NDArray[Any]

__all__ = [
    "FEATURES",
    "CallbackSupportMixin",
    "Tasks",
    "check_overflow",
    "check_weights",
    "encode_labels",
    "end_of_fit",
    "label_numbers",
    "print_line",
    "with_callbacks",
]

# What fit and predict accept; other sparse formats are converted, as scikit-learn does.
FEATURES = {"dtype": (np.float64, np.float32), "accept_sparse": "csr"}


def check_weights(
    sample_weight: Any, class_weight: Any, X: Any, y: Array, classes: Array, labels: Array | None
) -> Array | None:
    """Return the weights of rows, those of their classes included; None for ones."""
    if sample_weight is None and class_weight is None:
        return None
    weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
    if class_weight is None or labels is None:
        return np.asarray(weight)
    options = {} if sample_weight is None else {"sample_weight": weight}
    try:
        of_class = compute_class_weight(class_weight, classes=classes, y=y, **options)
    except TypeError:  # before scikit-learn 1.7 "balanced" did not know of sample weights
        of_class = compute_class_weight(class_weight, classes=classes, y=y)
    if not (of_class.min() >= 0 and of_class.max() < np.inf):
        raise ValueError(f"class_weight: expected finite, non-negative weights, got {class_weight}")
    return np.asarray(weight * of_class[labels].astype(X.dtype))


def encode_labels(y: Array) -> tuple[Array, Array]:
    """Sorted classes of checked labels y, and the labels' numbers among them.

    Integers that lie close together are counted. scikit-learn's check and `numpy.unique` sort or
    hash all labels three times, which took (200k, 50, 10) as long as three passes over X.
    """
    if y.dtype.kind in "iu":
        low, high = int(y.min()), int(y.max())
        if high - low <= len(y) and high < 1 << 62:
            offsets = y if low == 0 else y.astype(np.int64) - low
            found = np.bincount(offsets.astype(np.int64, copy=False)) > 0
            classes = (np.flatnonzero(found) + low).astype(y.dtype)
            if len(classes) > len(y) / 2:
                check_classification_targets(y)  # warns of so many
            return classes, offsets if found.all() else (np.cumsum(found) - 1)[offsets]
    check_classification_targets(y)
    classes = np.unique(y)
    return classes, label_numbers(y, classes)


def label_numbers(y: Array, classes: Array) -> Array:
    """Return the labels' numbers among the sorted classes; no sorting of N labels."""
    if y.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes))):
        known = len(y) == 0 or (0 <= y.min() and y.max() < len(classes))
        labels = y
    else:
        labels = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
        known = bool((classes[labels] == y).all())
    if not known:
        unknown = np.setdiff1d(y, classes)
        raise ValueError(f"y: expected labels among classes, got {unknown[:5]} as well")
    return labels


def check_overflow(last: training.Iterate, estimator: Any, X: Any) -> None:
    """Refuse a fit that ended in inf or NaN: of X, as scikit-learn does, or of an overflow.

    Features that are not finite show in the first gradient, whatever it is taken at. To look for
    them beforehand took (60k, 784, 10) as long as two passes.
    """
    if last.state.is_finite:
        return
    if isinstance(X, np.ndarray) or issparse(X):
        check_array(X, accept_sparse="csr", estimator=estimator, input_name="X")
    raise ValueError("X: values so large that the loss overflows; scale the features down")


def end_of_fit(last: training.Iterate, tol: float, at_limit: str | None = None) -> None:
    """Warn where a fit ended early; hand an interruption on.

    ``at_limit`` is how scikit-learn's warning begins where ``max_iter`` is reached. For it, a loss
    that cannot be lowered any more is convergence, as it is for SciPy's L-BFGS.
    """
    state = last.state
    if state.message == training.INTERRUPTED:
        warnings.warn(
            f"interrupted after {state.n_iter} iterations with max|gradient| = "
            f"{last.gradient_norm:.1e}; the estimator holds the parameters reached",
            ConvergenceWarning,
            stacklevel=6,
        )
        raise KeyboardInterrupt
    exhausted = state.message == solvers.EXHAUSTED
    if last.gradient_norm <= tol or (exhausted and at_limit is not None):
        return
    advice = (
        "use float64 features, scale them, or increase tol"
        if exhausted
        else "increase max_iter, l2 (lower C) or tol"
    )
    beginning = "" if at_limit is None else at_limit.format(n_iter=state.n_iter) + "\n"
    warnings.warn(
        f"{beginning}stopped after {state.n_iter} iterations with max|gradient| = "
        f"{last.gradient_norm:.1e} > tol = {tol:.1e} ({state.message}); {advice}",
        ConvergenceWarning,
        stacklevel=6,
    )


def print_line(iteration: int, loss: float, norm: float | None) -> None:
    """Print what ``verbose`` asks for."""
    rest = "" if norm is None else f", max|gradient| {norm:.2e}"
    print(f"iteration {iteration}: loss {loss:.8f}{rest}")


class Tasks:
    """Tell scikit-learn's callbacks of a fit and of its iterations; nothing where there are none.

    An iteration begins where the one before ends, so that the last one that began is empty.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any,
        parameters: Callable[[training.Iterate], dict[str, Any]],
    ) -> None:
        self.parameters = parameters
        self.data = {
            "estimator": estimator,
            "X": X,
            "y": y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        self.root: Any = None
        if hasattr(estimator, "_init_callback_context"):
            most = max(getattr(estimator, "max_iter", 1), 1) + 1
            self.root = estimator._init_callback_context(max_subtasks=most)
            self.root.call_on_fit_task_begin(**self.data)
        self.listening = self.root is not None and hasattr(estimator, "_skl_callbacks")
        self.iteration: Any = None

    def _begin(self, attributes: dict[str, Any]) -> None:
        self.iteration = self.root.subcontext(task_name="iteration")
        self.iteration.call_on_fit_task_begin(**self.data, reconstruction_attributes=attributes)

    def start(self, attributes: dict[str, Any]) -> None:
        """Begin the first iteration, with the parameters it starts from."""
        if self.listening:
            self._begin(attributes)

    def __call__(self, iterate: training.Iterate) -> None:
        """End an iteration and begin the next."""
        if self.listening:
            attributes = self.parameters(iterate)
            self.iteration.call_on_fit_task_end(**self.data, reconstruction_attributes=attributes)
            self._begin(attributes)

    def close(self) -> None:
        """End the iteration that never ran, and the fit."""
        if self.iteration is not None:
            self.iteration.call_on_fit_task_end(estimator=self.data["estimator"])
        if self.root is not None:
            self.root.call_on_fit_task_end(**self.data, reconstruction_attributes={})
