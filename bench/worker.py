"""One process for each peer, so that no library's idle threads spin on another one's cores.

In one process a BLAS call leaves threads spinning for up to 0.1 s: whoever is timed next pays. The
parent lets one worker run at a time, each after a pause.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import machine
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
        run()
        seconds = _seconds(run, 1)
        connection.send(("ready", getattr(run, "note", "")))
    except Exception as error:
        traceback.print_exc()
        connection.send((f"{type(error).__name__}: {error}".splitlines()[0][:200], ""))
        return
    # Runs of a turn, for a duration a clock can be trusted with: 5 ms.
    repeats = max(1, min(int(0.005 / seconds), 1000))
    while connection.recv() == "time":
        if seconds < 0.5:  # wake the threads that slept while others were timed
            _seconds(run, repeats)
        connection.send(_seconds(run, repeats))


def _seconds(run: registry.Run, repeats: int) -> float:
    """Seconds of one of several runs."""
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats


class Worker:
    """A peer in its own process; ``status`` is "ready" or says why there is none."""

    def __init__(self, problem: registry.Problem, peer: str, data: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        arguments = (other, problem, peer, data)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        other.close()
        try:
            self.status, self.note = self.connection.recv()
        except EOFError:
            self.status = "the process died"

    def time(self) -> float:
        """Seconds of one run, after a pause."""
        time.sleep(machine.PAUSE)
        self.connection.send("time")
        return float(self.connection.recv())

    def close(self) -> None:
        """End the process."""
        if self.process.is_alive() and self.status == "ready":
            self.connection.send("stop")
        self.process.join(timeout=20)
        self.process.kill()
