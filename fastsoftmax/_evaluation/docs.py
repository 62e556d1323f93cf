"""Parts of docstrings that several public functions have in common, written once."""

import re
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def fill_in(**parts: str) -> Callable[[F], F]:
    """Decorate a function: a line ``<name>`` of its docstring becomes the part of that name."""

    def fill(match: re.Match[str]) -> str:
        return parts[match[1]].strip("\n")

    def decorate(function: F) -> F:
        if function.__doc__ is not None:  # it is None under python -OO
            function.__doc__ = re.sub(r"^ *<(\w+)>$", fill, function.__doc__, flags=re.MULTILINE)
        return function

    return decorate
