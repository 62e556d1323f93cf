"""Strategies for arguments that users pass: odd layouts and types, and plainly wrong ones.

Each draws a pair: the argument, and whether it is a legal one. A legal argument must work; what is
not legal may work, too, if the answer is that of the reference, unless it is FORBIDDEN.
"""

import numpy as np
from hypothesis import strategies as st

LEGAL, DOUBTFUL, FORBIDDEN = range(3)

COMPUTED = ("f4", "f8")
CONVERTED = ("f2", "?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
REFUSED = ("g", "F", "D", "U3", "S3", "O", "M8[s]", "m8[s]")
SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33])


class WithArray:
    """Nothing but an array interface."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Subclass(np.ndarray):
    """Arithmetic that no one would expect."""

    def __add__(self, other):
        raise AssertionError("a subclass's own arithmetic was used")

    __mul__ = __sub__ = __add__


def laid(draw, array, kinds=None):
    """The same values in another layout, byte order, place or container."""
    kind = draw(st.sampled_from(kinds or LAYOUTS))
    if kind == "F" and array.ndim:
        return np.asfortranarray(array)
    if kind == "step" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if kind == "reverse" and array.ndim:
        return np.array(array[::-1])[::-1]
    if kind == "swapped":
        return array.astype(array.dtype.newbyteorder())
    if kind == "unaligned" and array.dtype.kind not in "O":
        moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        moved[...] = array
        return moved
    if kind == "read-only":
        array = np.array(array)
        array.flags.writeable = False
        return array
    if kind == "list":
        return array.tolist() if array.size else array
    if kind == "subclass":
        return np.array(array).view(Subclass)
    if kind == "matrix" and array.ndim == 2:
        return array.copy().view(np.matrix)
    if kind == "masked":
        return np.ma.masked_array(array.copy())
    if kind == "interface":
        return WithArray(array)
    return array


LAYOUTS = [
    "C", "F", "step", "reverse", "swapped", "unaligned", "read-only", "list", "subclass", "matrix",
    "masked", "interface",
]  # fmt: skip
PLAIN_LAYOUTS = ["C", "F", "step", "reverse", "swapped", "unaligned", "read-only"]


def numbers(draw, shape, dtype, specials=()):
    """An array of ``dtype``, for most dtypes of small numbers, a few of them ``specials``."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    values = rng.integers(-8, 9, shape) / 4
    if dtype.kind == "M":
        return rng.integers(0, 9, shape).astype("M8[s]")
    if dtype.kind == "m":
        return rng.integers(0, 9, shape).astype("m8[s]")
    if dtype.kind in "uib":
        return np.abs(values * 4).astype(np.int64).astype(dtype)
    array = np.asarray(values).astype(dtype)
    if dtype.kind in "f" and specials and array.size and draw(st.integers(0, 4)) == 0:
        flat = array.reshape(-1)
        for special in draw(st.lists(st.sampled_from(specials), min_size=1, max_size=3)):
            with np.errstate(over="ignore"):
                flat[draw(st.integers(0, array.size - 1))] = special
    return array


NOT_ARRAYS = st.sampled_from(
    [None, "text", b"bytes", object(), [[1, 2], [3]], {}, {1, 2}, 1j, range(3), np.float64(2), 7,
     [None, 1.0], "", lambda: 0]
)  # fmt: skip
NOT_NUMBERS = st.sampled_from(
    [None, "0.1", b"1", 1j, object(), [0.1], np.array([0.1, 0.2]), float("nan"), float("inf"), -0.1,
     -float("inf")]
)  # fmt: skip
NOT_INTEGERS = st.sampled_from(
    ["1", 1.5, 1j, object(), [1, 2], np.array([1, 2]), float("nan"), 2**63, -(2**63) - 1,
     np.float64(1.0)]
)  # fmt: skip
