"""Rows on Dask's workers: the in-memory objective's numbers, errors, threads."""

import doctest
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem
from scipy import sparse

import fastsoftmax
from fastsoftmax._optimize.coordinates import CentredProblem

pytest.importorskip("distributed", reason='needs pip install "fastsoftmax[dask]"')

import dask.array as da  # noqa: E402
import numba  # noqa: E402
from dask import delayed  # noqa: E402
from dask_cluster import frames  # noqa: E402
from distributed import Client, wait  # noqa: E402

import fastsoftmax.dask  # noqa: E402
from fastsoftmax import _dask_shares, _dask_sums  # noqa: E402
from fastsoftmax.dask import SoftmaxObjective  # noqa: E402
from fastsoftmax.dask._direct import call_where_they_are  # noqa: E402


def spread(cuts, *arrays):
    """Delayed chunks of arrays."""
    edges = [0, *cuts, len(arrays[-1])]
    pairs = zip(edges, edges[1:], strict=False)
    return [delayed(tuple(array[a:b] for array in arrays)) for a, b in pairs]


def everything(obj, W, bias):
    w = obj.pack(W, bias)
    v = np.sin(np.arange(obj.size))
    loss, gradient = obj(w)
    return np.concatenate([[loss, obj.value(w)], gradient, obj.hessp(w, v), obj.hess_diag(w)])


def assert_equal(got, want, tolerance=1e-12):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize(
    "options",
    [{}, {"class_weight": [0.5, 2, 1, 3]}, {"class_weight": [1, 2, 0, 1], "label_smoothing": 0.1}],
    ids=["plain", "class weights", "soft"],
)
def test_equals_in_memory(client, problem, kind, options):
    X, W, y, bias, s = problem
    X = sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0)) if kind == "csr" else X
    want = everything(
        fastsoftmax.SoftmaxObjective(X, y, l2=0.1, sample_weight=s, **options), W, bias
    )
    chunks = spread([7, 7, 1500, 2600, 4999], X, y, s)
    obj = SoftmaxObjective.from_chunks(chunks, n_features=30, l2=0.1, **options)
    assert len(obj._data.shares.futures) == 2
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
        for got, want in zip(obj._data.sample(n_rows), streamed._data.sample(n_rows), strict=True):
            np.testing.assert_array_equal(got, want)
    assert CentredProblem(obj.problem).sample.n_rows == 5000


def test_large_weights_travel_and_are_added_between_workers_with_the_same_bits(
    client, problem, monkeypatch
):
    X, W, y, bias, s = problem
    chunks = spread(range(500, 5000, 500), X.astype(np.float32), y, s)
    obj = SoftmaxObjective.from_chunks(chunks, n_shares=10)
    want = everything(obj, W, bias)
    monkeypatch.setattr(_dask_sums, "_LARGE", 0)
    np.testing.assert_array_equal(everything(obj, W, bias), want)
    assert len(obj._data._last) == 1


def test_small_weights_need_no_tasks_but_where_that_fails(client, problem, monkeypatch):
    X, W, y, bias, s = problem
    obj = SoftmaxObjective.from_chunks(spread([900, 2000, 4100], X, y, s), n_shares=3)
    want = everything(obj, W, bias)
    assert obj._data._last is None  # no task was sent
    keys = [future.key for future in obj._data.shares.futures]
    fails = _dask_sums.add  # called like this
    assert call_where_they_are(client, fails, keys, None) is None
    assert call_where_they_are(client, _dask_sums.sum_share, ["nowhere"], None) is None
    monkeypatch.setattr(_dask_sums, "call_where_they_are", lambda *_: None)
    np.testing.assert_array_equal(everything(obj, W, bias), want)
    assert len(obj._data._last) == 3


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


def test_a_sum_goes_where_its_rows_are(client, problem):
    X, W, y, bias, _ = problem
    obj = SoftmaxObjective.from_chunks(spread(range(1000, 5000, 1000), X, y))
    shares = obj._data.shares.futures
    wait(shares)
    homes = client.who_has(shares)
    assert len({workers for workers in homes.values()}) == 2
    for _ in range(5):
        obj(obj.pack(W, bias))
        assert client.who_has(shares) == homes
    sizes = client.run_on_scheduler(
        lambda keys, dask_scheduler: [dask_scheduler.tasks[key].nbytes for key in keys],
        [share.key for share in shares],
    )
    assert sum(sizes) >= X.nbytes


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


