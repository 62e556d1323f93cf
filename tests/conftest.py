"""Tests import their helpers (oracle, problems) by plain name."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))


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
