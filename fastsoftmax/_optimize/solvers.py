"""Minimise a smooth convex function; nothing here knows what the data are.

Both solvers use a preconditioner: a positive definite approximation of the Hessian, given by what
its inverse does to a gradient. That is the same as a change of variables to whitened coordinates,
but the iterates stay in the caller's, and the preconditioner may be replaced on the way.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.linalg.blas import daxpy

from fastsoftmax.reference import Array

# What the inverse does to one or several vectors, which together take hardly longer than one.
Preconditioner = Callable[..., list[Array]]

_ARMIJO = 1e-4
_CURVATURE = 0.9
_MAX_TRIALS = 20
_MAX_PRODUCTS = 100
# A preconditioner is kept while conjugate gradients need no more products in it.
_FEW_PRODUCTS = 8
# L-BFGS renews its preconditioner after so many iterations, and each time they have grown by the
# factor. At (20k, 128, 200) with C = 0.1 first after 3, 4, 5 and 15 took 22, 21, 22 and 26 passes.
_RENEWAL, _RENEWAL_GROWTH = 4, 2.5
# A fit that takes so many iterations is a slow one. With 25, digits with noise (100k, 64, 10) took
# 78 passes instead of 90 to a loss 1e-6 above the lowest, but with C = 500 and tol = 1e-4 they took
# 254 instead of 70.
_SLOW = 60
# Whether the precision is exhausted shows in the last _WINDOW iterations.
_WINDOW = 10
# A small gradient alone does not show that a minimum is near: where classes separate, the gradient
# of a row vanishes with its loss. The loss must have settled, too: in the last iterations it fell,
# and was expected to fall, by at most this share of itself, or by at most so much.
_SETTLED_STEPS, _SETTLED_SHARE, _SETTLED_FALL = 3, 1e-3, 1e-6
# Newton's preconditioner is also renewed where, after so many steps with it, a step lowers the loss
# by less than this share of it.
_OLD, _SLOW_FALL = 4, 0.1
EXHAUSTED = "no step improves the loss: its precision is exhausted"


class Objective(Protocol):
    """What is minimised: value and gradient, and for Newton's method the Hessian's products."""

    def __call__(self, x: Array, /) -> tuple[float, Array]:
        """Value and gradient at ``x``."""

    def hessp(self, x: Array, v: Array, /) -> Array:
        """Return the Hessian at ``x`` times ``v``."""


@dataclasses.dataclass
class State:
    """All that a solver knows between two iterations: enough to go on from, in another process."""

    x: Array
    loss: float
    gradient: Array
    n_iter: int = 0
    n_evaluations: int = 1
    n_products: int = 0
    steps: list[Array] = dataclasses.field(default_factory=list)
    changes: list[Array] = dataclasses.field(default_factory=list)
    curvatures: list[float] = dataclasses.field(default_factory=list)  # products of the two
    norms: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)  # the last ones, as norms are
    gains: list[float] = dataclasses.field(default_factory=list)  # expected of the last steps
    preconditioner_at: Array | None = None  # where it was taken; None for the first one
    age: int = 0  # Newton's steps with the same preconditioner
    last_products: int = 0  # products of the last Newton step
    message: str = ""

    @property
    def small_fall(self) -> float:
        """How much a loss that has settled may still fall in one iteration."""
        return max(_SETTLED_SHARE * abs(self.loss), _SETTLED_FALL)

    def has_settled(self, steps: int = _SETTLED_STEPS) -> bool:
        """Whether in each of the last ``steps`` iterations the loss has hardly fallen."""
        falls = [a - b for a, b in itertools.pairwise(self.losses[-1 - steps :])]
        falls += self.gains[-steps:]
        return bool(falls) and max(falls) <= self.small_fall

    def has_stalled(self, noise: float) -> bool:
        """Whether neither loss nor gradient gets smaller any more: what is left is rounding.

        ``noise`` is the relative error of the loss. A ``tol`` may be too small to be reached.
        """
        if len(self.norms) <= _WINDOW or len(self.losses) <= _WINDOW:
            return False
        fall = self.losses[-1 - _WINDOW] - self.loss
        return fall <= noise * abs(self.loss) and min(self.norms) == self.norms[0]

    @property
    def is_stuck(self) -> bool:
        """Whether no step lowers the loss although one was expected to do so."""
        return self.message == EXHAUSTED and not self.gains[-1] <= self.small_fall

    def forget(self) -> None:
        """Forget the steps made so far."""
        self.steps, self.changes, self.curvatures = [], [], []

    @property
    def is_finite(self) -> bool:
        """Whether neither the loss nor the gradient has overflown, or met a NaN."""
        return bool(np.isfinite(self.loss) and np.isfinite(self.norms[-1]))


@dataclasses.dataclass(frozen=True)
class Minimization:
    """What the solvers are given.

    ``preconditioner`` gives the first preconditioner for None, and for a point x one that is close
    to the curvature there; with True for its second argument it may take longer, and be closer. A
    point is good enough where ``norm`` of the gradient is at most ``tol`` and the loss has settled.
    ``noise`` is the relative error of the objective's values, none of which is below
    ``lower_bound``.
    """

    objective: Objective
    preconditioner: Callable[[Array | None, bool], Preconditioner]
    norm: Callable[[Array], float]
    tol: float
    max_iter: int
    noise: float
    lower_bound: float = -np.inf
    memory: int = 12
    progress: Callable[[State], None] | None = None  # called after every iteration

    def start(self, x0: Array) -> State:
        """Evaluate the starting point."""
        loss, gradient = self.objective(x0)
        norms = [self.norm(gradient)]
        return State(np.array(x0, np.float64), loss, gradient, norms=norms, losses=[loss])

    def goes_on(self, state: State, settled_steps: int = _SETTLED_STEPS) -> bool:
        """Whether there is something left to do, and iterations to do it in."""
        if state.message == EXHAUSTED:
            return False
        if state.norms[-1] <= self.tol and (
            state.has_settled(settled_steps) or not state.norms[-1]
        ):
            return False
        if state.has_stalled(self.noise):
            state.message = EXHAUSTED
            return False
        if state.n_iter >= self.max_iter:
            state.message = "max_iter reached"
            return False
        return state.is_finite


def moved(state: State, start: State, task: Minimization) -> State:
    """Return a state at the point of ``start`` that knows the steps of ``state``.

    For L-BFGS the loss has settled there if the first step is expected to gain as little as in a
    settled one.
    """
    start = dataclasses.replace(
        start, steps=state.steps, changes=state.changes, curvatures=state.curvatures
    )
    if start.steps:
        gain = np.dot(start.gradient, _two_loops(start, task.preconditioner(None, False))) / 2
        start.gains = [float(gain)]
    return start


def minimize(task: Minimization, state: State, solver: str = "auto") -> State:
    """Run "newton-cg", or L-BFGS for "auto" and "lbfgs"."""
    if not task.goes_on(state):  # no preconditioner is needed, and of NaNs there is none
        return state
    return (minimize_newton_cg if solver == "newton-cg" else minimize_lbfgs)(task, state)


def minimize_lbfgs(task: Minimization, state: State) -> State:
    """L-BFGS, whose preconditioner is renewed now and then."""
    solve = task.preconditioner(state.preconditioner_at, _last_renewal(state.n_iter) >= _SLOW)
    while task.goes_on(state):
        if state.n_iter and _last_renewal(state.n_iter) == state.n_iter:
            solve = task.preconditioner(state.x, state.n_iter >= _SLOW)
            state.preconditioner_at = state.x
        if not _advance(task, state, -_two_loops(state, solve)):
            if not state.steps:
                state.message = EXHAUSTED
            # Steps that came of a rounding error may be at fault, so it is tried without them.
            state.forget()
    return state


def _last_renewal(n_iter: int) -> int:
    """Return the iteration of the last renewal, 0 where there was none yet."""
    last, renewal = 0, float(_RENEWAL)
    while int(renewal) <= n_iter:
        last, renewal = int(renewal), renewal * _RENEWAL_GROWTH
    return last


def _two_loops(state: State, solve: Preconditioner) -> Array:
    """Return the L-BFGS approximation of the inverse Hessian times the gradient."""
    q, steps, changes = state.gradient.copy(), state.steps, state.changes
    if not steps:
        return solve(q)[0]
    weights = [0.0] * len(steps)
    for i in reversed(range(len(steps))):
        weights[i] = np.dot(steps[i], q) / state.curvatures[i]
        daxpy(changes[i], q, a=-weights[i])
    r, z = solve(q, changes[-1])
    r *= state.curvatures[-1] / np.dot(changes[-1], z)
    for i, step in enumerate(steps):
        daxpy(step, r, a=weights[i] - np.dot(changes[i], r) / state.curvatures[i])
    return r


def _advance(task: Minimization, state: State, direction: Array) -> bool:
    """Move the state along a direction, and remember the step; False where nothing is gained."""
    found = _search(task, state, direction)
    if found is None:
        return False
    x, loss, gradient = found
    step, change = x - state.x, gradient - state.gradient
    curvature = np.dot(step, change)
    if curvature > 1e-14 * np.sqrt(np.dot(change, change) * np.dot(step, step)):
        state.steps = [*state.steps, step][-task.memory :]
        state.changes = [*state.changes, change][-task.memory :]
        state.curvatures = [*state.curvatures, curvature][-task.memory :]
    state.x, state.loss, state.gradient = x, loss, gradient
    state.norms = [*state.norms, task.norm(gradient)][-_WINDOW - 1 :]
    state.losses = [*state.losses, loss][-_WINDOW - 1 :]
    state.n_iter += 1
    if task.progress is not None:
        task.progress(state)
    return True


def _search(
    task: Minimization, state: State, direction: Array
) -> tuple[Array, float, Array] | None:
    """Find a step that meets the weak Wolfe conditions, by bisection and extrapolation.

    Where the loss changes by less than its own error its gradient decides, as in Hager and Zhang's
    approximate conditions. Returns (x, loss, gradient) there, or None.
    """
    slope = np.dot(state.gradient, direction)
    state.gains = [*state.gains, -slope / 2][-_SETTLED_STEPS:]
    if not slope < 0:
        return None
    slack = task.noise * max(abs(state.loss), 1e-30)
    # A parabola with this slope would fall below the lower bound if its minimum lay farther away.
    low, high, t = 0.0, np.inf, min(1.0, 2 * (state.loss - task.lower_bound) / -slope)
    best = None
    for _ in range(_MAX_TRIALS):
        x = state.x + t * direction
        loss, gradient = task.objective(x)
        state.n_evaluations += 1
        there = np.dot(gradient, direction) if np.isfinite(loss) else np.inf
        short = abs(loss - state.loss) <= slack and abs(there) <= abs(slope)
        if not (loss <= state.loss + _ARMIJO * t * slope or short):
            high = t
            # The minimum of the parabola through both values and the slope here.
            gap = loss - state.loss - t * slope
            fit = -slope * t * t / (2 * gap) if np.isfinite(gap) and gap > 0 else 0.0
            t = min(max(fit, low + 0.1 * (high - low)), low + 0.5 * (high - low))
            continue
        best = x, loss, gradient
        if there >= _CURVATURE * slope:
            return best
        low = t
        t = 2.5 * t if high == np.inf else 0.5 * (low + high)
    return best


def minimize_newton_cg(task: Minimization, state: State) -> State:
    """Newton's method by conjugate gradients, whose preconditioner is kept while few are needed."""
    solve = task.preconditioner(state.preconditioner_at, True)
    # One short step shows little where the preconditioner is coarse: (2000, 30, 100) with C = 1e4
    # ended a fifth above its optimum.
    while task.goes_on(state, settled_steps=2):
        if state.last_products > _FEW_PRODUCTS or _is_old(state):
            solve = task.preconditioner(state.x, True)
            state.preconditioner_at, state.age = state.x, 0
        before = state.n_products
        direction = _conjugate_gradients(task.objective, state, solve)
        state.last_products, state.age = state.n_products - before, state.age + 1
        if not _advance(task, state, direction):
            state.message = EXHAUSTED
        state.forget()
    return state


def _is_old(state: State) -> bool:
    """Whether steps with the preconditioner have become short, though the loss has not settled."""
    if state.age < _OLD or state.has_settled(1):
        return False
    return state.losses[-2] - state.loss < _SLOW_FALL * abs(state.loss)


def _conjugate_gradients(objective: Objective, state: State, solve: Preconditioner) -> Array:
    """Approximate -H⁻¹g, the closer the smaller the gradient already is."""
    d = np.zeros_like(state.x)
    r = -state.gradient
    (z,) = solve(r)
    p, rho = z.copy(), np.dot(r, z)
    goal = rho * min(0.25, np.sqrt(rho / max(abs(state.loss), 1e-30))) ** 2
    for _ in range(_MAX_PRODUCTS):
        product = objective.hessp(state.x, p)
        state.n_products += 1
        curvature = np.dot(p, product)
        if not curvature > 0:
            break
        alpha = rho / curvature
        d += alpha * p
        r -= alpha * product
        (z,) = solve(r)
        previous, rho = rho, np.dot(r, z)
        if rho <= goal:
            break
        p = z + (rho / previous) * p
    return d if d.any() else z
