"""SoftmaxRegression on Dask's workers: the usual model, lazily predicted, whoever dies."""

import os
import signal

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax import linear_model

pytest.importorskip("distributed", reason='needs pip install "fastsoftmax[dask]"')

import dask  # noqa: E402
import dask.array as da  # noqa: E402
from dask import delayed  # noqa: E402
from dask_cluster import frames, start  # noqa: E402
from distributed import Client  # noqa: E402
from problems import make_problem  # noqa: E402

from fastsoftmax.dask import SoftmaxRegression  # noqa: E402
from fastsoftmax.dask._regression import prepare_shares  # noqa: E402
from fastsoftmax.linear_model._fitting import fit_prepared  # noqa: E402


@pytest.fixture(scope="module")
def client():
    """Of two workers in this process, which start at once; processes are tested below."""
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


TEXT = np.array(["ash", "beech", "fir", "oak"])
X, y = np.ones((40, 3)), np.arange(40) % 2


@pytest.mark.parametrize("class_weight", [None, "balanced", {"ash": 2.0, "fir": 0.5}])
def test_estimator_equals_in_memory(client, problem, class_weight):
    X, _, y, _, s = problem
    X = X + 5
    labels = TEXT[y]
    dX, dy = da.from_array(X, chunks=(900, 30)), da.from_array(labels, chunks=900)
    options = {"tol": 1e-10, "l2": 1e-2, "class_weight": class_weight}
    model = SoftmaxRegression(**options).fit(dX, dy, da.from_array(s, chunks=900))
    want = linear_model.SoftmaxRegression(**options).fit(X, labels, s)
    np.testing.assert_allclose(model.coef_, want.coef_, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, want.intercept_, atol=1e-8)
    assert list(model.classes_) == list(TEXT)
    assert (model.n_features_in_, model.loss_) == (30, pytest.approx(want.loss_, abs=1e-12))
    assert model.score(dX, dy) == pytest.approx(want.score(X, labels))
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        lazy, direct = getattr(model, method)(dX), getattr(model, method)(X)
        assert isinstance(lazy, da.Array)
        assert (lazy.dtype, lazy.shape) == (direct.dtype, direct.shape)
        assert lazy.compute().dtype == direct.dtype
        if method == "predict":
            np.testing.assert_array_equal(lazy.compute(), direct)
        else:
            np.testing.assert_allclose(lazy.compute(), direct, rtol=1e-10)


def test_estimator_of_dataframes(client, problem):
    X, _, y, _, s = problem
    frame = frames(X, TEXT[y % 2], s)
    features = frame[[f"x{i}" for i in range(30)]]
    model = SoftmaxRegression(tol=1e-9).fit(features, frame.y, frame.s)
    want = linear_model.SoftmaxRegression(tol=1e-9).fit(X[2000:], TEXT[y % 2][2000:], s[2000:])
    np.testing.assert_allclose(model.coef_, want.coef_, atol=1e-7)
    np.testing.assert_array_equal(model.predict(features).compute(), want.predict(X[2000:]))
    assert model.decision_function(features).compute().shape == (3000,)
    assert model.score(features, frame.y, frame.s) == pytest.approx(
        want.score(X[2000:], TEXT[y % 2][2000:], s[2000:])
    )


def test_estimator_of_csr_chunks_and_target_rows(client, problem):
    X, _, y, _, _ = problem
    Y = np.eye(4)[y] * 0.9 + 0.025
    matrix = sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0))
    parts = [slice(0, 2000), slice(2000, 5000)]
    model = SoftmaxRegression(tol=1e-9).fit(
        [delayed(matrix[part]) for part in parts], [delayed(Y[part]) for part in parts]
    )
    want = linear_model.SoftmaxRegression(tol=1e-9).fit(matrix, Y)
    np.testing.assert_allclose(model.coef_, want.coef_, atol=1e-7)


def test_estimator_of_numpy_is_the_usual_one(problem):
    X, _, y, _, _ = problem
    model, want = SoftmaxRegression().fit(X, y), linear_model.SoftmaxRegression().fit(X, y)
    np.testing.assert_array_equal(model.coef_, want.coef_)
    np.testing.assert_array_equal(model.predict_proba(X), want.predict_proba(X))
    assert model.score(X, y) == want.score(X, y)


def test_estimator_errors(client):
    dX, dy = da.from_array(X, chunks=10), da.from_array(y, chunks=10)
    for arguments, options, message in (
        ((dX, dy * 0), {}, "y: expected at least two classes"),
        ((da.where(dX > 0, np.nan, 0), dy), {}, "partition .: X: expected finite numbers"),
        ((dX, dy + 0.5), {}, "partition .: Unknown label type: continuous"),
        ((dX, dy), {"solver": "adam"}, "solver: expected one of"),
        ((dX, dy), {"l2": -1}, "l2: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftmaxRegression(**options).fit(*arguments)
    with pytest.raises(ValueError, match="X: expected 3 columns"):
        SoftmaxRegression().fit(dX, dy).predict(dX[:, 1:])
    with pytest.raises(TypeError, match="X: expected rows in memory for partial_fit"):
        SoftmaxRegression().partial_fit(dX, dy, classes=[0, 1])


@pytest.mark.slow
def test_lost_workers_change_nothing(problem):
    X, _, y, _, s = problem

    def kill(iterate):
        """First one worker, then all that are left."""
        if iterate.state.n_iter in (2, 4):
            pids = sorted(client.run(os.getpid).values())
            for pid in pids[: 1 if iterate.state.n_iter == 2 else None]:
                os.kill(pid, signal.SIGKILL)
                lost.append(pid)

    lost = []
    # By default a local cluster gives a worker up that is not back in 15 s, as on a busy machine.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "5m"})
    with patience, start() as cluster, Client(cluster) as client:
        arrays = [da.from_array(a, chunks=(900, *a.shape[1:])) for a in (X, y, s)]
        want = SoftmaxRegression(tol=1e-9).fit(*arrays)
        model = SoftmaxRegression(tol=1e-9)
        fit_prepared(model, prepare_shares(model, *arrays), progress=kill)
    assert len(set(lost)) == len(lost) >= 2
    assert model.n_iter_ == want.n_iter_ > 4
    assert model.coef_.tobytes() == want.coef_.tobytes()
    assert model.intercept_.tobytes() == want.intercept_.tobytes()


def test_frames_of_one_label_column_and_columns_in_another_order(client):
    X, _, y, _, s = make_problem(5000, 4, 3, np.float64)
    frame = frames(X, y, s)
    names = [f"x{i}" for i in range(4)]
    model = SoftmaxRegression().fit(frame[names], frame[["y"]])
    assert list(model.feature_names_in_) == names
    whole = linear_model.SoftmaxRegression().fit(X[2000:], y[2000:])
    np.testing.assert_allclose(model.coef_, whole.coef_, atol=1e-4)
    with pytest.raises(ValueError, match="X: expected the columns .* in this order"):
        model.predict(frame[names[::-1]])


def test_a_share_of_empty_partitions(client):
    X, _, y, _, s = make_problem(5000, 4, 3, np.float64)
    frame = frames(X, y, s)
    frame = frame[frame.row >= 4500]  # the first half of the partitions is empty
    model = SoftmaxRegression().fit(frame[[f"x{i}" for i in range(4)]], frame["y"])
    whole = linear_model.SoftmaxRegression().fit(X[4500:], y[4500:])
    np.testing.assert_allclose(model.coef_, whole.coef_, atol=1e-4)
