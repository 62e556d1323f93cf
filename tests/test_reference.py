"""The NumPy specification itself, against mpmath and finite differences."""

import inspect

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem

import fastsoftmax
from fastsoftmax import reference


def exact_loss(X, W, y, bias, l2, sample_weight):
    """J in 50 digits, straight from its definition."""
    with mpmath.workdps(50):
        total, loss = mpmath.mpf(0), mpmath.mpf(0)
        for x, label, s in zip(X.tolist(), y.tolist(), sample_weight.tolist(), strict=True):
            z = [
                mpmath.fdot(row, x) + mpmath.mpf(b)
                for row, b in zip(W.tolist(), bias.tolist(), strict=True)
            ]
            probability = mpmath.exp(z[label]) / mpmath.fsum(mpmath.exp(v) for v in z)
            loss -= s * mpmath.log(probability)
            total += s
        penalty = mpmath.fsum(mpmath.mpf(v) ** 2 for v in W.ravel().tolist())
        return loss / total + l2 * penalty


@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 2), (12, 4, 7)])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_loss_against_mpmath(shape, scale):
    X, W, y, bias, s = make_problem(*shape, np.float64, scale=scale)
    s[:] = np.arange(1, len(s) + 1)
    want = exact_loss(X, W, y, bias, 0.125, s)
    got = reference.linear_cross_entropy(X, W, y, bias=bias, l2=0.125, sample_weight=s)
    assert float(abs(got - want)) <= 1e-13 * max(1.0, float(want))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(2, 6), st.integers(0, 10_000))
def test_gradient_is_the_derivative(n_rows, n_features, n_classes, seed):
    X, W, y, bias, s = make_problem(n_rows, n_features, n_classes, np.float64, seed=seed)
    s[0] = 1
    options = {"l2": 0.3, "sample_weight": s}
    _, grad = reference.linear_cross_entropy_value_and_grad(X, W, y, bias=bias, **options)
    rng = np.random.default_rng(seed)
    dW, db = rng.standard_normal(W.shape), rng.standard_normal(bias.shape)
    step = 1e-5
    ahead, behind = (
        reference.linear_cross_entropy(X, W + h * dW, y, bias=bias + h * db, **options)
        for h in (step, -step)
    )
    slope = (grad.weight * dW).sum() + (grad.bias * db).sum()
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_softmax_and_log_softmax():
    x = np.array([[0.0, np.log(3.0)], [-1000.0, 0.0]])
    np.testing.assert_allclose(reference.softmax(x, axis=1), [[0.25, 0.75], [0.0, 1.0]])
    np.testing.assert_allclose(
        reference.log_softmax(x, axis=1), [[np.log(0.25), np.log(0.75)], [-1000.0, 0.0]]
    )


def test_row_functions_have_the_signatures_of_the_fast_ones():
    for name in ("softmax", "log_softmax", "logsumexp"):
        ours = inspect.signature(getattr(reference, name)).parameters
        fast = inspect.signature(getattr(fastsoftmax, name)).parameters
        assert [(p.name, p.kind, p.default) for p in ours.values()] == [
            (p.name, p.kind, p.default) for p in fast.values()
        ]


def test_row_functions_along_any_axis():
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    out = np.empty_like(x)
    assert reference.softmax(x, axis=1, out=out) is out
    np.testing.assert_allclose(out.sum(axis=1), np.ones((3, 5)))
    np.testing.assert_allclose(np.log(out), reference.log_softmax(x, axis=1))
    lse = reference.logsumexp(x, axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(np.exp(x - lse).sum(axis=(0, 2)), np.ones(4))
