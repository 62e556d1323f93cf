"""From a problem to its minimum: coordinates, preconditioner, solver."""

import dataclasses
from collections.abc import Callable

import numpy as np

from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._optimize import solvers
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.linalg import one_blas_thread
from fastsoftmax._optimize.preconditioners import Preconditioners
from fastsoftmax._optimize.sample import Sample
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
    sample: Sample | None = None,
) -> Iterate:
    """Minimise until no entry of ∇J, in the original coordinates, exceeds ``tol``.

    It starts at ``start`` (W, b), by default at zeros, or goes on exactly from the ``state`` that
    an earlier run on the same data was in. With both, ``start`` is expected to be closer to the
    minimum than the state, and what the state knows of the curvature is taken along. "auto" is
    L-BFGS. ``progress`` is called after every iteration, the last of which is returned; a
    KeyboardInterrupt ends the run with the message `INTERRUPTED`. Problems of the same rows that
    differ in λ or in the weights of rows may share the ``sample``, and with it most of the work
    that preconditioners are.
    """
    # Overflow, and NaN in the data, show in the loss and the gradient, which are looked at.
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        centred = CentredProblem(problem, sample)

        def norm(gradient: Array) -> float:
            return float(np.abs(centred.original_gradient(gradient)).max())

        task = solvers.Minimization(
            objective=centred,
            preconditioner=Preconditioners(centred),
            norm=norm,
            tol=tol,
            max_iter=max_iter,
            noise=float(np.finfo(problem.dtype).eps),
            lower_bound=0.0,
            progress=None if progress is None else lambda s: progress(Iterate(s, centred)),
        )
        if state is None or start is not None:
            begun = task.start(problem.zeros() if start is None else centred.start(*start))
            if state is None:
                state = begun
                # Newton's method begins as it does from zero, so that two fits of one step each are
                # one of two steps, as with scikit-learn's.
                is_lbfgs = solver != "newton-cg"
                if is_lbfgs and state.x.any() and not centred.sample.curvatures:
                    state.preconditioner_at = state.x
            elif begun.loss <= state.loss:
                state = solvers.moved(state, begun, task)
            else:  # it is farther away
                state.n_evaluations += 1
        try:
            solvers.minimize(task, state, solver)
        except KeyboardInterrupt:
            state.message = INTERRUPTED
    return Iterate(state, centred)


def carried_over(last: Iterate, l2: float) -> solvers.State:
    """Return the state in which a run with another λ, on the same data, goes on where one ended.

    The penalty is known without the data: loss and gradient follow from those of ``last``, and so
    do the changes of the gradient that L-BFGS remembers. Nothing is evaluated. Paths of ten C at
    (50k, 100, 10) took half the passes that runs from the same points took.
    """
    state, problem = last.state, last.centred.problem
    stiffness = 2 * (l2 - problem.l2) * problem.penalised
    added = float(np.dot(stiffness, np.square(state.x))) / 2
    gradient = state.gradient + stiffness * state.x
    changes = [y + stiffness * s for s, y in zip(state.steps, state.changes, strict=True)]
    return solvers.State(
        state.x,
        state.loss + added,
        gradient,
        n_evaluations=0,
        steps=state.steps,
        changes=changes,
        curvatures=[float(np.dot(s, y)) for s, y in zip(state.steps, changes, strict=True)],
        norms=[float(np.abs(last.centred.original_gradient(gradient)).max())],
        losses=[loss + added for loss in state.losses],
        # The loss may fall by about as much as the penalty has changed.
        gains=[*state.gains, abs(added)],
    )
