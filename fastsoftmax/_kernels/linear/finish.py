"""The end of an evaluation: slabs are added up, and the gradient is divided and penalised."""

from __future__ import annotations

from typing import NamedTuple

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.tasks import draw_task
from fastsoftmax._kernels.vector.simd import advance, pointer

# Features whose sums are added up by one task: a multiple of every dense panel, and whole cache
# lines of the gradient.
FINISHED_FEATURES = 64


class Finish(NamedTuple):
    """The layout of a slab, and the scalars of the gradient in the compute dtype.

    Of every ``panel`` features a slab holds those of the first class, then of the second, and so
    on. It has two parts: ``classes`` rows of each panel, and behind them ``other_classes``.
    """

    panel: int
    padded_features: int
    classes: int
    other_classes: int
    denominator: float
    twice_l2: float


@helper
def add_slots(slabs, start, stop):
    """Sum columns [start, stop) of all slabs into slab 0 by a fixed binary tree."""
    step = 1
    while step < len(slabs):
        for s in range(0, len(slabs) - step, 2 * step):
            for i in range(start, stop):
                slabs[s, i] += slabs[s + step, i]
        step *= 2


@helper
def finish_part(job, slabs, base, row, classes, features, W, gradient):
    """gradient[k, d] = Σ_slots slab / denominator + 2·l2·W[k, d] of some classes and features.

    The part begins at ``base`` in a slab and holds ``row`` classes of each panel.
    """
    panel = job.panel
    panels = (features[1] - features[0] + panel - 1) // panel
    start = base + features[0] * row
    add_slots(slabs, start, start + panels * panel * row)
    sums = pointer(slabs)
    for k in range(classes[0], classes[1]):
        if panel == 1:  # the loop below, begun anew for each element, took half as long again
            for d in range(features[0], features[1]):
                total = sums[base + d * row + k - classes[0]] / job.denominator
                gradient[k, d] = total + job.twice_l2 * W[k, d]
            continue
        for d in range(features[0], features[1], panel):
            total = advance(sums, base + d * row + (k - classes[0]) * panel)
            for i in range(min(panel, features[1] - d)):
                gradient[k, d + i] = total[i] / job.denominator + job.twice_l2 * W[k, d + i]


@helper
def finish_step(job, slabs, step, W, gradient):
    """`finish_part` of FINISHED_FEATURES features, of both parts of the classes."""
    n_classes, n_features = W.shape
    split = min(job.classes, n_classes)
    features = step * FINISHED_FEATURES, min((step + 1) * FINISHED_FEATURES, n_features)
    second = job.padded_features * job.classes
    finish_part(job, slabs, 0, job.classes, (0, split), features, W, gradient)
    finish_part(job, slabs, second, job.other_classes, (split, n_classes), features, W, gradient)


@helper
def finish_bias(job, slabs, bias_gradient):
    """Add up and divide the gradient of the biases, which lies behind both parts of a slab."""
    start = job.padded_features * (job.classes + job.other_classes)
    add_slots(slabs, start, start + len(bias_gradient))
    for k in range(len(bias_gradient)):
        bias_gradient[k] = slabs[0, start + k] / job.denominator


@kernel
def draw_steps(job, arrays):
    """Draw steps of FINISHED_FEATURES features; the step behind the last is the biases'."""
    slabs, W, gradient, bias_gradient, shared = arrays
    n_steps = (W.shape[1] + FINISHED_FEATURES - 1) // FINISHED_FEATURES
    step = draw_task(shared)
    while step <= n_steps:
        if step < n_steps:
            finish_step(job, slabs, step, W, gradient)
        else:
            finish_bias(job, slabs, bias_gradient)
        step = draw_task(shared)
