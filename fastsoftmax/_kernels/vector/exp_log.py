"""exp and log of vectors, written once for both precisions.

`exp` and `log` are stubs that Numba replaces by what the functions below them return.
"""

import decimal
import math

import numpy as np
from numba import types
from numba.extending import overload

from fastsoftmax._kernels.jit import HELPER_OPTIONS
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax._kernels.vector.exponent import horner, look_up, split_exponent, times_power_of_two
from fastsoftmax._kernels.vector.simd import fma, select, splat

LOG2_E = 1.4426950408889634
# Constants of exp:
# magic: adding and subtracting 1.5·2^(mantissa bits) rounds to the nearest integer.
# ln2_high, ln2_low: their sum is ln 2; the first has so many trailing zeros that n·ln2_high is
#   exact.
# floor: what is below it has an exp that rounds to 0.
# polynomial: near-minimax (mpmath.chebyfit) for (eʳ - 1 - r)/r² on |r| ≤ ln 2 / 2; its own error is
#   0.13 (float32) and 0.11 (float64) of half an ULP of the result.
# short_polynomial: the same on |r| ≤ ln 2 / (2·lanes). Where one vector can be permuted by another,
#   2^(j/lanes) comes from a table of one register, in two parts, and this one is enough: 15
#   instructions instead of 19, and 0.6 ULP instead of 0.95.
_EXP_32 = {
    "magic": 1.5 * 2.0**23,
    "ln2_high": 0.693145751953125,
    "ln2_low": 1.428606765330187e-06,
    "floor": -105.0,
    "polynomial": (0.0013926213, 0.008363203, 0.041666556, 0.16666576, 0.5),
    "short_polynomial": (0.16666862, 0.5000098),
}
_EXP_64 = {
    "magic": 1.5 * 2.0**52,
    "ln2_high": 0.6931471805598903,
    "ln2_low": 5.497923018708371e-14,
    "floor": -746.0,
    "polynomial": (
        2.5100424157005067e-08,
        2.7620138719733994e-07,
        2.7557268378684192e-06,
        2.480152119021773e-05,
        0.00019841269863105968,
        0.0013888888917281794,
        0.008333333333330051,
        0.04166666666662399,
        0.16666666666666669,
        0.5000000000000001,
    ),
    "short_polynomial": (
        0.00019842045827692673,
        0.0013889587109070904,
        0.00833333332786805,
        0.041666666617526237,
        0.16666666666666724,
        0.5000000000000051,
    ),
}


def powers_of_two(n, dtype):
    """2^(j/n) for j = 0 … n - 1, as two tuples: rounded values, and what the rounding lost."""
    with decimal.localcontext(decimal.Context(prec=40)):
        exact = [decimal.Decimal(2) ** (decimal.Decimal(j) / n) for j in range(n)]
        rounded = [float(dtype(value)) for value in exact]
        lost = [float(value - decimal.Decimal(r)) for value, r in zip(exact, rounded, strict=True)]
    return tuple(rounded), tuple(lost)


def exp(x):
    """eˣ of a vector on [-inf, 0], within 1 ULP, subnormals and NaN included."""
    raise NotImplementedError


@overload(exp, jit_options=HELPER_OPTIONS)
def _exp_of_dtype(x):
    """Return the exp of a dtype: by a table where permutations are cheap, else by a polynomial."""
    constants = _EXP_32 if x.dtype == types.float32 else _EXP_64
    has_table = VECTOR_BYTES == 64
    magic_number = constants["magic"] / (x.lanes if has_table else 1)
    ln2_high, ln2_low = constants["ln2_high"], constants["ln2_low"]
    floor, polynomial = constants["floor"], constants["polynomial"]
    short = constants["short_polynomial"]
    powers, lost_of = powers_of_two(x.lanes, np.dtype(x.dtype.name).type)

    def exp_by_polynomial(x):
        magic = splat(magic_number, x)
        lowest = splat(floor, x)
        x = select(x < lowest, lowest, x)  # NaN stays NaN
        shifted = fma(x, splat(LOG2_E, x), magic)
        n = shifted - magic
        exact = fma(n, splat(-ln2_high, x), x)
        r = fma(n, splat(-ln2_low, x), exact)
        lost = fma(n, splat(-ln2_low, x), exact - r)  # without it: 1.06 ULP
        y = fma(horner(r, polynomial), r * r, lost) + r + splat(1.0, x)
        return times_power_of_two(y, shifted, n)

    def exp_by_table(x):
        magic = splat(magic_number, x)
        lowest = splat(floor, x)
        x = select(x < lowest, lowest, x)
        shifted = fma(x, splat(LOG2_E, x), magic)  # its lowest bits are j
        n = shifted - magic
        r = fma(n, splat(-ln2_low, x), fma(n, splat(-ln2_high, x), x))
        power = look_up(powers, shifted)
        y = fma(power, fma(horner(r, short), r * r, r), look_up(lost_of, shifted)) + power
        return times_power_of_two(y, shifted, n)

    return exp_by_table if has_table else exp_by_polynomial


# The coefficients of R in the series of atanh: log m = 2s + s·z·R(z), s = (m-1)/(m+1), z = s². R is
# near-minimax; its error is 1e-9 (float32) and 9e-18 (float64) of the result.
_LOG_32 = (0.2957994939197279, 0.3998878056602198, 0.6666668503957586)
_LOG_64 = (
    0.14617807153417325,
    0.15331611722055008,
    0.1818289243253687,
    0.22222211089379496,
    0.28571428626253836,
    0.3999999999989889,
    0.666666666666667,
)


def log(x):
    """Natural logarithm of a vector, 0 or normal, within 1 ULP on [1, 2³¹]; NaN stays NaN."""
    raise NotImplementedError


@overload(log, jit_options=HELPER_OPTIONS)
def _log_of_dtype(x):
    """Return the logarithm of a dtype."""
    single = x.dtype == types.float32
    constants, polynomial = (_EXP_32, _LOG_32) if single else (_EXP_64, _LOG_64)
    ln2_high, ln2_low = constants["ln2_high"], constants["ln2_low"]

    def log_by_series(x):
        m, e = split_exponent(x)
        one = splat(1.0, x)
        f = m - one
        s = f / (m + one)
        z = s * s
        tail = s * z * horner(z, polynomial)
        # log m = f - s·f + tail, since 2s = f - s·f: f is exact, and the other two are small.
        low = fma(e, splat(ln2_low, x), tail - s * f)
        value = e * splat(ln2_high, x) + (f + low)
        value = select(x == splat(0.0, x), splat(-math.inf, x), value)
        return select(x == x, value, x)

    return log_by_series
