"""Shares of the rows, without a cluster of processes: ranges, chunks, threads; what is missing."""

import importlib
import sys
import time

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

pytest.importorskip("distributed", reason='needs pip install "fastsoftmax[dask]"')

from dask import delayed  # noqa: E402
from dask.sizeof import sizeof  # noqa: E402
from distributed import Client  # noqa: E402

from fastsoftmax._kernels.modes import GRADIENT  # noqa: E402
from fastsoftmax.dask import SoftmaxObjective, _shares  # noqa: E402


@pytest.mark.parametrize("sparse_rows", [False, True])
def test_small_partitions_are_joined_with_the_same_bits(problem, sparse_rows, monkeypatch):
    X, W, y, bias, s = problem
    X = sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0)) if sparse_rows else X
    cuts = [0, 0, 400, 400, 900, 4000, 4100, 5000]
    results, counts = set(), []
    for limit in (1, 200_000, 1 << 30):
        monkeypatch.setattr(_shares, "_CHUNK_BYTES", limit)
        partitions = [
            _shares.load((X[a:b], y[a:b], s[a:b]), i, True)
            for i, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False))
        ]
        share = _shares.prepare(partitions, None, {"n_classes": 4})
        counts.append(len(share.stored))
        loss, gradient, _ = share.sum(W, bias, mode=GRADIENT).finish(1.0, 0.0)
        results.add((loss, gradient.tobytes(), share.total))
    assert len(results) == 1
    assert counts[0] >= 5
    assert counts[0] > counts[1] > counts[2] == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.data())
def test_cut_makes_ranges_of_all_partitions(sizes, data):
    n_shares = data.draw(st.integers(1, len(sizes)))
    edges = _shares.cut(sizes, n_shares)
    assert len(edges) == n_shares + 1
    assert edges[0] == 0
    assert edges[-1] == len(sizes)
    assert all(a < b for a, b in zip(edges, edges[1:], strict=False))


def test_cut_shares_equal_partitions_out_evenly():
    assert _shares.cut([10] * 12, 4) == [0, 3, 6, 9, 12]
    assert _shares.cut([30, 10, 10, 10, 30, 30], 4) == [0, 1, 4, 5, 6]


def test_dask_sees_the_bytes_of_rows(problem):
    X, _, y, _, s = problem
    matrix = sparse.csr_array(np.where(np.abs(X) > 0.7, X, 0))
    for rows in (X, matrix):
        partition = _shares.load((rows, y, s), 0, True)
        n_bytes = X.nbytes if rows is X else matrix.data.nbytes + matrix.indices.nbytes
        assert sizeof(partition) >= n_bytes
        assert sizeof(_shares.prepare([partition], None, {"n_classes": 4})) >= n_bytes


def test_kernels_use_the_threads_of_dask_one_task_at_a_time():
    running = []

    def count(_, n_threads):
        """Numba's thread count before, within and after, and who else computes."""
        before = numba.get_num_threads()
        with _shares.dask_threads(n_threads):
            running.append(1)
            within, together = numba.get_num_threads(), len(running)
            time.sleep(0.05)
            running.pop()
        return within, together, numba.get_num_threads() == before

    most = min(2, numba.config.NUMBA_NUM_THREADS)
    with Client(n_workers=1, processes=False, threads_per_worker=2, dashboard_address=":0") as two:
        for n_threads, expected in ((two.nthreads(), most), ({}, 1)):
            calls = two.map(count, range(4), n_threads=n_threads, pure=False)
            assert set(two.gather(calls)) == {(expected, 1, True)}


@pytest.mark.parametrize("missing", ["dask", "distributed", "sklearn"])
def test_missing_extra_is_named(missing, monkeypatch):
    monkeypatch.delitem(sys.modules, "fastsoftmax.dask")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "fastsoftmax\[dask\]"'):
        importlib.import_module("fastsoftmax.dask")


def test_without_a_client():
    with pytest.raises(ValueError, match=r"client: expected a running dask.distributed.Client"):
        SoftmaxObjective.from_chunks([delayed(([[1.0]], [0]))])
