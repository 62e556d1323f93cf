"""The choice between one core and all of them, on invented timings."""

from fastsoftmax._evaluation import pace

WORK = 1_000_000


def evaluate(problem, parallel_seconds, serial_seconds=1.0):
    """One evaluation whose durations are known beforehand; returns the choice made."""
    serial = pace.prefers_serial(problem, WORK)
    seconds = serial_seconds if serial else parallel_seconds
    pace.learn(problem, WORK, parallel=not serial, seconds_per_row=seconds)
    return "serial" if serial else "parallel"


def test_parallel_stays_where_it_pays():
    choices = [evaluate("pays", 0.5) for _ in range(20)]
    assert choices == ["serial"] * 2 + ["parallel"] * 18


def test_parallel_is_tried_less_and_less_where_it_does_not():
    choices = [evaluate("contended", 10.0) for _ in range(200)]
    assert choices.count("parallel") <= 8
    assert "parallel" in choices[-70:]


def test_parallel_returns_when_the_cores_are_free_again():
    for _ in range(50):
        evaluate("freed", 10.0)
    choices = [evaluate("freed", 0.5) for _ in range(100)]
    assert choices[-30:] == ["parallel"] * 30


def test_large_problems_are_never_held_back():
    assert not pace.prefers_serial("large", pace.MAX_WORK + 1)
