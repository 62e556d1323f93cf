"""One process for each peer, so that no library's idle threads spin on another one's cores.

In one process a BLAS call leaves threads spinning for up to 0.1 s: whoever is timed next pays. The
parent lets one worker run at a time.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import registry


def serve(connection: Connection, problem: registry.Problem, peer: str, data: str) -> None:
    """Prepare and check, report, then time the peer once for each request."""
    try:
        arrays = {p.stem: np.load(p) for p in Path(data).glob("*.npy")}
        truth = [arrays.pop(name) for name in sorted(n for n in arrays if n.startswith("truth"))]
        run = registry.TASKS[problem.task].peers[peer](arrays)
        registry.check(run(), truth, problem, peer)
        del truth  # as large as the data, in every process
        repeats = _repeats(run)
        connection.send("ready")
    except Exception as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {error}".splitlines()[0][:200])
        return
    while connection.recv() == "time":
        # The first run of a turn wakes the threads that slept while others were timed.
        durations = []
        for _ in range(2):
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            durations.append((time.perf_counter() - started) / repeats)
        connection.send(durations[1])


def _repeats(run: Any) -> int:
    """How often to run for a duration a clock can be trusted with: 5 ms."""
    run()
    started = time.perf_counter()
    run()
    return max(1, min(int(0.005 / (time.perf_counter() - started)), 1000))


class Worker:
    """A peer in its own process."""

    def __init__(self, problem: registry.Problem, peer: str, data: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        arguments = (other, problem, peer, data)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        other.close()
        self.status = self._receive()

    def _receive(self) -> Any:
        try:
            return self.connection.recv()
        except EOFError:
            return "the process died"

    def time(self) -> float:
        """Seconds of one run."""
        self.connection.send("time")
        return float(self._receive())

    def close(self) -> None:
        """End the process."""
        if self.process.is_alive() and self.status == "ready":
            self.connection.send("stop")
        self.process.join(timeout=20)
        self.process.kill()
