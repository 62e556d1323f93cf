"""Which arithmetic runs: the kernels, or NumPy under NUMBA_DISABLE_JIT=1."""

from typing import Any

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
    direction: tuple[Array, Array | None] | None = None,
) -> Any:
    """Begin sums over rows still to come: of their losses, and of what ``mode`` names.

    ``center`` is subtracted from dense rows. ``direction`` (V, c) is what the Hessian is multiplied
    with in the mode PRODUCT.
    """
    if jit_disabled():
        from fastsoftmax._evaluation.reference_sums import ReferenceAccumulator

        return ReferenceAccumulator(W, bias, center, mode, direction)
    from fastsoftmax._evaluation.accumulators import DenseAccumulator, SparseAccumulator

    if sparse:
        return SparseAccumulator(W, bias, mode=mode, direction=direction)
    return DenseAccumulator(W, bias, center, mode=mode, direction=direction)
