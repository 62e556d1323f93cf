"""Who takes part in whole fits: the lists of peers, and those of torch and cyanure."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import frameworks
import machine
import numpy as np
from fit_peers import GOAL, Fitted, Ours, Peer, Watch, loss_of, seconds_of

# Libraries that are compared with ours, and the modules that they need.
LIBRARIES = {
    "scikit-learn": "sklearn",
    "sklearnex": "sklearnex",
    "torch": "torch",
    "cyanure": "cyanure",
}


def missing(peer: Any) -> bool:
    """Whether the peer's library is not installed."""
    module = LIBRARIES.get(peer.library)
    return module is not None and importlib.util.find_spec(module) is None


class TorchPeer(Peer):
    """`torch.optim.LBFGS`, strong Wolfe, on `F.linear_cross_entropy` in chunks, all rows a step."""

    def __init__(self, *steps: str) -> None:
        super().__init__("torch", "L-BFGS", *steps)
        self.chunk = frameworks.CHUNKS[0]
        self.watch: Watch | None = None

    def fit(self, X: Any, y: np.ndarray, l2: float, max_iter: int) -> Fitted:
        import torch
        import torch.nn.functional as F

        torch.set_num_threads(machine.N_THREADS)
        X, target = torch.from_numpy(X), torch.from_numpy(y)
        W = torch.zeros(int(y.max()) + 1, X.shape[1], dtype=X.dtype, requires_grad=True)
        b = torch.zeros(len(W), dtype=X.dtype, requires_grad=True)
        chunks = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=self.chunk)
        # It ends where the loss no longer changes at all.
        optimiser = torch.optim.LBFGS(
            [W, b], max_iter=max_iter, max_eval=20 * max_iter, history_size=10,
            tolerance_grad=0, tolerance_change=1e-30, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> Any:
            optimiser.zero_grad()
            loss = F.linear_cross_entropy(X, W, target, linear_bias=b, options=chunks)
            loss = loss + l2 * (W * W).sum()
            loss.backward()
            if self.watch is not None:
                self.watch.passes += 1
                self.watch.iterations = optimiser.state[W].get("n_iter", 0)
                self.watch.see(loss.detach())
            return loss

        optimiser.step(closure)
        return W.detach().numpy(), b.detach().numpy()

    @contextlib.contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        self.watch = watch
        try:
            yield
        finally:
            self.watch = None

    def measure(
        self, X: Any, y: np.ndarray, l2: float, best: float, limit: float, rounds: int
    ) -> dict[str, Any]:
        """Choose the fastest size of chunks, then go on as the others do."""

        def seconds(rows: int) -> float:
            self.chunk = rows
            return min(seconds_of(lambda: self.run(X, y, l2, 2))[0] for _ in range(2))

        self.chunk = min(frameworks.CHUNKS, key=seconds)
        return super().measure(X, y, l2, best, limit, rounds)


_COLUMN = 10.0


class CyanurePeer(Peer):
    """cyanure's multiclass-logistic loss; its penalty is λ/2, and its passes are ``max_iter``.

    With sparse features its intercepts are wrong (1.2.2: another optimum, or a crash), so that a
    column of tens stands for them; what it is penalised there is far below the goal.
    """

    def __init__(self, solver: str, *steps: str) -> None:
        super().__init__("cyanure", solver, *steps)

    def fit(self, X: Any, y: np.ndarray, l2: float, max_iter: int) -> Fitted:
        from cyanure.estimators import Classifier
        from scipy import sparse

        is_sparse = sparse.issparse(X)
        if is_sparse:
            column = sparse.csr_array(np.full((X.shape[0], 1), _COLUMN, X.dtype))
            X = sparse.hstack([X, column], format="csr")
        model = Classifier(
            loss="multiclass-logistic", penalty="l2", lambda_1=2 * l2,
            fit_intercept=not is_sparse,
            solver=self.solver, tol=1e-14, max_iter=max_iter, verbose=False,
            # A duality gap costs a pass, and would say nothing that max_iter does not.
            duality_gap_interval=max_iter, n_threads=machine.N_THREADS,
        )  # fmt: skip
        model.fit(X, y)
        if is_sparse:
            return np.ascontiguousarray(model.coef_[:-1].T), model.coef_[-1] * _COLUMN
        return np.ascontiguousarray(model.coef_.T), np.ravel(model.intercept_)

    def measure(
        self, X: Any, y: np.ndarray, l2: float, best: float, limit: float, rounds: int
    ) -> dict[str, Any]:
        """Find the fewest passes that are enough, to an eighth of their number, then time them.

        Its solvers are compiled and show no iterates, so that runs of more and more passes do it.
        """
        started, low, high, passes = time.perf_counter(), 0, 0, 8
        found: dict[str, Any] = {}
        while not high or high - low > max(high // 8, 1):
            took, (W, b) = seconds_of(lambda: self.run(X, y, l2, passes))  # noqa: B023
            excess = loss_of(X, y, l2, W, b) / best - 1
            row = {"iterations": passes, "passes": passes, "seconds": took, "excess": excess}
            if excess <= GOAL:
                high, found = passes, row
            else:
                low = passes
            if not high and (took > limit or time.perf_counter() - started > 3 * limit):
                return {**row, "seconds": limit, "reached": False, "why": "time"}
            passes = (low + high) // 2 if high else 2 * low
        seconds = [found["seconds"]]
        while len(seconds) < rounds and sum(seconds) < limit:
            seconds.append(seconds_of(lambda: self.run(X, y, l2, high))[0])  # noqa: B023
        return {**found, "seconds": float(np.median(seconds)), "reached": True}


OURS = [Ours("SoftmaxRegression"), Ours("LogisticRegression")]
# Its "auto" took qning-miso, to the same iterates.
CYANURE_SOLVERS = ("qning-miso", "catalyst-miso", "acc-svrg")
DENSE_PEERS = [
    # In float32 both libraries' L-BFGS gives up early, since the loss has too few digits.
    Peer("scikit-learn", "lbfgs", "float64", "StandardScaler"),
    Peer("scikit-learn", "lbfgs", "StandardScaler"),
    Peer("scikit-learn", "lbfgs"),
    Peer("scikit-learn", "newton-cholesky"),
    Peer("scikit-learn", "newton-cg", "StandardScaler"),
    Peer("sklearnex", "lbfgs", "float64", "StandardScaler"),
    Peer("sklearnex", "lbfgs", "StandardScaler"),
    Peer("sklearnex", "lbfgs"),
    TorchPeer("float64", "StandardScaler"),
    TorchPeer("StandardScaler"),
    *[CyanurePeer(solver, "StandardScaler") for solver in CYANURE_SOLVERS],
]
# sklearnex leaves newton-cg and sparse features to scikit-learn.
SPARSE_PEERS = [
    Peer("scikit-learn", "lbfgs"),
    Peer("scikit-learn", "newton-cg"),
    # The others of its solvers crash there.
    *[CyanurePeer(solver, "column of tens") for solver in ("qning-miso", "catalyst-miso")],
]
# Where the penalty matters at the optimum, that of scaled features is another objective.
UNSCALED_PEERS = [
    *[
        Peer(library, solver, *steps)
        for library, solver, *steps in (
            ("scikit-learn", "newton-cholesky", "float64"),
            ("scikit-learn", "newton-cg", "float64"),
            ("scikit-learn", "lbfgs", "float64"),
            ("scikit-learn", "lbfgs"),
            ("sklearnex", "lbfgs", "float64"),
            ("sklearnex", "lbfgs"),
        )
    ],
    TorchPeer("float64"),
    *[CyanurePeer(solver, "float64") for solver in CYANURE_SOLVERS],
]
