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


def hessian(
    X, W, bias, y_rows, s, class_weight, smoothing, l2, fit_intercept, dtype=np.longdouble
) -> np.ndarray:
    """Σ s T (diag p - p pᵀ) ⊗ x xᵀ / total + 2λ, written out, W in C order and then b."""
    X, W, s = X.astype(dtype), W.astype(dtype), s.astype(dtype)
    n_classes = len(W)
    rows = np.column_stack([X, np.ones(len(X), dtype)]) if fit_intercept else X
    Z = X @ W.T + (bias.astype(dtype) if fit_intercept else 0)
    P = np.exp(Z - Z.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    t = class_weight * ((1 - smoothing) * y_rows + smoothing / n_classes)
    scale = s * t.sum(axis=1)
    labels = (y_rows.max(axis=1) == 1).all() and (y_rows.sum(axis=1) == 1).all()
    total = (s * (y_rows @ class_weight)).sum() if labels else s.sum()
    size = rows.shape[1]
    H = np.zeros((n_classes, size, n_classes, size), dtype)
    for x, p, c in zip(rows, P, scale, strict=True):
        H += c * np.einsum("ab,i,j->aibj", np.diag(p) - np.outer(p, p), x, x)
    H /= total
    for k in range(n_classes):
        for d in range(X.shape[1]):
            H[k, d, k, d] += 2 * l2
    order = [(k, d) for k in range(n_classes) for d in range(X.shape[1])]
    order += [(k, X.shape[1]) for k in range(n_classes)] if fit_intercept else []
    k, d = np.array(order).T
    return H[k[:, None], d[:, None], k[None], d[None]]


def assert_close_to_truth(ours, numpy_result, truth, terms, eps):
    """max|ours - truth| <= 2·max|NumPy in the same dtype - truth| + 8·eps·Σ|terms|."""
    ours, numpy_result = np.asarray(ours), np.asarray(numpy_result)
    assert ours.shape == np.shape(truth)
    error = np.abs(ours - truth)
    allowed = 2 * np.abs(numpy_result - truth).max() + 8 * eps * terms
    assert (error <= allowed).all(), f"worst: {(error - allowed).max()} over the bound"
