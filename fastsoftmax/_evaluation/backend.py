"""Which arithmetic runs: the kernels, or NumPy under NUMBA_DISABLE_JIT=1."""

from typing import Any

from fastsoftmax._kernels.modes import HESSIAN
from fastsoftmax.reference import Array


def jit_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT asks for NumPy instead of the kernels."""
    from numba.core import config

    return bool(config.DISABLE_JIT)


def accumulator(
    W: Array,
    bias: Array | None,
    center: Array | None = None,
    *,
    sparse: bool,
    mode: int,
    **how: Any,
) -> Any:
    """Begin sums over rows still to come, of their losses and of what the ``mode`` names.

    ``center`` is subtracted from dense rows, but not for HESSIAN; the Hessian is multiplied with
    ``direction`` (V, c).
    """
    if mode == HESSIAN:
        return _hessian_accumulator(W, bias)
    how["mode"] = mode
    if jit_disabled():
        from fastsoftmax._evaluation.reference_sums import ReferenceAccumulator

        return ReferenceAccumulator(W, bias, center, **how)
    from fastsoftmax._evaluation.accumulators import DenseAccumulator, SparseAccumulator

    return SparseAccumulator(W, bias, **how) if sparse else DenseAccumulator(W, bias, center, **how)


def _hessian_accumulator(W: Array, bias: Array | None) -> Any:
    """Begin a sum of Hessians over rows still to come."""
    if jit_disabled():
        from fastsoftmax._evaluation.reference_sums import ReferenceHessian

        return ReferenceHessian(W, bias)
    from fastsoftmax._evaluation.hessian import HessianAccumulator

    return HessianAccumulator(W, bias)