@pytest.mark.parametrize("sparse_rows", [False, True])
def test_small_partitions_are_joined_with_the_same_bits(problem, sparse_rows, monkeypatch):
    X, W, y, bias, s = problem
    X = sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0)) if sparse_rows else X
    cuts = [0, 0, 400, 400, 900, 4000, 4100, 5000]
    chunks = [(X[a:b], y[a:b], s[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    results, pieces = set(), []
    for limit in (1, 200_000, 1 << 30):
        monkeypatch.setattr(_dask_shares, "_PIECE_BYTES", limit)
        rows = _dask_shares.load(chunks, 0, True)
        share = _dask_shares.prepare(rows, 0, None, {"n_classes": 4})
        pieces.append(len(share.parts))
        loss, gradient, _ = share.sum(W, bias).finish(1.0, 0.0)
        results.add((loss, gradient.tobytes(), share.total))
    assert len(results) == 1
    assert pieces[0] >= 5
    assert pieces[0] > pieces[1] > pieces[2] == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.data())
def test_ranges_of_partitions(sizes, data):
    n_shares = data.draw(st.integers(1, len(sizes)))
    edges = _dask_shares.cut(sizes, n_shares)
    assert len(edges) == n_shares + 1
    assert edges[0] == 0
    assert edges[-1] == len(sizes)
    assert all(a < b for a, b in zip(edges, edges[1:], strict=False))


def test_equal_partitions_are_shared_out_evenly():
    assert _dask_shares.cut([10] * 12, 4) == [0, 3, 6, 9, 12]
    assert _dask_shares.cut([30, 10, 10, 10, 30, 30], 4) == [0, 1, 4, 5, 6]


def test_kernels_use_the_threads_of_dask(client):
    def counted_threads(_):  # in here it travels by value: workers need not find this module
        """Numba's thread count within a task and after it, with a pause for others to come in."""
        before = numba.get_num_threads()
        with _dask_shares.dask_threads() as n:
            within = numba.get_num_threads()
            time.sleep(0.2)
        return n, within, numba.get_num_threads() == before

    for worker in client.nthreads():  # of one thread each
        result = client.submit(counted_threads, 0, workers=worker, pure=False).result(60)
        assert result == (1, 1, True)
    with Client(n_workers=1, processes=False, threads_per_worker=2, dashboard_address=":0") as two:
        n, within, restored = two.submit(counted_threads, 0).result(60)
        assert (n, restored) == (2, True)
        assert within == min(2, numba.config.NUMBA_NUM_THREADS)
        together = two.gather(two.map(counted_threads, range(1, 5)))
        assert all(restored for _, _, restored in together)
        assert min(n for n, _, _ in together) == 1


def test_no_more_threads_run_than_there_are():
    turns = _dask_shares.Turns()
    running, most, lock = [0], [0], threading.Lock()

    def task(n_tasks):
        for _ in range(50):
            with turns.take(4, n_tasks) as n:
                with lock:
                    running[0] += n
                    most[0] = max(most[0], running[0])
                with lock:
                    running[0] -= n

    tasks = [threading.Thread(target=task, args=(n,)) for n in (1, 1, 2, 3, 4, 9)]
    for thread in tasks:
        thread.start()
    for thread in tasks:
        thread.join()
    assert most[0] <= 4
    with turns.take(4, 1) as n:
        assert n == 4


def test_docstrings():
    result = doctest.testmod(fastsoftmax.dask, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
    assert result.attempted > 10


def complaint(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr


@pytest.mark.parametrize("missing", ["dask", "distributed", "sklearn"])
def test_missing_extra_is_named(missing):
    code = f"import sys; sys.modules['{missing}'] = None; import fastsoftmax.dask"
    assert 'pip install "fastsoftmax[' in complaint(code)


def test_without_a_client():
    code = (
        "from dask import delayed; from fastsoftmax.dask import SoftmaxObjective;"
        "SoftmaxObjective.from_chunks([delayed(([[1.0]], [0]))])"
    )
    assert "client: expected a running dask.distributed.Client" in complaint(code)
