"""Rows on Dask's workers: the in-memory objective's numbers, errors, threads."""

import doctest
from collections import Counter

import numpy as np
import pytest
from problems import make_problem
from scipy import sparse

import fastsoftmax
from fastsoftmax._optimize.coordinates import CentredProblem

pytest.importorskip("distributed", reason='needs pip install "fastsoftmax[dask]"')

import dask.array as da  # noqa: E402
from dask import delayed  # noqa: E402
from dask_cluster import frames  # noqa: E402
from distributed import Client, wait  # noqa: E402

import fastsoftmax.dask  # noqa: E402
from fastsoftmax.dask import (
    SoftmaxObjective,  # noqa: E402
    _sums,  # noqa: E402
)


def spread(cuts, *arrays):
    """Delayed chunks of arrays."""
    edges = [0, *cuts, len(arrays[-1])]
    pairs = zip(edges, edges[1:], strict=False)
    return [delayed(tuple(array[a:b] for array in arrays)) for a, b in pairs]


def everything(obj, W, bias):
    w = obj.pack(W, bias)
    v = np.sin(np.arange(obj.size))
    loss, gradient = obj(w)
    second = obj.hessp(w, v), obj.hess_diag(w), obj.hess(w).ravel()
    return np.concatenate([[loss, obj.value(w)], gradient, *second])


def assert_equal(got, want, tolerance=1e-12):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dense", {}),
        ("dense", {"class_weight": [0.5, 2, 1, 3]}),
        ("dense", {"class_weight": [1, 2, 0, 1], "label_smoothing": 0.1}),
        ("csr", {"class_weight": [1, 2, 0, 1], "label_smoothing": 0.1}),
    ],
    ids=["plain", "class weights", "soft", "csr"],
)
def test_equals_in_memory(client, problem, kind, options):
    X, W, y, bias, s = problem
    X = sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0)) if kind == "csr" else X
    want = everything(
        fastsoftmax.SoftmaxObjective(X, y, l2=0.1, sample_weight=s, **options), W, bias
    )
    chunks = spread([7, 7, 1500, 2600, 4999], X, y, s)
    obj = SoftmaxObjective.from_chunks(chunks, n_features=30, l2=0.1, **options)
    assert len(obj.problem.data.shares.futures) == 2
    assert_equal(everything(obj, W, bias), want)


def test_float32_and_target_rows(client):
    X, W, _, _, _ = make_problem(3000, 7, 5, np.float32)
    Y = np.random.default_rng(1).dirichlet(np.ones(5), 3000)
    options = {"fit_intercept": False, "label_smoothing": 0.2}
    want = everything(fastsoftmax.SoftmaxObjective(X, Y, **options), W, None)
    obj = SoftmaxObjective(
        da.from_array(X, chunks=(800, 7)), da.from_array(Y, chunks=(800, 5)), **options
    )
    assert obj.dtype == np.float32
    assert_equal(everything(obj, W, None), want, 1e-5)


def test_chunks_of_columns_and_other_chunks_of_labels(client, problem):
    X, W, y, bias, s = problem
    obj = SoftmaxObjective(
        da.from_array(X, chunks=(700, 13)),
        da.from_array(y, chunks=900),
        sample_weight=da.from_array(s, chunks=5000),
        n_shares=3,
    )
    want = everything(fastsoftmax.SoftmaxObjective(X, y, sample_weight=s), W, bias)
    assert_equal(everything(obj, W, bias), want)


def test_dataframes_of_unknown_sizes_and_empty_partitions(client, problem):
    X, W, y, bias, s = problem
    frame = frames(X, y, s)
    features = frame[[f"x{i}" for i in range(30)]]
    want = everything(
        fastsoftmax.SoftmaxObjective(X[2000:], y[2000:], sample_weight=s[2000:]), W, bias
    )
    for columns in (
        (features, frame.y, frame.s),
        (features.to_dask_array(), frame.y.to_dask_array(), frame.s.to_dask_array()),
    ):
        obj = SoftmaxObjective(columns[0], columns[1], sample_weight=columns[2])
        assert obj.n_rows == 3000
        assert_equal(everything(obj, W, bias), want)


def test_samples_are_those_of_a_stream(client, problem):
    X, _, y, _, s = problem
    chunks = spread([7, 7, 1500, 2600], X, y, s)
    obj = SoftmaxObjective.from_chunks(chunks, class_weight=[1, 2, 3, 4], label_smoothing=0.1)
    streamed = fastsoftmax.SoftmaxObjective.from_chunks(
        lambda: iter([(X, y, s)]), n_features=30, n_classes=4, class_weight=[1, 2, 3, 4],
        label_smoothing=0.1,
    )  # fmt: skip
    for n_rows in (1, 333, 5000, 9000):
        for got, want in zip(
            obj.problem.data.sample(n_rows), streamed.problem.data.sample(n_rows), strict=True
        ):
            np.testing.assert_array_equal(got, want)
    assert CentredProblem(obj.problem).sample.n_rows == 5000


