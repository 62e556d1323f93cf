"""CSR features: the same answers as the dense matrix, and what a corrupt one is told."""

import warnings

import numpy as np
import pytest
from oracle import assert_close_to_truth
from problems import make_problem
from scipy import sparse

import fastsoftmax
from fastsoftmax import SoftmaxObjective, reference
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax.linear_model import SoftmaxRegression

LANES = VECTOR_BYTES // 4
SHAPES = [
    (1, 1, 2),
    (3, 5, 3),
    (130, 17, LANES),
    (200, 33, LANES + 1),
    (500, 300, 20),
    (70, 9, 5 * LANES + 3),
    (64, 400, 1025),
]


def thin(X, density=0.3, seed=0):
    """A copy of X with most entries zero; the first row is empty."""
    X = np.where(np.random.default_rng(seed).random(X.shape) < density, X, 0).astype(X.dtype)
    X[0] = 0
    return X


# The kernels are compiled anew for indices of 64 bits.
LONG = pytest.param(np.int64, marks=pytest.mark.slow)


@pytest.mark.parametrize("index_dtype", [np.int32, LONG])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_dense(shape, dtype, index_dtype):
    X, W, y, bias, s = make_problem(*shape, dtype)
    X = thin(X)
    csr = sparse.csr_array(X)
    csr.indices, csr.indptr = csr.indices.astype(index_dtype), csr.indptr.astype(index_dtype)
    s[0] = 1  # a single row must count
    options = {"bias": bias, "l2": 0.1, "sample_weight": s, "input_grad": True}
    want, grad = reference.linear_cross_entropy_value_and_grad(
        X.astype(float), W.astype(float), y, **options
    )
    rough, rough_grad = reference.linear_cross_entropy_value_and_grad(X, W, y, **options)
    got, ours = fastsoftmax.linear_cross_entropy_value_and_grad(csr, W, y, **options)
    eps = np.finfo(dtype).eps
    assert_close_to_truth(got, rough, want, abs(want) + 1, eps)
    assert_close_to_truth(ours.weight, rough_grad.weight, grad.weight, 1.0, eps)
    assert_close_to_truth(ours.bias, rough_grad.bias, grad.bias, 1.0, eps)
    assert_close_to_truth(ours.input, rough_grad.input, grad.input, 1.0, eps)
    del options["input_grad"]
    assert fastsoftmax.linear_cross_entropy(csr, W, y, **options) == got


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_options(kind):
    X, W, y, bias, s = make_problem(300, 40, 7, np.float64)
    X = thin(X)
    if kind == "probabilities":
        y = np.random.default_rng(1).random((300, 7))
    options = {
        "bias": bias, "sample_weight": s, "class_weight": np.linspace(0.1, 2, 7),
        "label_smoothing": 0.2, "lse_square_scale": 0.01, "reduction": "sum",
    }  # fmt: skip
    if kind == "labels":
        options["ignore_index"] = 3
    want, grad = reference.linear_cross_entropy_value_and_grad(X, W, y, **options)
    got, ours = fastsoftmax.linear_cross_entropy_value_and_grad(
        sparse.csr_matrix(X), W, y, **options
    )
    assert got == pytest.approx(want, rel=1e-13)
    np.testing.assert_allclose(ours.weight, grad.weight, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "dtype",
    [np.int8, *(pytest.param(t, marks=pytest.mark.slow) for t in (np.uint8, np.int64, bool))],
)
def test_integer_values(dtype):
    rng = np.random.default_rng(0)
    X = (rng.integers(0, 3, (90, 30)) * (rng.random((90, 30)) < 0.2)).astype(dtype)
    _, W, y, _, _ = make_problem(90, 30, 4, np.float64)
    _, want = reference.linear_cross_entropy_value_and_grad(X.astype(float), W, y)
    _, got = fastsoftmax.linear_cross_entropy_value_and_grad(sparse.csr_array(X), W, y)
    np.testing.assert_allclose(got.weight, want.weight, rtol=1e-4, atol=1e-6)


def unsorted_with_duplicates(X, seed=0):
    """A CSR matrix equal to X that stores every entry as two, in no order."""
    coo = sparse.coo_array(X)
    order = np.random.default_rng(seed).permutation(2 * coo.nnz)
    rows, columns = np.tile(coo.row, 2)[order], np.tile(coo.col, 2)[order]
    data = np.concatenate([0.25 * coo.data, 0.75 * coo.data])[order]
    by_row = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(X)))])
    return sparse.csr_array((data[by_row], columns[by_row], indptr), shape=X.shape)


