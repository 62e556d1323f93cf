"""partial_fit: near the optimum, unharmed by bad batches."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits

from fastsoftmax import SoftmaxObjective
from fastsoftmax.linear_model import SoftmaxRegression


def make_rows(dtype=np.float32, sort=False):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 10)) * np.geomspace(0.01, 100, 10) + 3
    Z = (X - 3) / np.geomspace(0.01, 100, 10) @ rng.standard_normal((10, 4))
    y = (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)
    order = np.argsort(y, kind="stable") if sort else slice(None)
    return X[order].astype(dtype), y[order]


def loss_of(model, X, y):
    obj = SoftmaxObjective(X.astype(float), np.searchsorted(model.classes_, y), l2=model.l2)
    return obj.value(obj.pack(model.coef_, model.intercept_))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sort", [False, True])
def test_ten_epochs_come_near_the_optimum(dtype, sort):
    X, y = make_rows(dtype, sort)
    best = loss_of(SoftmaxRegression(tol=1e-5).fit(X, y), X, y)
    model = SoftmaxRegression(random_state=0)
    for _ in range(10):
        assert model.partial_fit(X, y, classes=range(4)) is model
    assert model.coef_.dtype == dtype
    assert model.n_iter_ == 10
    assert loss_of(model, X, y) <= 1.01 * best


def test_sparse_batches_and_weights():
    X, y = load_digits(return_X_y=True)
    s = np.random.default_rng(0).integers(1, 3, len(y)).astype(float)
    dense, rows = SoftmaxRegression(random_state=0), SoftmaxRegression(random_state=0)
    for _ in range(5):
        dense.partial_fit(X, y, classes=range(10), sample_weight=s)
        rows.partial_fit(sparse.csr_array(X), y, classes=range(10), sample_weight=s)
    assert dense.score(X, y) > 0.9
    assert rows.score(X, y) > 0.9


def test_class_weights_and_new_settings_are_followed():
    X, y = make_rows()
    plain = SoftmaxRegression(random_state=0).partial_fit(X, y, classes=range(4))
    heavy = SoftmaxRegression(random_state=0, class_weight={0: 50.0})
    heavy.partial_fit(X, y, classes=range(4))
    assert (heavy.predict(X) == 0).sum() > (plain.predict(X) == 0).sum()
    before = plain.coef_.copy()
    plain.set_params(learning_rate=1e-12).partial_fit(X, y)
    np.testing.assert_allclose(plain.coef_, before, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (np.where(X == X[5, 3], np.nan, X), y), "NaN"),
        (lambda X, y: (np.where(X == X[5, 3], np.inf, X), y), "infinity"),
        (lambda X, y: (X[:, :4], y), "features"),
        (lambda X, y: (X, y + 1), "labels among classes, got .4"),
    ],
)
def test_bad_batches_change_nothing(change, message):
    X, y = make_rows()
    model = SoftmaxRegression(random_state=0).partial_fit(X, y, classes=range(4))
    before, intercept = model.coef_.copy(), model.intercept_.copy()
    with pytest.raises(ValueError, match=message):
        model.partial_fit(*change(X, y))
    np.testing.assert_array_equal(model.coef_, before)
    np.testing.assert_array_equal(model.intercept_, intercept)
    again = SoftmaxRegression(random_state=0).partial_fit(X, y, classes=range(4))
    np.testing.assert_array_equal(model.partial_fit(X, y).coef_, again.partial_fit(X, y).coef_)


def test_classes_come_first_and_stay():
    X, y = make_rows()
    with pytest.raises(ValueError, match="classes: expected all labels in the first call"):
        SoftmaxRegression().partial_fit(X, y)
    model = SoftmaxRegression().partial_fit(X, y, classes=range(4))
    with pytest.raises(ValueError, match="classes: expected .* as before"):
        model.partial_fit(X, y, classes=range(5))


def test_probability_targets():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 4))
    P = rng.dirichlet(np.ones(3), 500)
    model = SoftmaxRegression(tol=1e-8).fit(X, P)
    obj = SoftmaxObjective(X, P, l2=1e-4)
    assert np.abs(obj(obj.pack(model.coef_, model.intercept_))[1]).max() <= 1e-7
    assert list(model.classes_) == [0, 1, 2]
    one_hot = SoftmaxRegression(tol=1e-8).fit(X, np.eye(3)[P.argmax(axis=1)])
    labels = SoftmaxRegression(tol=1e-8).fit(X, P.argmax(axis=1))
    np.testing.assert_allclose(one_hot.coef_, labels.coef_, atol=1e-4)
    with pytest.raises(ValueError, match="class_weight: expected None or a dict"):
        SoftmaxRegression(class_weight="balanced").fit(X, P)
