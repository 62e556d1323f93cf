"""The end of an evaluation: slabs are added up, and the gradient is divided and penalised."""

from typing import NamedTuple

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.tasks import draw_task, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.simd import (
    advance,
    lane_count,
    load,
    load_first,
    pointer,
    splat,
    store,
    store_first,
)

# Features whose sums are added up by one task: a multiple of every dense panel, and whole cache
# lines of the gradient.
FINISHED_FEATURES = 64


class Finish(NamedTuple):
    """The layout of a slab, and the scalars of the gradient in the compute dtype.

    A slab has two parts, for the first ``classes`` and for the ``other_classes``, and behind them
    the sums of the biases. In each part the sums of ``panel`` features lie together: those of its
    first class, then of its second, and so on. Then follow those of the next ``panel`` features.
    """

    panel: int
    padded_features: int
    classes: int  # padding included
    other_classes: int  # 0 where one part has all classes
    denominator: float
    twice_l2: float


@helper
def add_slots(slabs, start, stop):
    """Sum elements [start, stop) of all slabs into slab 0 by a fixed binary tree."""
    step = 1
    while step < len(slabs):
        for s in range(0, len(slabs) - step, 2 * step):
            for i in range(start, stop):
                slabs[s, i] += slabs[s + step, i]
        step *= 2


@helper
def finish_part(job, slabs, base, height, classes, features, W, gradient):
    """gradient[k, d] = Σ_slots slab / denominator + 2·l2·W[k, d] of some classes and features.

    The part of a slab from ``base`` on has ``height`` classes, padding included. Those meant, and
    the features, are ranges (first, stop).
    """
    panel, (first, stop) = job.panel, features
    n_panels = (stop - first + panel - 1) // panel
    start = base + first * height
    add_slots(slabs, start, start + n_panels * panel * height)
    sums = pointer(slabs)
    for k in range(classes[0], classes[1]):
        if panel == 1:  # the loop below, begun anew for each element, took half as long again
            for d in range(first, stop):
                total = sums[base + d * height + k - classes[0]] / job.denominator
                gradient[k, d] = total + job.twice_l2 * W[k, d]
            continue
        for d in range(first, stop, panel):
            total = advance(sums, base + d * height + (k - classes[0]) * panel)
            place = k * W.shape[1] + d
            finish_panel(job, total, min(panel, stop - d), advance(pointer(W), place),
                         advance(pointer(gradient), place))  # fmt: skip


@helper
def finish_panel(job, total, n, W, gradient):
    """Finish n neighbouring features of a class."""
    lanes, zero = lane_count(total), splat(0.0, load(total))
    denominator, twice_l2 = splat(job.denominator, zero), splat(job.twice_l2, zero)
    for i in range(0, n - lanes + 1, lanes):
        penalty = twice_l2 * load(advance(W, i))
        store(advance(gradient, i), load(advance(total, i)) / denominator + penalty)
    i = n // lanes * lanes
    if i < n:
        penalty = twice_l2 * load_first(advance(W, i), n - i, zero)
        value = load_first(advance(total, i), n - i, zero) / denominator + penalty
        store_first(advance(gradient, i), n - i, value)


@helper
def finish_bias(job, slabs, bias_gradient):
    """Add up and divide the gradient of the biases, which lies behind both parts of a slab."""
    start = job.padded_features * (job.classes + job.other_classes)
    add_slots(slabs, start, start + len(bias_gradient))
    for k in range(len(bias_gradient)):
        bias_gradient[k] = slabs[0, start + k] / job.denominator


@helper
def _run_drawn_steps(job, arrays, counters):
    """Draw steps of FINISHED_FEATURES features; one step more finishes the biases."""
    slabs, W, gradient, bias_gradient = arrays
    n_classes, n_features = W.shape
    split, second = min(job.classes, n_classes), job.padded_features * job.classes
    first_classes, last_classes = (0, split), (split, n_classes)
    n_steps = (n_features + FINISHED_FEATURES - 1) // FINISHED_FEATURES
    step = draw_task(counters)
    while step <= n_steps:
        features = step * FINISHED_FEATURES, min((step + 1) * FINISHED_FEATURES, n_features)
        if step < n_steps:
            finish_part(job, slabs, 0, job.classes, first_classes, features, W, gradient)
            finish_part(job, slabs, second, job.other_classes, last_classes, features, W, gradient)
        else:
            finish_bias(job, slabs, bias_gradient)
        step = draw_task(counters)


@kernel
def finish_slabs(job, arrays, crew):
    """Turn the slabs of all slots into the gradients in W and in the biases."""
    share_out(pack_call(_run_drawn_steps, (job, arrays)), crew)
