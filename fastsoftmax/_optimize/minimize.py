"""From a problem to its minimum: coordinates, preconditioner, solver."""

import dataclasses
from collections.abc import Callable

import numpy as np

from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._optimize import solvers
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.linalg import one_blas_thread
from fastsoftmax._optimize.preconditioners import Preconditioners
from fastsoftmax.reference import Array

SOLVERS = ("auto", "lbfgs", "newton-cg")
INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True)
class Iterate:
    """Where a solver is: what progress lines, callbacks and checkpoints are made of."""

    state: solvers.State
    centred: CentredProblem

    @property
    def parameters(self) -> tuple[Array, Array]:
        """W (K, D) and b (K,), zeros without an intercept."""
        W, b = self.centred.original(self.state.x)
        return W, np.zeros(len(W)) if b is None else b

    @property
    def gradient_norm(self) -> float:
        """Largest entry of |∇J|, in the original coordinates."""
        return self.state.norms[-1]

    @property
    def passes(self) -> int:
        """Passes over the data made so far."""
        return self.state.n_evaluations + self.state.n_products


def minimize(
    problem: Problem,
    *,
    solver: str = "auto",
    tol: float = 1e-4,
    max_iter: int = 1000,
    start: tuple[Array, Array | None] | None = None,
    state: solvers.State | None = None,
    progress: Callable[[Iterate], None] | None = None,
) -> Iterate:
    """Minimise until no entry of ∇J, in the original coordinates, exceeds ``tol``.

    It starts at ``start`` (W, b), by default at zeros, or goes on exactly from the ``state`` that
    an earlier run on the same data was in. "auto" begins with L-BFGS and changes to Newton's method
    where convergence is slow. ``progress`` is called after every iteration, the last of which is
    returned; a KeyboardInterrupt ends the run with the message `INTERRUPTED`.
    """
    # Overflow, and NaN in the data, show in the loss and the gradient, which are looked at.
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        centred = CentredProblem(problem)
        preconditioners = Preconditioners(centred)

        def norm(gradient: Array) -> float:
            return float(np.abs(centred.original_gradient(gradient)).max())

        task = solvers.Minimization(
            objective=centred,
            preconditioner=preconditioners,
            renewed=preconditioners.renewed,
            relies_on_renewed=preconditioners.relies_on_renewed,
            norm=norm,
            tol=tol,
            max_iter=max_iter,
            noise=float(np.finfo(problem.dtype).eps),
            lower_bound=0.0,
            progress=None if progress is None else lambda s: progress(Iterate(s, centred)),
        )
        if state is None:
            state = task.start(problem.zeros() if start is None else centred.start(*start))
        try:
            solvers.minimize(task, state, solver)
        except KeyboardInterrupt:
            state.message = INTERRUPTED
    return Iterate(state, centred)
