"""The format of checkpoints: a solver's state in a file, and which run it belongs to."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastsoftmax._optimize.minimize import Iterate
from fastsoftmax._optimize.solvers import State
from fastsoftmax.cli._files import write_arrays
from fastsoftmax.reference import Array
from fastsoftmax.sources._archives import read_arrays, read_headers

_FORMAT = "fastsoftmax-checkpoint"
_FORMAT_VERSION = 5
_LISTS = ("steps", "changes")
# Fields of a State that are arrays; the others are numbers and strings, stored as JSON.
_ARRAYS = ("x", "gradient", "preconditioner_at", *_LISTS)
# Checkpoints are not compressed: an array that unpacks to more is a trap.
_MOST_TIMES = 2


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_array(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.float64
        and bool(np.isfinite(value).all())
    )


# What JSON and archives must hold for the fields of a State, by their types.
_IS_OF: dict[Any, Callable[[Any], bool]] = {
    Array: _is_array,
    Array | None: lambda value: value is None or _is_array(value),
    list[Array]: _is_array,
    list[float]: lambda value: isinstance(value, list) and all(map(_is_number, value)),
    float: _is_number,
    int: lambda value: type(value) is int and 0 <= value < 1 << 63,
    str: lambda value: isinstance(value, str),
}


def save_checkpoint(path: Path, state: State, run: dict[str, Any]) -> None:
    """Write the state between two iterations as a .npz file without pickle, all of it or nothing.

    ``run`` holds what must be the same where the run is resumed (data, options, version), as values
    that JSON has.
    """
    fields = dict(vars(state))
    arrays = {name: fields.pop(name) for name in _ARRAYS}
    arrays |= {name: np.reshape(arrays[name], (-1, len(state.x))) for name in _LISTS}
    stored = {name: array for name, array in arrays.items() if array is not None}
    header = {"format": _FORMAT, "version": _FORMAT_VERSION, "run": run, "state": fields}
    write_arrays(path, {**stored, "header": json.dumps(header)})


def load_checkpoint(path: Path, run: dict[str, Any], size: int) -> State:
    """Read a checkpoint of a problem with ``size`` parameters, of the same run."""
    shapes = {name: it.shape for name, it in read_headers(path, _ARRAYS, _MOST_TIMES).items()}
    header = _read_header(path)
    for name in {**run, **header["run"]}:
        old, new = header["run"].get(name), run.get(name)
        if old != new:
            raise ValueError(
                f"{path}: checkpoint of another run: {name} was {old} there and is {new} here"
            )
    n_steps = shapes.get("steps", ())[:1]
    for name, shape in shapes.items():
        if shape != ((*n_steps, size) if name in _LISTS else (size,)):
            raise ValueError(f"{path}: damaged checkpoint: {name} of shape {shape}")
    fields = {"preconditioner_at": None, **header["state"], **read_arrays(path, _ARRAYS)}
    if reason := _damage(fields):
        raise ValueError(f"{path}: damaged checkpoint: {reason}")
    return State(**fields | {name: list(fields[name]) for name in _LISTS})


def _read_header(path: Path) -> dict[str, Any]:
    """Read the numbers and strings of a checkpoint of this format."""
    arrays = read_arrays(path, ("header",))
    try:
        header: dict[str, Any] = json.loads(str(arrays["header"]))
        if header["format"] != _FORMAT:
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{path}: not a fastsoftmax checkpoint") from None
    if (version := header.get("version")) != _FORMAT_VERSION:
        raise ValueError(f"{path}: checkpoint format {version}, expected {_FORMAT_VERSION}")
    if not all(isinstance(header.get(name), dict) for name in ("run", "state")):
        raise ValueError(f"{path}: damaged checkpoint: no run or no state")
    return header


def _damage(fields: dict[str, Any]) -> str:
    """Say what is wrong with the fields of a State; nothing where they are as they should be."""
    types = {field.name: field.type for field in dataclasses.fields(State)}
    if fields.keys() != types.keys():
        return f"missing or unknown: {', '.join(sorted(fields.keys() ^ types.keys()))}"
    wrong = [name for name, kind in types.items() if not _IS_OF[kind](fields[name])]
    if wrong:
        return f"not finite, or not of the right type: {', '.join(wrong)}"
    if len(fields["curvatures"]) != len(fields["steps"]) or not fields["norms"]:
        return "curvatures or norms of another length"
    return ""


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
