"""Tests import their helpers (oracle, problems) by plain name."""

import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))
# A shell lets what it runs in the background ignore Ctrl-C, and its children would do so as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    text = "run one in N of the parameters of each test, and at least the first"
    parser.addoption("--thin", type=int, default=1, metavar="N", help=text)


def pytest_collection_modifyitems(config, items):
    seen, kept, dropped = Counter(), [], []
    for item in items:
        test = item.path, getattr(item, "originalname", item.name)
        (dropped if seen[test] % config.getoption("thin") else kept).append(item)
        seen[test] += 1
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


@pytest.fixture(scope="module")
def client():
    """Dask's client, of a small cluster."""
    from dask_cluster import start
    from distributed import Client

    with start() as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def problem():
    """What Dask's workers are given: X, W, y, bias, sample_weight."""
    from problems import make_problem

    return make_problem(5000, 30, 4, np.float64)
