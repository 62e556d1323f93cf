"""Parts of docstrings that several public functions have in common, written once."""

import re
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

# What functions of features say of the first two.
X_AND_W = """
    X : array_like or SciPy CSR matrix, shape (n_samples, n_features)
        Features; any memory layout, never modified, never copied whole. Its dtype decides the
        compute dtype: float32 and float64 their own; bool, integers of up to 16 bits, float16
        and bfloat16 (of ml_dtypes, torch or JAX) in float32; wider integers in float64.
    W : array_like of shape (n_classes, n_features)
        Weights, cast to the compute dtype."""


def fill_in(**parts: str) -> Callable[[F], F]:
    """Decorate a function: a line ``<name>`` of its docstring becomes the part of that name."""

    def fill(match: re.Match[str]) -> str:
        return parts[match[1]].strip("\n")

    def decorate(function: F) -> F:
        if function.__doc__ is not None:  # it is None under python -OO
            function.__doc__ = re.sub(r"^ *<(\w+)>$", fill, function.__doc__, flags=re.MULTILINE)
        return function

    return decorate
