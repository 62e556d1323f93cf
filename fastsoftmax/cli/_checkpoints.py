"""The format of checkpoints: a solver's state in a file, and which run it belongs to."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastsoftmax._optimize.minimize import Iterate
from fastsoftmax._optimize.solvers import State
from fastsoftmax.cli._files import replacing
from fastsoftmax.sources._arrays import read_arrays

_FORMAT = "fastsoftmax-checkpoint"
_FORMAT_VERSION = 3
_LISTS = ("steps", "changes")
# Fields of a State that are arrays; the others are numbers and strings, stored as JSON.
_ARRAYS = ("x", "gradient", "preconditioner_at", *_LISTS)


def save_checkpoint(path: Path, state: State, run: dict[str, Any]) -> None:
    """Write the state between two iterations as a .npz file without pickle, all of it or nothing.

    ``run`` holds what must be the same where the run is resumed (data, options, version), as values
    that JSON has.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from fastsoftmax.cli._checkpoints import load_checkpoint, save_checkpoint
    >>> from fastsoftmax._optimize.solvers import State
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.npz"
    >>> save_checkpoint(path, State(np.zeros(3), 1.5, np.ones(3)), {"l2": 0.1})
    >>> load_checkpoint(path, {"l2": 0.1}).loss
    1.5
    """
    fields = dict(vars(state))
    arrays = {name: fields.pop(name) for name in _ARRAYS}
    arrays |= {name: np.reshape(arrays[name], (-1, len(state.x))) for name in _LISTS}
    stored = {name: array for name, array in arrays.items() if array is not None}
    header = {"format": _FORMAT, "version": _FORMAT_VERSION, "run": run, "state": fields}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **stored, header=np.array(json.dumps(header)))


def load_checkpoint(path: Path, run: dict[str, Any]) -> State:
    """Read a checkpoint; a ValueError says what is wrong with it, or how its run differs."""
    stored = read_arrays(path)
    try:
        header = json.loads(str(stored.pop("header")))
        if header["format"] != _FORMAT:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: not a fastsoftmax checkpoint") from None
    if header["version"] != _FORMAT_VERSION:
        raise ValueError(f"{path}: checkpoint format {header['version']}, not {_FORMAT_VERSION}")
    for name in {**run, **header["run"]}:
        old, new = header["run"].get(name), run.get(name)
        if old != new:
            raise ValueError(
                f"{path}: checkpoint of another run: {name} was {old} there and is {new} here"
            )
    try:
        fields: dict[str, Any] = {**header["state"], **stored}
        fields |= {name: list(fields[name]) for name in _LISTS}
        return State(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged checkpoint: {error}") from None


class Checkpoints:
    """Writes a checkpoint every so many seconds, where it has a path; called at each iteration."""

    def __init__(self, path: Path | None, run: dict[str, Any], seconds: float) -> None:
        self.path, self.run, self.seconds = path, run, seconds
        self._last: State | None = None
        self._written = -np.inf

    def __call__(self, iterate: Iterate) -> None:
        """Write the state, unless the last one was written less than ``seconds`` ago."""
        # A copy, as the solver goes on in this object; arrays and lists it replaces.
        self._last = None if self.path is None else copy.copy(iterate.state)
        if time.monotonic() - self._written >= self.seconds:
            self.write()

    def write(self) -> None:
        """Write the last state there was, if it has not been written."""
        if self.path is not None and self._last is not None:
            save_checkpoint(self.path, self._last, self.run)
            self._last, self._written = None, time.monotonic()
