"""On how many threads a kernel runs, and which these are.

As a rule they are the team's (`fastsoftmax._kernels.team`): daemon threads of this module, started
when a kernel first wants them. With FASTSOFTMAX_THREADS=numba in the environment, and on other
systems than Linux, they are those of Numba's own threading layers. The bits are the same.
"""

import atexit
import contextlib
import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numba

from fastsoftmax._kernels.jit import native_address
from fastsoftmax._kernels.tasks import ALONE, Crew, call_in_parallel
from fastsoftmax._kernels.team import BOARD_BYTES, SEMAPHORE, serve, stop


def n_threads() -> int:
    """Numba's thread count for the calling thread."""
    # To ask Numba starts its threads. Until somebody has started them, nobody has set their number.
    return int(numba.get_num_threads() if _numba_runs() else numba.config.NUMBA_NUM_THREADS)


def run(kernel: Any, *arguments: Any, n_workers: int, short: bool = False) -> Any:
    """Call a kernel that shares its tasks out, on up to ``n_workers`` of Numba's thread count.

    If it is ``short``, it has helpers only in close succession to another call: to wake one that
    sleeps takes as long as the call.
    """
    global _last_end
    if n_workers < 2:
        return kernel(*arguments, ALONE)
    ours, apart = uses_team(), short and time.perf_counter() - _last_end >= _CLOSE
    try:
        if apart or (n_workers := min(n_workers, n_threads())) < 2:
            return kernel(*arguments, ALONE)
        if ours:
            return kernel(*arguments, _team_of(n_workers))
        with _numbas_crew(n_workers) as crew:
            return kernel(*arguments, crew)
    finally:
        _last_end = time.perf_counter()


# ------------------------------------------------------------------------------------- the team


class Team:
    """Helpers that serve at a board."""

    def __init__(self) -> None:
        # This memory is never given back, as a helper may look at it while the process ends.
        libc = ctypes.CDLL(None)
        libc.calloc.restype = ctypes.c_void_p
        self.board = libc.calloc(1, BOARD_BYTES)
        semaphore = ctypes.c_void_p(self.board + 8 * SEMAPHORE)
        if libc.sem_init(semaphore, 0, 0) != 0:
            raise OSError("no semaphores here")
        self.helpers: list[threading.Thread] = []
        self.lock = threading.Lock()

    def grow(self, n: int) -> None:
        """Start helpers until there are n, or as many as the system lets start."""
        native_address(serve, (self.board,))  # compiles it once, before several threads call it
        with self.lock, contextlib.suppress(RuntimeError):
            while len(self.helpers) < n:
                name = f"fastsoftmax-helper-{len(self.helpers) + 1}"
                helper = threading.Thread(target=serve, args=(self.board,), name=name, daemon=True)
                helper.start()
                self.helpers.append(helper)

    def disband(self) -> None:
        """End all helpers: none may run when Numba's machine code goes."""
        stop(self.board)
        for helper in self.helpers:
            helper.join(1.0)


_team: Team | None = None
_starting = threading.Lock()
_last_end = 0.0  # of a call that several threads share, or would have shared
_CLOSE = 150e-6  # seconds from the end of a call to the next one, in close succession


def _team_of(n_workers: int) -> Crew:
    """Return the team, with helpers enough for so many workers."""
    global _team
    if _team is None:
        with _starting:
            if _team is None:
                _team = Team()
                atexit.register(_team.disband)
    if len(_team.helpers) < n_workers - 1:
        _team.grow(n_workers - 1)
    return Crew(n_workers, _team.board, 0)


@functools.cache
def uses_team() -> bool:
    """Whether helpers of our own are wanted and possible."""
    choice = os.environ.get("FASTSOFTMAX_THREADS", "team")
    if choice not in ("team", "numba"):
        raise ValueError(f"FASTSOFTMAX_THREADS: expected 'team' or 'numba', got {choice!r}")
    return choice == "team" and sys.platform.startswith("linux")


# ----------------------------------------------------------------------------- Numba's own threads

_one_region = threading.Lock()
_forked_after_numba = False


def _numba_runs() -> bool:
    """Whether Numba has started its threads in this process, or in the one it was forked from."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    return bool(getattr(parallel, "_is_initialized", False))


@contextlib.contextmanager
def _numbas_crew(n_workers: int) -> Iterator[Crew]:
    """Enter with Numba's threads, or with the caller alone where they would end the process.

    They would in a forked child of a process that has started Numba's threads, and beside another
    thread's region of the layer "workqueue".
    """
    if _forked_after_numba:
        yield ALONE
        return
    several = Crew(n_workers, 0, native_address(call_in_parallel, (0, 0, 0)))
    if _is_reentrant():
        yield several
        return
    acquired = _one_region.acquire(blocking=False)
    try:
        yield several if acquired else ALONE
    finally:
        if acquired:
            _one_region.release()


def _is_reentrant() -> bool:
    """Whether several threads may be inside parallel regions at a time."""
    try:
        return bool(numba.threading_layer() != "workqueue")
    except ValueError:  # no parallel kernel has run yet
        return False


def _after_fork() -> None:
    """Forget, in a forked child, the threads that only its parent has."""
    global _team, _starting, _forked_after_numba, _one_region
    # GNU OpenMP does not survive a fork, and Numba kills the child that tries.
    _forked_after_numba |= _numba_runs()
    _team, _starting, _one_region = None, threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
