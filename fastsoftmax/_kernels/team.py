"""A team of threads: helpers that sleep until there is work, and a caller that never waits for one.

The caller of a kernel opens a job, works on it itself until no task is left, closes it, and waits
only for the helpers that are inside at that moment. A helper that gets no core in time, because
another library's threads spin there, never enters, and costs nothing. A parallel region of OpenMP
ends only when each of its threads has had a core: beside a BLAS an evaluation of 0.1 ms took 6 ms.

All that threads know of each other stands on a board, an array of integers a cache line apart:

    owner     1 while a caller uses the team; another one that comes meanwhile works alone
    call      the packed call that the job is (see `pack_call`), two addresses
    seats     how many helpers may still enter
    gate      helpers at the gate or inside, and OPEN more while the job is open
    ticket    the number of jobs so far, by which a helper sees that there is a new one
    sleepers  helpers that sleep, or are about to, and have been sent no wake-up call
    stopped   1 when the helpers shall end
    core      number of the core that the caller was on when it opened the job
    semaphore the C library's, on which helpers sleep
"""

import numpy as np
from numba import types

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.vector.atomics import fetch_add, load_shared, pause, replace
from fastsoftmax._kernels.vector.calls import make_call
from fastsoftmax._kernels.vector.simd import advance, as_int64_pointer

_LINE = 16  # integers: two cache lines, as some CPUs fetch them in pairs
OWNER, UNPACKER, DATA, SEATS, GATE, TICKET, SLEEPERS, STOPPED, CORE, SEMAPHORE, N_PLACES = (
    _LINE * i for i in range(11)
)
BOARD_BYTES = 8 * N_PLACES
_OPEN = 1 << 32
# A helper waits for the next job for some 50 us before it sleeps, since waking it up takes as long.
# The caller, who waits for helpers that finish a task, lets other threads have its core after a
# while: a helper may be waiting for just that core.
_SPINS, _PATIENCE = 2000, 200
# A sleeping helper is woken by the caller or by a helper that has just entered, two by each, so
# that the caller of a large team has not to wake all of it.
_WOKEN = 2

_sem_wait = types.ExternalFunction("sem_wait", types.intc(types.intp))
_sem_post = types.ExternalFunction("sem_post", types.intc(types.intp))
_sched_yield = types.ExternalFunction("sched_yield", types.intc())
_sched_getcpu = types.ExternalFunction("sched_getcpu", types.intc())
_affinity = types.intc(types.intc, types.intp, types.intp)
_sched_getaffinity = types.ExternalFunction("sched_getaffinity", _affinity)
_sched_setaffinity = types.ExternalFunction("sched_setaffinity", _affinity)
# Words of 64 bits that a set of cores takes, as the C library's cpu_set_t does.
_CORE_WORDS = 16


@helper
def _place(board, which):
    """Where an integer of the board stands."""
    return advance(as_int64_pointer(board), which)


@helper
def _wake_some(board):
    """Wake as many helpers as may enter, up to _WOKEN."""
    for _ in range(_WOKEN):
        sleepers = load_shared(_place(board, SLEEPERS))
        if sleepers <= 0 or load_shared(_place(board, SEATS)) <= 0:
            return
        if replace(_place(board, SLEEPERS), sleepers, sleepers - 1):
            _sem_post(board + 8 * SEMAPHORE)


@helper
def work_with_team(board, unpacker, data, n_helpers):
    """Make a packed call, together with up to ``n_helpers`` helpers."""
    if not replace(_place(board, OWNER), 0, 1):
        make_call(unpacker, data)
        return
    # Nobody reads these before the gate is opened.
    _place(board, UNPACKER)[0] = unpacker
    _place(board, DATA)[0] = data
    _place(board, SEATS)[0] = n_helpers
    _place(board, CORE)[0] = _sched_getcpu()
    fetch_add(_place(board, GATE), _OPEN)
    fetch_add(_place(board, TICKET), 1)
    _wake_some(board)
    make_call(unpacker, data)
    fetch_add(_place(board, GATE), -_OPEN)
    waited = 0
    while load_shared(_place(board, GATE)) != 0:
        waited += 1
        if waited > _PATIENCE:
            _sched_yield()
        else:
            pause()
    fetch_add(_place(board, OWNER), -1)


@helper
def _leave_core_of_caller(board, cores):
    """Move to another core, if this one is the caller's; ``cores`` is room for a set of them.

    Linux often wakes a thread on the core of the thread that wakes it, even if other cores are
    idle, and leaves both there for milliseconds. After a pause of 0.16 s a batch of (256, 768,
    1000) took 10 ms so, no less than on one thread, and now takes 7. Afterwards this thread may use
    the same cores as before.
    """
    core = _sched_getcpu()
    if core != load_shared(_place(board, CORE)) or core < 0 or core >= 64 * _CORE_WORDS:
        return
    if _sched_getaffinity(0, 8 * _CORE_WORDS, cores.ctypes.data) != 0:
        return
    word = cores[core // 64]
    cores[core // 64] = word & ~(1 << core % 64)
    _sched_setaffinity(0, 8 * _CORE_WORDS, cores.ctypes.data)  # fails where no other is allowed
    cores[core // 64] = word
    _sched_setaffinity(0, 8 * _CORE_WORDS, cores.ctypes.data)


@helper
def _wait_for_job(board, seen, cores):
    """Return when the ticket is no longer ``seen``, or for no reason."""
    ticket = _place(board, TICKET)
    for _ in range(_SPINS):
        if load_shared(ticket) != seen:
            return
        pause()
    sleepers = _place(board, SLEEPERS)
    fetch_add(sleepers, 1)
    while load_shared(ticket) != seen:  # a job has come meanwhile: do not sleep
        n = load_shared(sleepers)
        if n <= 0:  # a wake-up call is on its way to this helper
            break
        if replace(sleepers, n, n - 1):
            return
    while _sem_wait(board + 8 * SEMAPHORE) != 0:  # a signal has come
        pass
    _leave_core_of_caller(board, cores)


@kernel
def serve(board):
    """Be a helper until the team is stopped."""
    seen, cores = load_shared(_place(board, TICKET)), np.zeros(_CORE_WORDS, np.int64)
    while load_shared(_place(board, STOPPED)) == 0:
        _wait_for_job(board, seen, cores)
        seen = load_shared(_place(board, TICKET))
        if fetch_add(_place(board, GATE), 1) >= _OPEN and fetch_add(_place(board, SEATS), -1) > 0:
            _wake_some(board)
            make_call(_place(board, UNPACKER)[0], _place(board, DATA)[0])
        fetch_add(_place(board, GATE), -1)


@kernel
def stop(board):
    """Let all helpers end that serve at this board."""
    _place(board, STOPPED)[0] = 1
    fetch_add(_place(board, TICKET), 1)
    sleepers = load_shared(_place(board, SLEEPERS))
    while sleepers > 0:
        if replace(_place(board, SLEEPERS), sleepers, sleepers - 1):
            _sem_post(board + 8 * SEMAPHORE)
        sleepers = load_shared(_place(board, SLEEPERS))
