"""float16 and bfloat16 features: the bits that a float32 copy of them gives, and no copy made."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Peer

import fastsoftmax as fs
from fastsoftmax import reference
from fastsoftmax._evaluation.accumulators import _readable
from fastsoftmax.linear_model import LogisticRegression, SoftmaxRegression
from fastsoftmax.sources import open_source

bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
HALVES = pytest.mark.parametrize("half", [np.dtype(np.float16), bfloat16], ids=str)
LAYOUTS = {
    "plain": lambda X: X,
    "by columns": np.asfortranarray,
    "every other row": lambda X: X[::2],
    "reversed": lambda X: X[:, ::-1],
    "unaligned": lambda X: np.frombuffer(b"_" + X.tobytes(), X.dtype, offset=1).reshape(X.shape),
    "byte-swapped": lambda X: X if X.dtype == bfloat16 else X.astype(X.dtype.newbyteorder()),
}


def problem(n_rows, n_features, n_classes, half):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)).astype(half)
    W = rng.standard_normal((n_classes, n_features)).astype(np.float32) / np.sqrt(n_features)
    return X, W, rng.integers(0, n_classes, n_rows)


@HALVES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 2), (70, 7, 3), (1000, 100, 10), (300, 33, 70)], ids=str)
def test_functions(half, layout, shape):
    X, W, y = problem(*shape, half)
    X = LAYOUTS[layout](X)
    y, bias = y[: len(X)], np.linspace(-1, 1, len(W), dtype=np.float32)
    exact = np.ascontiguousarray(X, np.float32)
    loss, grad = fs.linear_cross_entropy_value_and_grad(X, W, y, bias=bias, input_grad=True)
    want_loss, want = fs.linear_cross_entropy_value_and_grad(
        exact, W, y, bias=bias, input_grad=True
    )
    assert loss == want_loss
    for got, expected in zip(grad, want, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)
    for function in (fs.linear_softmax, fs.linear_log_softmax, fs.linear_argmax):
        np.testing.assert_array_equal(function(X, W, bias=bias), function(exact, W, bias=bias))
    np.testing.assert_allclose(
        reference.linear_cross_entropy(X, W, y, bias=bias), loss, rtol=1e-5, atol=1e-6
    )


@HALVES
def test_every_half_is_converted_exactly(half):
    X = np.zeros((65536, 1), half)
    X[:, 0] = np.arange(65536, dtype=np.uint16).view(half)
    _check_conversion(X)


def _check_conversion(X):
    W = np.array([[0.0], [1.0]], np.float32)
    with np.errstate(all="ignore"):
        got, want = (fs.linear_log_softmax(x, W) for x in (X, X.astype(np.float32)))
    np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_without_the_instruction(tmp_path):
    """On AVX2 without F16C, where LLVM would call a function for every value."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\n"
        "import test_half_precision as t\n"
        "from fastsoftmax._kernels.vector import emit\n"
        "assert not emit.HAS_HALVES and emit.VECTOR_BYTES == 32\n"
        "for half in (np.dtype(np.float16), t.bfloat16):\n"
        "    t.test_every_half_is_converted_exactly(half)\n"
    )
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}
    command = [sys.executable, "-c", script, __file__.rpartition("/")[0]]
    result = subprocess.run(
        command, env={**os.environ, **features}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@HALVES
def test_features_are_not_copied(half):
    X, W, y = problem(20_000, 300, 5, half)
    assert _readable(X, np.dtype(np.float32))
    fs.linear_cross_entropy_value_and_grad(X, W, y)
    tracemalloc.start()
    fs.linear_cross_entropy_value_and_grad(X, W, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes // 2


@HALVES
def test_objective_and_its_stream(half):
    X, W, y = problem(3000, 20, 4, half)
    obj = fs.SoftmaxObjective(X, y, l2=1e-3, sample_weight=np.linspace(0.5, 2, len(X)))
    exact = fs.SoftmaxObjective(
        X.astype(np.float32), y, l2=1e-3, sample_weight=np.linspace(0.5, 2, len(X))
    )
    w = obj.pack(W, np.zeros(4))
    np.testing.assert_array_equal(obj(w)[1], exact(w)[1])
    np.testing.assert_array_equal(obj.hessp(w, w), exact.hessp(w, w))
    np.testing.assert_array_equal(obj.hess_diag(w), exact.hess_diag(w))

    def source():
        for start in range(0, len(X), 700):
            rows = slice(start, start + 700)
            yield X[rows], y[rows], np.linspace(0.5, 2, len(X))[rows]

    streamed = fs.SoftmaxObjective.from_chunks(source, n_features=20, n_classes=4, l2=1e-3)
    np.testing.assert_array_equal(streamed(w)[1], exact(w)[1])


@HALVES
@pytest.mark.parametrize("estimator", [LogisticRegression, SoftmaxRegression])
def test_estimators(half, estimator):
    X, W, y = problem(2000, 30, 4, half)
    y = (X.astype(np.float32) @ W.T).argmax(axis=1)
    model = estimator(tol=1e-6, class_weight={0: 2.0, 1: 1.0, 2: 1.0, 3: 1.0}).fit(X, y)
    exact = estimator(tol=1e-6, class_weight={0: 2.0, 1: 1.0, 2: 1.0, 3: 1.0})
    exact.fit(X.astype(np.float32), y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_array_equal(model.coef_, exact.coef_)
    proba = model.predict_proba(X)
    assert proba.dtype == np.float32
    np.testing.assert_array_equal(proba, exact.predict_proba(X.astype(np.float32)))
    X[3, 4] = np.inf
    with pytest.raises(ValueError, match="X contains infinity"):
        estimator().fit(X, y)


@HALVES
def test_partial_fit_goes_on_in_float32(half):
    X, W, y = problem(2000, 30, 4, half)
    y = (X.astype(np.float32) @ W.T).argmax(axis=1)
    model = SoftmaxRegression(random_state=0)
    for part in np.array_split(np.arange(2000), 4):
        model.partial_fit(X[part], y[part], classes=np.arange(4))
    exact = SoftmaxRegression(random_state=0)
    for part in np.array_split(np.arange(2000), 4):
        exact.partial_fit(X[part].astype(np.float32), y[part], classes=np.arange(4))
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, exact.coef_, rtol=1e-4, atol=1e-5)


def test_a_large_fit_of_halves_agrees_with_the_peer():
    X, W, y = problem(3000, 10, 3, np.float16)
    peer = Peer(tol=1e-8, max_iter=1000).fit(X.astype(np.float64), y)
    ours = LogisticRegression(tol=1e-6).fit(X, y)
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-4)


def test_tensors():
    torch = pytest.importorskip("torch")
    X, W, y = problem(500, 20, 3, np.float16)
    for dtype in (torch.float16, torch.bfloat16):
        tensor = torch.from_numpy(X).to(dtype)
        want = fs.linear_cross_entropy(tensor.float().numpy(), W, y)
        assert fs.linear_cross_entropy(tensor, W, y) == want
        assert fs.linear_cross_entropy(tensor, torch.from_numpy(W).bfloat16(), y) > 0
        model = SoftmaxRegression().fit(tensor, y)
        np.testing.assert_array_equal(model.predict(tensor), model.predict(tensor.float().numpy()))


@HALVES
def test_targets_weights_and_logits_of_halves(half):
    X, W, y = problem(200, 6, 3, half)
    Y = np.full((200, 3), 0.25).astype(half)
    want = fs.linear_cross_entropy(X, W, Y.astype(np.float32), sample_weight=np.full(200, 0.5))
    weight = np.full(200, 0.5).astype(half)
    assert fs.linear_cross_entropy(X, W.astype(np.float32), Y, sample_weight=weight) == want
    loss, grad = fs.cross_entropy_value_and_grad(X[:, :3], y)
    assert grad.dtype == np.float32
    assert loss == fs.cross_entropy(X[:, :3].astype(np.float32), y)


def test_sources(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    X, _, y = problem(1000, 8, 3, np.float16)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    table = {f"f{i}": pa.array(X[:, i]) for i in range(8)} | {"label": y}
    pq.write_table(pa.table(table), tmp_path / "columns.parquet")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 8)
    pq.write_table(pa.table({"embedding": lists, "label": y}), tmp_path / "lists.parquet")
    want = SoftmaxRegression().fit(X.astype(np.float32), y).coef_
    for name in ("X.npy", "columns.parquet", "lists.parquet"):
        options = {} if name == "X.npy" else {"target": "label"}
        source = open_source(tmp_path / name, **options)
        assert next(iter(source()))[0].dtype == np.float16
        np.testing.assert_allclose(SoftmaxRegression().fit(source).coef_, want, atol=1e-6)
