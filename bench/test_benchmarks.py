"""pytest-benchmark over the registry: ``pytest bench --benchmark-group-by=param:problem``.

BENCH_SCALE=0.01 takes a hundredth of the rows, and few of the shapes of batches. For ratios use
report.py: here all peers share one process, and threads that one leaves spinning slow the next one
down.
"""

import functools
import os

import pytest
import registry

SCALE = float(os.environ.get("BENCH_SCALE", "1"))


@functools.lru_cache(maxsize=1)
def prepared(problem):
    arrays = registry.TASKS[problem.task].make(problem)
    return arrays, registry.TASKS[problem.task].truth(arrays)


def is_quick(problem):
    """Whether it is no batch, or one of few classes: every shape is compiled by torch and JAX."""
    return not problem.task.startswith("batches") or problem.shape[2] in (10, 500)


CASES = [
    pytest.param(problem.scaled(SCALE) if SCALE < 1 else problem, peer, id=f"{problem.name}-{peer}")
    for problem in registry.PROBLEMS
    for peer in registry.TASKS[problem.task].peers
    if SCALE == 1 or is_quick(problem)
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("problem", "peer"), CASES)
def test_benchmark(problem, peer, benchmark):
    if not registry.available(peer):
        pytest.skip(f"{peer} is not installed")
    arrays, truth = prepared(problem)
    run = registry.TASKS[problem.task].peers[peer](arrays)
    registry.check(run(), truth, problem, peer)
    benchmark.group = problem.name
    benchmark(run)
    assert benchmark.stats is not None or benchmark.disabled