def test_large_weights_travel_and_are_added_between_workers_with_the_same_bits(
    client, problem, monkeypatch
):
    X, W, y, bias, s = problem
    chunks = spread(range(500, 5000, 500), X.astype(np.float32), y, s)
    obj = SoftmaxObjective.from_chunks(chunks, n_shares=10)
    want = everything(obj, W, bias)
    assert len(obj.problem.data.results) == 10
    monkeypatch.setattr(_sums, "_LARGE", 0)
    np.testing.assert_array_equal(everything(obj, W, bias), want)
    assert len(obj.problem.data.results) == 1


def test_bits_follow_from_partitions_and_shares_alone(client, problem):
    X, W, y, bias, s = problem
    results = set()
    for workers in client.nthreads():
        chunks = client.persist(spread([900, 2000, 4100], X, y, s), workers=workers)
        obj = SoftmaxObjective.from_chunks(chunks, n_shares=3)
        results.add(everything(obj, W, bias).tobytes())
    with Client(n_workers=1, processes=False, threads_per_worker=2, dashboard_address=":0"):
        obj = SoftmaxObjective.from_chunks(spread([900, 2000, 4100], X, y, s), n_shares=3)
        results.add(everything(obj, W, bias).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("where", ["anywhere", "on one worker"])
def test_every_worker_gets_as_many_shares_and_sums_them(client, problem, where):
    X, W, y, bias, _ = problem
    chunks = spread(range(1000, 5000, 1000), X, y)
    if where == "on one worker":
        chunks = client.persist(chunks, workers=min(client.nthreads()))
    obj = SoftmaxObjective.from_chunks(chunks, n_shares=4)
    shares = obj.problem.data.shares.futures
    wait(shares)
    homes = client.who_has(shares)
    assert sorted(Counter(homes.values()).values()) == [2, 2]
    for _ in range(5):
        obj(obj.pack(W, bias))
        assert client.who_has(shares) == homes


X, y = np.ones((40, 3)), np.arange(40) % 2


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([(X, y), (X, y + 1)], ValueError, "partition 1: y: expected labels in .0, 2."),
        ([(X, y), (X, y - 1)], ValueError, "partition 1: y: expected labels in .0, 2."),
        ([(X, y), (X, y / 2)], TypeError, "partition 1: y: expected integer class labels"),
        ([(X, y), (X, y[1:])], ValueError, "partition 1: y: expected 40 rows as X has, got .*39"),
        ([(X, y, y[1:])], ValueError, "partition 0: sample_weight: expected 40 rows"),
        ([(X, y, y - 0.5)], ValueError, "partition 0: sample_weight: expected finite, non-neg"),
        ([(X, y, 0 * y)], ValueError, "at least one row that counts"),
        ([(X, y), (X, y, y)], ValueError, "partition 1: expected weights: False"),
        ([(X, y), (X[:, 1:], y)], ValueError, "partition 1: expected X of n_features = 3 .*got 2"),
        ([(X, y), (X.astype("f4"), y)], ValueError, "partition 1: .* dtype float64 .* float32"),
        ([(X, y), (sparse.csr_array(X), y)], ValueError, "partition 1: expected sparse X: False"),
        ([(X.astype("U"), y)], TypeError, "partition 0: X: expected real numbers"),
        ([(X, y), X], TypeError, "partition 1: expected .X, y. or"),
        ([(X[:0], y[:0])], ValueError, "X: expected at least one row"),
    ],
)
def test_wrong_chunks(client, chunks, error, message):
    with pytest.raises(error, match=message):
        SoftmaxObjective.from_chunks([delayed(chunk) for chunk in chunks], n_classes=2)


def test_wrong_collections_and_options(client):
    dX, dy = da.from_array(X, chunks=10), da.from_array(y, chunks=10)
    for arguments, options, error, message in (
        ((X, dy), {}, TypeError, "X: expected a Dask array"),
        ((dX, y), {}, TypeError, "y: expected a Dask array"),
        ((dX, dy[:30]), {}, ValueError, "y: expected 40 rows as X has, got 30"),
        ((dX, [delayed(y)]), {}, ValueError, "y: expected 4 partitions as X has, got 1"),
        ((dX, dy), {"sample_weight": y}, TypeError, "sample_weight: expected a Dask array"),
        ((dX[:, 0], dy), {}, ValueError, "X: expected a Dask array of rows"),
        ((dX, dy), {"l2": -1}, ValueError, "l2: expected"),
        ((dX, dy), {"class_weight": [1]}, ValueError, "class_weight: expected"),
        ((dX, dy), {"n_classes": 1}, ValueError, "n_classes: expected"),
        ((dX, dy), {"n_shares": 0}, ValueError, "n_shares: expected"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            SoftmaxObjective(*arguments, **options)
    with pytest.raises(TypeError, match="source: expected a list of delayed"):
        SoftmaxObjective.from_chunks(lambda: iter([]))
    with pytest.raises(ValueError, match="X: expected 4 columns"):
        SoftmaxObjective.from_chunks([delayed((X, y))], n_features=4)


@pytest.mark.parametrize("public", fastsoftmax.dask.__all__)
def test_docstrings(public):
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for examples in finder.find(getattr(fastsoftmax.dask, public), public, globs={}):
        runner.run(examples)
    assert runner.summarize().failed == 0
    assert runner.tries >= 10
