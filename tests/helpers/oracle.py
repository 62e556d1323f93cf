"""The truth, in wider arithmetic than what is judged; imports nothing of the package."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}


class Truth(NamedTuple):
    """Loss and gradients with, for each, the sum of the magnitudes of the terms summed."""

    loss: np.floating
    weight: np.ndarray
    bias: np.ndarray
    loss_terms: np.floating
    weight_terms: np.ndarray
    bias_terms: np.ndarray


def linear_cross_entropy(X, W, y, bias=None, l2=0.0, sample_weight=None, dtype=None) -> Truth:
    """Loss and gradients by the formulas of the course note, row by row softmax."""
    dtype = dtype or WIDER[X.dtype]
    X, W = X.astype(dtype), W.astype(dtype)
    b = np.zeros(len(W), dtype) if bias is None else bias.astype(dtype)
    s = np.ones(len(X), dtype) if sample_weight is None else sample_weight.astype(dtype)
    Z = X @ W.T + b
    m = Z.max(axis=1, keepdims=True)
    E = np.exp(Z - m)
    sums = E.sum(axis=1)
    rows = np.arange(len(X))
    gaps = m[:, 0] - Z[rows, y]
    R = E / sums[:, None]
    R[rows, y] -= 1
    R *= s[:, None]
    total = s.sum()
    return Truth(
        loss=(s * (np.log(sums) + gaps)).sum() / total + l2 * (W**2).sum(),
        weight=R.T @ X / total + 2 * l2 * W,
        bias=R.sum(axis=0) / total,
        loss_terms=(s * (np.log(sums) + gaps + np.abs(Z[rows, y]))).sum() / total
        + l2 * (W**2).sum(),
        weight_terms=np.abs(R).T @ np.abs(X) / total + np.abs(2 * l2 * W),
        bias_terms=np.abs(R).sum(axis=0) / total,
    )


def assert_close_to_truth(ours, numpy_result, truth, terms, eps):
    """max|ours - truth| <= 2·max|NumPy in the same dtype - truth| + 8·eps·Σ|terms|."""
    ours, numpy_result = np.asarray(ours), np.asarray(numpy_result)
    assert ours.shape == np.shape(truth)
    error = np.abs(ours - truth)
    allowed = 2 * np.abs(numpy_result - truth).max() + 8 * eps * terms
    assert (error <= allowed).all(), f"worst: {(error - allowed).max()} over the bound"
