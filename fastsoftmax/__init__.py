"""Softmax regression on a CPU: loss and gradient in one pass over the data.

Here are losses and scores, scipy.special's three functions, and `SoftmaxObjective`;
estimators are in `fastsoftmax.linear_model`, files larger than memory in `fastsoftmax.sources`,
rows on many machines in `fastsoftmax.dask`, PyTorch's losses in `fastsoftmax.torch`, and all of it
in plain NumPy in `fastsoftmax.reference`.

Names load on first use: ``import fastsoftmax`` imports neither Numba nor SciPy nor scikit-learn.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastsoftmax import linear_model, reference
    from fastsoftmax._warmup import warmup
    from fastsoftmax.functional import (
        LinearGrad,
        cross_entropy,
        cross_entropy_value_and_grad,
        linear_cross_entropy,
        linear_cross_entropy_value_and_grad,
    )
    from fastsoftmax.objective import SoftmaxObjective
    from fastsoftmax.scoring import linear_argmax, linear_log_softmax, linear_softmax
    from fastsoftmax.special import log_softmax, logsumexp, softmax

__version__ = "0.1.0"

__all__ = [
    "LinearGrad",
    "SoftmaxObjective",
    "cross_entropy",
    "cross_entropy_value_and_grad",
    "linear_argmax",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "linear_log_softmax",
    "linear_model",
    "linear_softmax",
    "log_softmax",
    "logsumexp",
    "reference",
    "softmax",
    "warmup",
]

_MODULES = ("linear_model", "reference")
_HOMES = {
    "SoftmaxObjective": "objective",
    "linear_argmax": "scoring",
    "linear_log_softmax": "scoring",
    "linear_softmax": "scoring",
    "log_softmax": "special",
    "logsumexp": "special",
    "softmax": "special",
    "warmup": "_warmup",
}


if not TYPE_CHECKING:  # a type checker knows the names from above, and no others

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'functional')}")
        value = getattr(home, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
