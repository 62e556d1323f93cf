"""Every option of the loss, reduced to what kernels know: row scale, target row, T and α."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

import numpy as np

from fastsoftmax._evaluation import validate
from fastsoftmax.reference import Array

Reduction = Literal["mean", "sum", "none"]


@dataclasses.dataclass(frozen=True)
class Targets:
    """Targets of N rows; see `fastsoftmax._kernels.softmax.losses` for the mathematics.

    A soft row is t = peak ∘ y + floor, with y the one-hot label or the row of probabilities; a
    plain one is t = e_label, its class weight being part of ``weight``. A mean divides by the sum
    of ``counted`` (of ones, if None).
    """

    labels: Array | None
    probabilities: Array | None
    weight: Array | None
    counted: Array | None
    soft: bool
    peak: Array
    floor: Array
    alpha: float
    total: float

    def scales(self, n_rows: int) -> Array:
        """Row scales s (N,)."""
        return np.ones(n_rows, self.peak.dtype) if self.weight is None else self.weight

    def rows(self, n_classes: int) -> Array:
        """Target rows t (N, K)."""
        if self.labels is None:
            return self.peak * self.probabilities + self.floor
        one_hot = np.eye(n_classes, dtype=self.peak.dtype)[self.labels]
        return self.peak * one_hot + self.floor if self.soft else one_hot

    def curvatures(self, n_rows: int) -> Self:
        """Return targets without labels, whose weights are the row scales s·T of the Hessian."""
        weight = self.weight
        if self.soft:
            if self.probabilities is None:
                sums = self.peak[self.labels]
            else:  # with BLAS, a row's bits would depend on how many rows come with it
                sums = np.einsum("ik,k->i", self.probabilities, self.peak)
            weight = self.scales(n_rows) * (sums + self.floor.sum())
        return dataclasses.replace(self, labels=None, probabilities=None, weight=weight, soft=False)

    def take(self, rows: slice, n_rows: int) -> Self:
        """Copy the targets of some of ``n_rows`` rows; ``total`` is Σs of a mean over them."""
        part = self._with_rows(lambda name: np.ascontiguousarray(getattr(self, name)[rows]))
        total = float(len(range(*rows.indices(n_rows))))
        if part.weight is not None:
            total = float(part.weight.sum(dtype=np.float64))
        return dataclasses.replace(part, total=total)

    def part(self, start: int, stop: int) -> Self:
        """View the rows from ``start`` to before ``stop``."""
        return self._with_rows(lambda name: getattr(self, name)[start:stop])

    def joined(self, others: list[Self]) -> Self:
        """Copy these rows and, after them, those of ``others``, of the same kind."""
        parts = [self, *others]
        return self._with_rows(lambda name: np.concatenate([getattr(p, name) for p in parts]))

    def _with_rows(self, rows_of: Callable[[str], Array]) -> Self:
        """Replace each array that has a row for each row by ``rows_of`` its name."""
        present = [name for name in _ROWS if getattr(self, name) is not None]
        changes: dict[str, Any] = {name: rows_of(name) for name in present}
        return dataclasses.replace(self, **changes)


def no_targets(dtype: np.dtype[Any]) -> Targets:
    """Return what stands for targets where rows are only scored."""
    nothing = np.empty(0, dtype)
    return Targets(None, None, None, None, False, nothing, nothing, 0.0, 1.0)


_ROWS = ("labels", "probabilities", "weight", "counted")
_SUM_BLOCK = 1 << 13


@np.errstate(over="ignore")  # `checked_total` says what is wrong
def sum_of_rows(parts: Iterable[Array]) -> float:
    """Sum numbers, one a row, in float64: the same bits whatever parts they come in."""
    total, carry = 0.0, np.empty(0)
    for numbers in parts:
        if len(carry):
            numbers = np.concatenate([carry, numbers], dtype=np.float64)
        whole = len(numbers) // _SUM_BLOCK * _SUM_BLOCK
        for block in numbers[:whole].reshape(-1, _SUM_BLOCK):
            total += float(block.astype(np.float64).sum())
        carry = numbers[whole:].astype(np.float64)
    return total + float(carry.sum())


def make_targets(
    y: Any,
    n_rows: int,
    n_classes: int,
    dtype: np.dtype[Any],
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    lse_square_scale: float = 0.0,
    reduction: str = "mean",
) -> Targets:
    """Check the options and reduce them; the reduction has been checked.

    ``total`` is what sums are divided by: Σ s_i·class_weight[y_i] over the rows not ignored for a
    mean over labels, Σ s_i for one over probabilities (both as in torch), otherwise 1, or the power
    of two by which huge weights have been scaled down.
    """
    smoothing = validate.as_strength(label_smoothing, "label_smoothing")
    if smoothing > 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing!r}")
    alpha = validate.as_strength(lse_square_scale, "lse_square_scale")
    weight = validate.as_sample_weight(sample_weight, n_rows, dtype)
    classes = validate.as_class_weight(class_weight, n_classes, dtype)
    y = validate.as_targets(y)
    if y.ndim == 2:
        if ignore_index is not None:
            raise ValueError("ignore_index: expected None with probability targets")
        labels, probabilities = None, validate.as_probabilities(y, n_rows, n_classes, dtype)
    else:
        probabilities = None
        labels, ignored = validate.as_labels(y, n_rows, n_classes, ignore_index)
        if ignored is not None:
            kept = (~ignored).astype(dtype)
            weight = kept if weight is None else weight * kept
    counted = weight
    soft = probabilities is not None or smoothing > 0 or (alpha > 0 and class_weight is not None)
    if labels is not None and class_weight is not None:
        counted = classes[labels] if weight is None else weight * classes[labels]
        if not soft:
            weight = counted
    peak, floor = classes, np.zeros(n_classes, dtype)
    if smoothing:
        peak, floor = (
            classes * dtype.type(1 - smoothing),
            classes * dtype.type(smoothing / n_classes),
        )
    total = 1.0
    if weight is not None and counted is not None and (total := _safe_factor(weight)) != 1:
        same, factor = counted is weight, dtype.type(total)
        weight = weight * factor
        counted = weight if same else counted * factor
    if reduction == "mean":
        total = checked_total(n_rows if counted is None else sum_of_rows([counted]))
    return Targets(
        labels=labels,
        probabilities=probabilities,
        weight=weight,
        counted=counted,
        soft=soft,
        peak=peak,
        floor=floor,
        alpha=alpha,
        total=total,
    )


def _safe_factor(weight: Array) -> float:
    """Return 1, or for weights with which products overflow the power of two that makes them small.

    A power of two changes no digit, and sums are divided by it in the end.
    """
    largest = float(weight.max(initial=0))
    if largest <= np.sqrt(np.finfo(weight.dtype).max):
        return 1.0
    return float(np.ldexp(1.0, -int(np.frexp(largest)[1])))


def chunk_targets(y: Any, X: Any, sample_weight: Any, **options: Any) -> Targets:
    """Make the targets of one chunk of many, over which sums are added up."""
    dtype = validate.compute_dtype(X.dtype, "X")
    options["reduction"] = "sum"  # a chunk may well have no weight
    targets = make_targets(y, len(X), dtype=dtype, sample_weight=sample_weight, **options)
    if targets.total != 1:  # they have been scaled, and those of other chunks have not
        raise ValueError("sample_weight: expected smaller weights; only their ratios count")
    return targets


def check_options(**options: Any) -> None:
    """Refuse wrong options before any rows are read."""
    make_targets(np.empty(0, np.int64), 0, dtype=np.dtype("f4"), reduction="sum", **options)


def checked_total(total: float) -> float:
    """Refuse a mean over nothing, or over more than a float can hold."""
    if total == np.inf:
        raise ValueError("sample_weight: expected weights whose sum is finite")
    if total == 0:
        raise ValueError(
            "reduction: a mean needs at least one row that counts, but every row is ignored or "
            "has a sample_weight or class_weight of zero"
        )
    return total


def penalty(W: Array, l2: float) -> float:
    """l2·‖W‖², in float64; nothing where ``l2`` is 0, whatever W is."""
    return l2 * float(np.einsum("kd,kd->", W, W, dtype=np.float64)) if l2 else 0.0
