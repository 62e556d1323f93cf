"""SoftmaxObjective as a user of SciPy meets it, and the standardised coordinates."""

import numpy as np
import pytest
from problems import make_problem
from scipy.optimize import check_grad, minimize

import fastsoftmax
from fastsoftmax import SoftmaxObjective
from fastsoftmax._optimize.coordinates import CentredProblem


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_agrees_with_the_function(fit_intercept):
    X, W, y, bias, s = make_problem(200, 9, 5, np.float64)
    obj = SoftmaxObjective(X, y, l2=0.2, fit_intercept=fit_intercept, sample_weight=s)
    bias = bias if fit_intercept else None
    loss, gradient = obj(obj.pack(W, bias))
    want, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
        X, W, y, bias=bias, l2=0.2, sample_weight=s
    )
    assert loss == want == obj.value(obj.pack(W, bias))
    weight_gradient, bias_gradient = obj.unpack(gradient)
    np.testing.assert_array_equal(weight_gradient, grad.weight)
    if fit_intercept:
        np.testing.assert_array_equal(bias_gradient, grad.bias)
    else:
        assert bias_gradient is None
    assert gradient.dtype == np.float64
    assert gradient.shape == obj.x0.shape == (obj.size,)


def test_scipy_minimises_it_as_it_is():
    X, _, y, _, _ = make_problem(400, 6, 4, np.float32)
    obj = SoftmaxObjective(X, y, l2=1e-2)
    result = minimize(obj, obj.x0, jac=True, method="L-BFGS-B", options={"gtol": 1e-6})
    assert result.success
    assert np.abs(obj(result.x)[1]).max() < 1e-4
    assert result.fun < obj.value(obj.x0)


def test_gradient_by_finite_differences():
    X, W, y, bias, s = make_problem(50, 4, 3, np.float64)
    obj = SoftmaxObjective(X, y, l2=0.1, sample_weight=s)
    w = obj.pack(W, bias)
    assert check_grad(obj.value, lambda v: obj(v)[1], w) < 1e-6


def test_calls_return_fresh_gradients_and_do_not_see_later_changes():
    X, _, y, _, s = make_problem(60, 4, 3, np.float64)
    obj = SoftmaxObjective(X, y, sample_weight=s)
    loss, first = obj(obj.x0)
    y[:] = 0
    s[:] = 0
    again, second = obj(obj.x0)
    assert again == loss
    assert first is not second
    np.testing.assert_array_equal(first, second)


def test_classes_that_never_occur():
    X, _, _, _, _ = make_problem(30, 4, 3, np.float64)
    obj = SoftmaxObjective(X, np.zeros(30, int), n_classes=5)
    assert obj.n_classes == 5
    assert obj.value(obj.x0) == pytest.approx(np.log(5))
    assert SoftmaxObjective(X, np.zeros(30, int)).n_classes == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda obj: obj(np.zeros(3)), r"w: expected shape \(15,\), got \(3,\)"),
        (lambda obj: obj.pack(np.zeros((3, 4))), r"b: expected shape \(3,\)"),
        (lambda obj: obj.pack(np.zeros((2, 4)), np.zeros(2)), "W: expected 3 rows"),
        (lambda obj: obj.pack(np.zeros((3, 5)), np.zeros(3)), "W: expected shape"),
    ],
)
def test_wrong_vectors(call, message):
    X, _, y, _, _ = make_problem(30, 4, 3, np.float64)
    with pytest.raises(ValueError, match=message):
        call(SoftmaxObjective(X, y, n_classes=3))


def test_numbers_that_are_no_labels_do_not_become_a_billion_classes():
    with pytest.raises(ValueError, match="n_classes: expected it to be given, as 2 rows have"):
        SoftmaxObjective(np.ones((2, 1)), [0, 2**31 - 1])


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_centred_coordinates_are_the_same_function(fit_intercept):
    X, W, y, bias, s = make_problem(300, 7, 4, np.float64)
    X = X * np.logspace(-2, 2, 7) + np.array([0, 5, -3, 0, 100, 0, 1])
    X[:, 3] = 4.0
    obj = SoftmaxObjective(X, y, l2=0.05, fit_intercept=fit_intercept, sample_weight=s)
    centred = CentredProblem(obj.problem)
    v = centred.start(W, bias if fit_intercept else None)
    w = obj.pack(*centred.original(v))
    loss, gradient = centred(v)
    want, want_gradient = obj(w)
    assert loss == pytest.approx(want, rel=1e-11)
    got = centred.original_gradient(gradient)
    np.testing.assert_allclose(got, want_gradient, rtol=1e-8, atol=1e-9)
    if fit_intercept:
        np.testing.assert_allclose(centred.mean, np.average(X, axis=0, weights=s), rtol=1e-12)
    else:
        assert not centred.mean.any()
    # A step in the centred coordinates, by finite differences and by the product.
    u = centred.without_shift(np.random.default_rng(0).standard_normal(obj.size))
    h = 1e-5
    slope = (centred(v + h * u)[1] - centred(v - h * u)[1]) / (2 * h)
    np.testing.assert_allclose(centred.hessp(v, u), slope, rtol=1e-4, atol=1e-6)
