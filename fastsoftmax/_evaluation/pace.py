"""Whether waking the other cores pays at present, learned from how long evaluations took.

Threads that another library leaves spinning (OpenBLAS: up to 100 ms after its last call) hold the
cores that our own threads need, and a parallel region ends only when each of its threads has had a
core. Beside SciPy's L-BFGS, which calls BLAS at each step, an evaluation of 0.1 ms took 6 ms on 2
cores. Serial and parallel kernels give the same bits, so the choice can depend on the clock.

Tried instead: a fixed threshold (right for one situation only); limiting the other library's
threads (not ours to change).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable

# Above this many multiply-adds (about 5 ms on one core) a scheduler's time slice no longer decides.
MAX_WORK = 150_000_000
_LONGEST_PAUSE = 64
# The first evaluation of a kind, serial or parallel, loads or compiles the kernel.
TRIALS = 2


@dataclasses.dataclass
class _Record:
    """Seconds per row at best on one core, and how long to stay away from the others."""

    trials: int = 0
    parallel_trials: int = 0
    serial: float = math.inf
    pause: int = 0
    left: int = 0


_records: dict[Hashable, _Record] = {}


def prefers_serial(problem: Hashable, work: int) -> bool:
    """Whether one core is the better choice for the next evaluation of this kind of problem."""
    if work > MAX_WORK:
        return False
    record = _records.setdefault(problem, _Record())
    if record.trials < TRIALS:
        return True
    if record.left > 0:
        record.left -= 1
        return True
    return False


def learn(problem: Hashable, work: int, *, parallel: bool, seconds_per_row: float) -> None:
    """Take note of an evaluation."""
    if work > MAX_WORK:
        return
    record = _records.setdefault(problem, _Record())
    if not parallel:
        record.trials += 1
        record.serial = min(seconds_per_row, record.serial)
    elif record.parallel_trials < 1:
        record.parallel_trials += 1
    else:
        slower = seconds_per_row > 1.2 * record.serial
        record.pause = min(max(2 * record.pause, 4), _LONGEST_PAUSE) if slower else 0
        record.left = record.pause
