"""Parts of docstrings that several public functions have in common, written once."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def fill_in(**parts: str) -> Callable[[F], F]:
    """Decorate a function: a line ``<name>`` of its docstring becomes the part of that name."""

    def decorate(function: F) -> F:
        if function.__doc__ is not None:  # it is None under python -OO
            lines = function.__doc__.split("\n")
            names = [line.strip()[1:-1] if line.strip().startswith("<") else "" for line in lines]
            filled = [
                parts.get(name, line).strip("\n") for name, line in zip(names, lines, strict=True)
            ]
            function.__doc__ = "\n".join(filled)
        return function

    return decorate
