"""Labels made numbers, and the weights of rows and classes."""

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from fastsoftmax._evaluation.validate import compute_dtype
from fastsoftmax.reference import Array


def check_weights(
    sample_weight: Any, class_weight: Any, X: Any, y: Array, classes: Array, labels: Array | None
) -> Array | None:
    """Return the weights of rows, those of their classes included; None for ones."""
    if sample_weight is None and class_weight is None:
        return None
    dtype = compute_dtype(X.dtype, "X")
    weight = _check_sample_weight(sample_weight, X, dtype=dtype, ensure_non_negative=True)
    if class_weight is None or labels is None:
        return np.asarray(weight)
    options = {} if sample_weight is None else {"sample_weight": weight}
    try:
        of_class = compute_class_weight(class_weight, classes=classes, y=y, **options)
    except TypeError:  # before scikit-learn 1.7 "balanced" did not know of sample weights
        of_class = compute_class_weight(class_weight, classes=classes, y=y)
    if not (of_class.min() >= 0 and of_class.max() < np.inf):
        raise ValueError(f"class_weight: expected finite, non-negative weights, got {class_weight}")
    return np.asarray(weight * of_class[labels].astype(dtype))


def shrunk(weight: Array | None) -> tuple[Array | None, float]:
    """Return weights that `make_targets` takes as they are, and what they were divided by.

    It scales huge weights itself, and a mean does not tell; but the strength of C is relative to
    their sum. A power of two changes no digit.
    """
    if weight is None or weight.max(initial=0) <= 2.0 ** (np.finfo(weight.dtype).maxexp // 4):
        return weight, 1.0
    factor = float(np.ldexp(1.0, int(np.frexp(weight.max())[1]) - 1))
    return weight / weight.dtype.type(factor), factor


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
