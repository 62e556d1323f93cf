"""The fastest softmax-regression training kernels on a CPU.

Names load on first use: ``import fastsoftmax`` imports neither Numba nor SciPy nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastsoftmax import linear_model, reference
    from fastsoftmax.functional import (
        LinearGrad,
        linear_cross_entropy,
        linear_cross_entropy_value_and_grad,
        warmup,
    )
    from fastsoftmax.objective import SoftmaxObjective

__version__ = "0.1.0"

__all__ = [
    "LinearGrad",
    "SoftmaxObjective",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "linear_model",
    "reference",
    "warmup",
]

_MODULES = ("linear_model", "reference")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = "objective" if name == "SoftmaxObjective" else "functional"
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
