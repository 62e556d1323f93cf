"""The same bits for every thread count, and no crash where threads are delicate."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from problems import make_problem

import fastsoftmax
from fastsoftmax._evaluation import threads
from fastsoftmax._evaluation.plans import make_plan, make_sparse_plan, n_workers

SHAPES = [(5000, 20, 3), (3001, 100, 10), (2000, 33, 130), (700, 257, 400)]


def evaluate(problem):
    X, W, y, bias, s = problem
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
        X, W, y, bias=bias, sample_weight=s, l2=0.01
    )
    return loss, grad.weight.tobytes(), grad.bias.tobytes()


@pytest.fixture
def thread_count():
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core: nothing runs parallel")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_thread_two_threads_and_serial_agree_bitwise(shape, dtype, thread_count, monkeypatch):
    problem = make_problem(*shape, dtype)
    calls = []
    run_on_threads = threads.run_on_threads

    def spy(kernel, job, arrays, n_workers):
        calls.append((kernel.__name__, n_workers))
        return run_on_threads(kernel, job, arrays, n_workers)

    monkeypatch.setattr(threads, "run_on_threads", spy)
    monkeypatch.setattr("fastsoftmax._evaluation.pace.prefers_serial", lambda problem, work: False)
    results = []
    for count in (1, 2):
        thread_count(count)
        results.append(evaluate(problem))
        assert (("draw_slots", 2) in calls) == (count == 2)
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_repeated_evaluations_agree_bitwise(dtype):
    problem = make_problem(20_000, 40, 12, dtype)
    assert len({evaluate(problem) for _ in range(5)}) == 1


def test_converted_chunks_and_plain_rows_agree_bitwise(monkeypatch):
    # The converting path hands the rows over in chunks: same blocks, same slots, same bits.
    monkeypatch.setattr("fastsoftmax._evaluation.accumulators._CONVERTED_BYTES", 1 << 16)
    X, *rest = make_problem(9001, 24, 5, np.float32)
    wide = np.zeros((len(X), 48), np.float32)
    wide[:, ::2] = X
    assert evaluate((wide[:, ::2], *rest)) == evaluate((X, *rest))


def test_many_threads_at_once():
    problems = [make_problem(4000, 30, 7, np.float32, seed=seed) for seed in range(4)]
    want = [evaluate(problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(evaluate, problems * 16))
    assert got == want * 16


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


THREADS_AT_ONCE = """
    import threading, numpy as np, fastsoftmax as fs
    X = np.random.default_rng(0).standard_normal((20000, 30)).astype(np.float32)
    y = np.zeros(20000, int)
    losses = set()
    def work():
        for _ in range(30):
            losses.add(fs.linear_cross_entropy_value_and_grad(X, np.ones((7, 30)), y)[0])
    threads = [threading.Thread(target=work) for _ in range(6)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert len(losses) == 1, losses
    import numba; print(numba.threading_layer())
"""


def test_workqueue_layer_survives_many_threads():
    result = run_python(THREADS_AT_ONCE, NUMBA_THREADING_LAYER="workqueue")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "workqueue"


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
def test_a_forked_child_computes():
    result = run_python(
        """
        import os, numpy as np, fastsoftmax as fs
        X = np.random.default_rng(0).standard_normal((20000, 30)).astype(np.float32)
        def evaluate():
            return fs.linear_cross_entropy_value_and_grad(X, np.ones((7, 30)), np.zeros(20000, int))
        want = evaluate()
        pid = os.fork()
        if pid == 0:
            got = evaluate()
            same = got[0] == want[0] and (got[1].weight == want[1].weight).all()
            os._exit(0 if same else 3)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        """
    )
    assert result.returncode == 0, result.stderr


def test_python_threads_run_while_a_kernel_works():
    # nogil: with the lock held, the counting thread would not move during an evaluation.
    X, W, y, _, _ = make_problem(300_000, 60, 300, np.float32)
    fastsoftmax.linear_cross_entropy(X[:100], W, y[:100])
    counted, done = [], threading.Event()

    def count():
        while not done.wait(0.001):
            counted.append(None)

    thread = threading.Thread(target=count)
    thread.start()
    before = len(counted)
    fastsoftmax.linear_cross_entropy(X, W, y)
    during = len(counted) - before
    done.set()
    thread.join()
    assert during > 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "plan_of", [make_plan, lambda D, K, dtype: make_sparse_plan(D, K, K, dtype)]
)
def test_memory_is_bounded_for_any_number_of_threads(plan_of, dtype):
    size = np.dtype(dtype).itemsize
    for n_features in (1, 20, 256, 2000, 50_000, 300_000):
        for n_classes in (2, 10, 1000, 10_000, 30_000, 100_000):
            if n_features * n_classes > 1e8:
                continue
            plan = plan_of(n_features, n_classes, dtype)
            workers = n_workers(plan, 10**9, 10**12, dtype, 128)
            used = size * (plan.n_slots * plan.slab_size + workers * plan.scratch_size)
            assert used <= max(256 << 20, 16 * size * n_features * n_classes)