def test_unsorted_and_duplicate_entries():
    X, W, y, bias, _ = make_problem(100, 20, 4, np.float64)
    X = thin(X)
    messy = unsorted_with_duplicates(X)
    assert not messy.has_canonical_format
    tidy_objective = SoftmaxObjective(X, y)
    objective = SoftmaxObjective(messy, y)
    w, v = tidy_objective.pack(W, bias), tidy_objective.pack(W[::-1], bias[::-1])
    assert objective(w)[0] == pytest.approx(tidy_objective(w)[0], rel=1e-14)
    np.testing.assert_allclose(objective(w)[1], tidy_objective(w)[1], atol=1e-14)
    np.testing.assert_allclose(objective.hessp(w, v), tidy_objective.hessp(w, v), atol=1e-14)
    np.testing.assert_allclose(objective.hess_diag(w), tidy_objective.hess_diag(w), atol=1e-14)


def corrupt(change):
    X = sparse.csr_array(thin(np.ones((20, 6)), 0.5))
    X.indices, X.indptr, X.data = X.indices.copy(), X.indptr.copy(), X.data.copy()
    change(X)
    return X


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.indices.__setitem__(3, 6),
        lambda X: X.indices.__setitem__(3, -1),
        lambda X: X.indices.__setitem__(3, 2**31 - 1),
        lambda X: X.indptr.__setitem__(4, 1000),
        lambda X: X.indptr.__setitem__(0, -3),
        lambda X: X.indptr.__setitem__(-1, 100_000),
        lambda X: X.indptr.__setitem__(5, X.indptr[6] + 1),
        lambda X: setattr(X, "indices", X.indices[:-4]),
        lambda X: setattr(X, "data", X.data[:-4]),
    ],
)
def test_corrupt_matrices_are_refused(change):
    X = corrupt(change)
    with pytest.raises(ValueError, match=r"^X: .*corrupt"):
        fastsoftmax.linear_cross_entropy_value_and_grad(X, np.zeros((2, 6)), np.zeros(20, int))
    with pytest.raises(ValueError, match=r"^X: .*corrupt"):
        SoftmaxObjective(X, np.zeros(20, int))


def test_indices_changed_after_the_check_are_reported():
    X = corrupt(lambda X: None)
    objective = SoftmaxObjective(X, np.zeros(20, int))
    X.indices[5] = 10**9
    with pytest.raises(ValueError, match="X: column indices out of range"):
        objective(objective.x0)


def test_other_formats_are_refused_by_name():
    X = sparse.csc_array(np.eye(4))
    with pytest.raises(TypeError, match=r"^X: expected a dense array or a CSR matrix.*\.tocsr\(\)"):
        fastsoftmax.linear_cross_entropy(X, np.zeros((2, 4)), np.zeros(4, int))
    with pytest.raises(TypeError, match="^W: expected a dense array"):
        fastsoftmax.linear_cross_entropy(np.eye(4), X, np.zeros(4, int))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_every_thread_count(dtype):
    import numba

    n_rows, n_features, n_classes = 3000, 5000, 6
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.02, n_rows)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    columns = (n_features * rng.random(indptr[-1]) ** 3).astype(np.int32)
    values = rng.standard_normal(indptr[-1]).astype(dtype)
    X = sparse.csr_array((values, columns, indptr), shape=(n_rows, n_features))
    W = rng.standard_normal((n_classes, n_features)).astype(dtype)
    y = rng.integers(0, n_classes, n_rows)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            for _ in range(3):  # the first evaluations of a kind run on one core
                results.append(fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y))
    finally:
        numba.set_num_threads(before)
    for loss, grad in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(grad.weight, results[0][1].weight)


def test_estimator_takes_csr():
    X, _, y, _, s = make_problem(400, 30, 4, np.float64)
    X = thin(X)
    dense = SoftmaxRegression(l2=1e-3, tol=1e-8).fit(X, y, sample_weight=s)
    model = SoftmaxRegression(l2=1e-3, tol=1e-8).fit(sparse.csr_array(X), y, sample_weight=s)
    np.testing.assert_allclose(model.coef_, dense.coef_, atol=1e-6)
    proba = model.predict_proba(sparse.csc_array(X))
    np.testing.assert_allclose(proba, dense.predict_proba(X), atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="NaN"):
            SoftmaxRegression().fit(sparse.csr_array(np.where(X > 1, np.nan, X)), y)


def test_row_pointers_that_wrap_around_are_refused():
    X = sparse.csr_array(np.ones((4, 3)))
    X.indptr = np.array([0, 2**63 - 1, -(2**63), -1, 12])
    with pytest.raises(ValueError, match="X: expected indptr"):
        fastsoftmax.linear_cross_entropy(X, np.zeros((2, 3)), [0, 1, 0, 1])


def test_float16_values_are_computed_in_float32():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((30, 7)).astype(np.float16)
    X, W, y = (
        sparse.csr_array(dense.astype(np.float32)),
        rng.standard_normal((3, 7)),
        np.arange(30) % 3,
    )
    X.data = X.data.astype(np.float16)
    found = fastsoftmax.linear_cross_entropy(X, W, y)
    np.testing.assert_allclose(found, fastsoftmax.linear_cross_entropy(dense, W, y), rtol=1e-5)
