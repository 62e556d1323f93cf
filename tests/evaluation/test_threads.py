"""The same bits for every thread count, and no crash where threads are delicate."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from problems import make_problem

import fastsoftmax
from fastsoftmax._evaluation import threads
from fastsoftmax._evaluation.plans import make_plan, make_sparse_plan, n_workers
from fastsoftmax._kernels.linear.shared import run_shared_forward
from fastsoftmax._kernels.linear.slots import run_slots

# Of the last ones threads share few runs of blocks, see `linear/shared.py`: three of the last.
SHAPES = [
    (20_000, 20, 3), (3001, 100, 10), (2000, 33, 130), (700, 257, 400), (70, 300, 301),
    (2100, 90, 900), (1500, 96, 3000),
]  # fmt: skip


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
def test_one_thread_the_team_and_numbas_threads_agree_bitwise(
    shape, dtype, thread_count, monkeypatch
):
    problem = make_problem(*shape, dtype)
    crews = []

    def spy_on(kernel):
        def spy(*arguments):
            crews.append(arguments[-1])
            kernel(*arguments)

        place = f"fastsoftmax._evaluation.accumulators.{kernel.__name__}"
        monkeypatch.setattr(place, spy)

    spy_on(run_slots)
    spy_on(run_shared_forward)
    results = []
    for count, team in ((1, True), (2, True), (2, False)):
        thread_count(count)
        monkeypatch.setattr(threads, "uses_team", lambda team=team: team)
        results.append(evaluate(problem))
        crew = crews.pop()
        assert crew.n_workers == count
        assert (crew.board != 0, crew.loop != 0) == (count == 2 and team, not team)
    assert results[0] == results[1] == results[2]


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
        env={**os.environ, "FASTSOFTMAX_THREADS": "team", **environment},
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
    result = run_python(
        THREADS_AT_ONCE, NUMBA_THREADING_LAYER="workqueue", FASTSOFTMAX_THREADS="numba"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "workqueue"


FORK = """
    import os, threading, numpy as np, fastsoftmax as fs
    X = np.random.default_rng(0).standard_normal((20000, 30)).astype(np.float32)
    y = np.zeros(20000, int)
    def evaluate():
        return fs.linear_cross_entropy_value_and_grad(X, np.ones((7, 30)), y)
    want = evaluate()
    def compute_on():
        while not done.is_set():
            evaluate()
    done = threading.Event()
    others = [threading.Thread(target=compute_on) for _ in range(BESIDE)]
    [other.start() for other in others]
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            same = all((evaluate()[1].weight == want[1].weight).all() for _ in range(5))
            os._exit(0 if same else 3)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
    done.set()
    [other.join() for other in others]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("threads", ["team", "numba"])
def test_forked_children_compute(threads):
    result = run_python(FORK.replace("BESIDE", "0"), FASTSOFTMAX_THREADS=threads)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_children_compute_that_are_forked_while_the_team_works():
    result = run_python(FORK.replace("BESIDE", "2"))
    assert result.returncode == 0, result.stderr


def test_the_team_obeys_the_number_of_threads():
    code = """
        import threading, numpy as np, fastsoftmax as fs, numba
        X = np.ones((20000, 30), np.float32)
        def helpers():
            fs.linear_cross_entropy_value_and_grad(X, np.ones((7, 30)), np.zeros(20000, int))
            return sum(t.name.startswith("fastsoftmax") for t in threading.enumerate())
        print(helpers(), end=" ")
        numba.set_num_threads(1)
        fs._evaluation.threads._team = None
        print(helpers())
    """
    result = run_python(code, NUMBA_NUM_THREADS="5")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["4", "4"]  # as many as there were
    result = run_python(code, NUMBA_NUM_THREADS="1")
    assert result.stdout.split() == ["0", "0"], result.stderr


def test_the_team_ends_with_the_process_whatever_it_does():
    code = """
        import sys, threading, numpy as np, fastsoftmax as fs
        X = np.ones((200000, 30), np.float32)
        def evaluate():
            while True:
                fs.linear_cross_entropy_value_and_grad(X, np.ones((7, 30)), np.zeros(200000, int))
        threading.Thread(target=evaluate, daemon=True).start()
        threading.Event().wait(WAIT)
        fs.linear_cross_entropy(X, np.ones((7, 30)), np.zeros(200000, int))
    """
    for wait in ("0.01", "0.5"):
        result = run_python(code.replace("WAIT", wait), NUMBA_NUM_THREADS="4")
        assert result.returncode == 0, result.stderr


def test_more_workers_than_cores():
    code = THREADS_AT_ONCE.replace("import numba; print(numba.threading_layer())", "")
    result = run_python(code, NUMBA_NUM_THREADS="16")
    assert result.returncode == 0, result.stderr


def test_an_unknown_choice_of_threads_is_an_error():
    code = """
        import numpy as np, fastsoftmax as fs
        fs.softmax(np.ones((1000, 1000), np.float32), axis=1)
    """
    result = run_python(code, FASTSOFTMAX_THREADS="openmp")
    assert "FASTSOFTMAX_THREADS: expected 'team' or 'numba', got 'openmp'" in result.stderr


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


@pytest.mark.skipif(not threads.uses_team(), reason="the helpers are Numba's")
def test_helpers_may_use_the_same_cores_as_before(thread_count):
    # One that wakes up on its caller's core leaves it for a moment.
    thread_count(2)
    problem = make_problem(20_000, 40, 12, np.float32)
    for _ in range(5):
        evaluate(problem)
        time.sleep(0.02)
    for helper in threads._team.helpers:
        assert os.sched_getaffinity(helper.native_id) == os.sched_getaffinity(0)
