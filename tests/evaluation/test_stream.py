"""Streamed chunks: the same bits as in memory, errors, and threads that end."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem
from scipy import sparse

from fastsoftmax import SoftmaxObjective
from fastsoftmax._evaluation.stream import read_ahead, reblock
from fastsoftmax._optimize.coordinates import CentredProblem

KINDS = {
    "float32": lambda X: X.astype(np.float32),
    "float64": lambda X: X,
    "uint8": lambda X: (40 * X).astype(np.int64).astype(np.uint8),
    "float16": lambda X: X.astype(np.float16),
    "fortran": np.asfortranarray,
    "swapped": lambda X: X.astype(">f4"),
    "csr": lambda X: sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0)),
    "csr float32": lambda X: sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0).astype(np.float32)),
}


def chunked(cuts, *arrays):
    def source():
        for start, stop in zip([0, *cuts], [*cuts, None], strict=True):
            yield tuple(array[start:stop] for array in arrays)

    return source


def everything(obj, w, v):
    """All an objective computes, as bytes."""
    loss, gradient = obj(w)
    pool = CentredProblem(obj.problem).sample  # what the solvers' metrics are made of
    rows = pool.evenly(100)
    arrays = (
        gradient, obj.hessp(w, v), obj.hess_diag(w), obj.hess(w), pool.mean, pool.rows(rows),
        pool.weights(rows),
    )  # fmt: skip
    return (loss, obj.value(w), *(array.tobytes() for array in arrays))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [{}, {"class_weight": [0.5, 2, 1, 3]}, {"class_weight": [1, 2, 0, 1], "label_smoothing": 0.1}],
    ids=["plain", "class weights", "soft"],
)
def test_same_bits_for_any_chunking(kind, options):
    X, W, y, bias, s = make_problem(5000, 30, 4, np.float64)
    X = KINDS[kind](X)
    whole = SoftmaxObjective(X, y, n_classes=4, l2=0.1, sample_weight=s, **options)
    w, v = whole.pack(W, bias), np.sin(np.arange(whole.size))
    want = everything(whole, w, v)
    rng = np.random.default_rng(len(kind))
    few = sorted(rng.integers(0, 5000, 4))
    many = sorted(rng.integers(0, 5000, 300))  # far smaller than a block, some empty
    for cuts in ([], few, many, [1], [512, 1024, 4999]):
        streamed = SoftmaxObjective.from_chunks(
            chunked(cuts, X, y, s), n_features=30, n_classes=4, l2=0.1, **options
        )
        assert everything(streamed, w, v) == want, cuts


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_target_rows_and_no_weights(smoothing):
    X, W, _, _, _ = make_problem(3000, 7, 5, np.float32)
    Y = np.random.default_rng(1).dirichlet(np.ones(5), 3000)
    options = {"fit_intercept": False, "label_smoothing": smoothing}
    whole = SoftmaxObjective(X, Y, **options)
    streamed = SoftmaxObjective.from_chunks(
        chunked([700, 701, 2500], X, Y), n_features=7, n_classes=5, **options
    )
    v = np.cos(np.arange(whole.size))
    assert everything(streamed, whole.pack(W), v) == everything(whole, whole.pack(W), v)


def test_many_rows_go_to_the_parallel_kernel_with_the_same_bits():
    X, W, y, bias, s = make_problem(60_000, 40, 10, np.float32)
    whole = SoftmaxObjective(X, y, sample_weight=s)
    w = whole.pack(W, bias)
    streamed = SoftmaxObjective.from_chunks(
        chunked([20_001, 33_333], X, y, s), n_features=40, n_classes=10
    )
    for _ in range(3):
        (loss, gradient), (want, want_gradient) = streamed(w), whole(w)
        assert loss == want
        np.testing.assert_array_equal(gradient, want_gradient)


@pytest.mark.parametrize("n_classes", [40, 900])
def test_chunks_that_end_within_a_run_of_blocks(n_classes):
    # Threads share runs of 1,024 rows here, of which a chunk may bring a part.
    X, W, y, bias, s = make_problem(2900, 1700 if n_classes < 48 else 90, n_classes, np.float32)
    whole = SoftmaxObjective(X, y, n_classes=n_classes, sample_weight=s)
    w, v = whole.pack(W, bias), np.sin(np.arange(whole.size))
    want = [part.tobytes() for part in (*whole(w)[1:], whole.hessp(w, v), whole.hess_diag(w))]
    for cuts in ([], [256], [300, 1400, 2895], [1024, 1025]):
        streamed = SoftmaxObjective.from_chunks(
            chunked(cuts, X, y, s), n_features=X.shape[1], n_classes=n_classes
        )
        assert streamed(w)[0] == whole(w)[0], cuts
        got = (*streamed(w)[1:], streamed.hessp(w, v), streamed.hess_diag(w))
        assert [part.tobytes() for part in got] == want, cuts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 17))
def test_reblocking_keeps_rows_and_multiples(lengths, rows):
    class Rows(list):
        def part(self, start, stop):
            return Rows(self[start:stop])

        def joined(self, others):
            return Rows(sum(others, list(self)))

    ends = np.cumsum([0, *lengths])
    chunks = [Rows(range(a, b)) for a, b in zip(ends, ends[1:], strict=False)]
    pieces = list(reblock(chunks, rows))
    assert sum(pieces, []) == list(range(ends[-1]))
    assert all(len(piece) % rows == 0 for piece in pieces[:-1])
    assert all(len(piece) > 0 for piece in pieces)


def test_two_buffers_in_turn_are_enough():
    X, _, y, _, _ = make_problem(5000, 6, 3, np.float32)

    def source():
        buffers = np.empty((2, 700, 6), np.float32)
        for i, start in enumerate(range(0, 5000, 700)):
            part = X[start : start + 700]
            buffers[i % 2] = np.nan
            buffers[i % 2, : len(part)] = part
            yield buffers[i % 2, : len(part)], y[start : start + 700]

    streamed = SoftmaxObjective.from_chunks(source, n_features=6, n_classes=3)
    w = np.linspace(-1, 1, streamed.size)
    assert streamed(w)[0] == SoftmaxObjective(X, y)(w)[0]


def failing(after, message="disk on fire"):
    def source():
        for _ in range(after):
            yield np.ones((10, 2)), np.zeros(10, int)
        raise RuntimeError(message)

    return source


def read_ahead_threads():
    return [t for t in threading.enumerate() if t.name.startswith("fastsoftmax-read-ahead")]


def test_errors_of_the_source_come_through_and_the_thread_ends():
    with pytest.raises(RuntimeError, match="disk on fire") as caught:
        SoftmaxObjective.from_chunks(failing(2), n_features=2, n_classes=2)
    assert any(entry.name == "source" for entry in caught.traceback)
    assert read_ahead_threads() == []


def test_an_abandoned_pass_ends_its_thread_and_closes_the_source():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    stream = read_ahead(items())
    assert next(stream) == 1
    assert len(read_ahead_threads()) == 1
    stream.close()
    assert read_ahead_threads() == []
    assert closed == [True]


def test_reads_one_ahead_and_no_more():
    made = []

    def items():
        for i in range(5):
            made.append(i)
            yield i

    stream = read_ahead(items())
    assert next(stream) == 0
    limit = time.monotonic() + 10
    while made != [0, 1] and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1]
    assert list(stream) == [1, 2, 3, 4]


def test_passes_from_several_threads():
    X, _, y, _, _ = make_problem(4000, 6, 3, np.float32)
    streamed = SoftmaxObjective.from_chunks(chunked([1500], X, y), n_features=6, n_classes=3)
    w, results = np.ones(streamed.size), []
    workers = [threading.Thread(target=lambda: results.append(streamed(w)[0])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [SoftmaxObjective(X, y)(w)[0]] * 4


GOOD = (np.ones((4, 3)), np.array([0, 1, 1, 0]))


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([], ValueError, "source: expected at least one row"),
        ([GOOD, GOOD[0]], TypeError, "chunk 1: expected .X, y. or .* got ndarray"),
        ([GOOD, (GOOD[0][:, :2], GOOD[1])], ValueError, "chunk 1: X: expected n_features = 3"),
        ([GOOD, (GOOD[0].astype("f4"), GOOD[1])], ValueError, "chunk 1: .*dtype float64 .*float32"),
        ([GOOD, GOOD, (GOOD[0], GOOD[1] + 1)], ValueError, "chunk 2: y: expected labels in"),
        ([GOOD, (GOOD[0], GOOD[1][:2])], ValueError, "chunk 1: y: expected shape"),
        ([GOOD, (*GOOD, np.ones(4))], ValueError, "chunk 1: expected weights: False"),
        ([(*GOOD, -np.ones(4))], ValueError, "chunk 0: sample_weight: expected finite"),
        ([(*GOOD, np.zeros(4))], ValueError, "at least one row that counts"),
        ([GOOD, (GOOD[0], np.ones((4, 2)))], ValueError, "chunk 1: expected y of target rows"),
        ([GOOD, (sparse.csr_array(GOOD[0]), GOOD[1])], ValueError, "chunk 1: expected sparse X"),
        ([(GOOD[0].astype("U"), GOOD[1])], TypeError, "chunk 0: X: expected real numbers"),
    ],
)
def test_wrong_chunks(chunks, error, message):
    with pytest.raises(error, match=message):
        SoftmaxObjective.from_chunks(lambda: iter(chunks), n_features=3, n_classes=2)
    assert read_ahead_threads() == []


def test_wrong_options_are_found_before_the_first_pass():
    for options, message in (
        ({"l2": -1}, "l2"),
        ({"class_weight": [1]}, "class_weight"),
        ({"label_smoothing": 2}, "label_smoothing"),
        ({"n_features": 0}, "n_features"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            SoftmaxObjective.from_chunks(
                lambda: pytest.fail("read"), **{"n_features": 3, "n_classes": 2, **options}
            )
    with pytest.raises(TypeError, match="source: expected a function"):
        SoftmaxObjective.from_chunks([GOOD], n_features=3, n_classes=2)
    with pytest.raises(TypeError, match="source: expected it to return an iterator .* NoneType"):
        SoftmaxObjective.from_chunks(lambda: None, n_features=3, n_classes=2)


@pytest.mark.parametrize("later", [0, 1, 3])
def test_later_passes_must_have_the_rows_of_the_first(later):
    passes = iter([2, later])
    obj = SoftmaxObjective.from_chunks(
        lambda: iter([GOOD] * next(passes)), n_features=3, n_classes=2
    )
    with pytest.raises(ValueError, match=rf"expected 8 rows .* got {4 * later} in {later} chunks"):
        obj(obj.x0)
