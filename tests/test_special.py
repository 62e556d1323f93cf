"""softmax, log_softmax, logsumexp against scipy.special, its own tests, and the truth."""

import ctypes
import itertools
import mmap

import numba
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax

NAMES = ("softmax", "log_softmax", "logsumexp")
SHAPES_AND_AXES = [
    ((10,), (None, 0, -1)),
    ((1,), (None, 0)),
    ((7, 1), (0, 1, None)),
    ((5, 33), (0, 1, -1, -2, None)),
    ((70, 16), (0, 1)),
    ((33, 100), (0, 1)),
    ((3, 1000), (0, 1)),
    ((2, 5, 7), (0, 1, 2, -2, None)),
    ((4, 3, 40, 5), (0, 1, 2, 3)),
    ((300, 257), (0, 1, None)),
]
CASES = [(shape, axis) for shape, axes in SHAPES_AND_AXES for axis in axes]


def tolerance(dtype):
    return {"f": 1e-6, "d": 2e-15, "e": 2e-3}[np.dtype(dtype).char]


def same_kind(ours, theirs):
    assert type(ours) is type(theirs)
    assert np.shape(ours) == np.shape(theirs)
    assert np.asarray(ours).dtype == np.asarray(theirs).dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), CASES, ids=str)
def test_values_axes_and_dtypes(shape, axis, name, dtype):
    x = (5 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    ours = getattr(fastsoftmax, name)(x, axis=axis)
    theirs = getattr(scipy.special, name)(x, axis=axis)
    same_kind(ours, theirs)
    wide = getattr(scipy.special, name)(x.astype(np.float64), axis=axis)
    assert_allclose(ours, wide, rtol=tolerance(dtype) * 4, atol=tolerance(dtype) * 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 10, 40, 500])
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_equal_maxima_beside_rows_without_one(odd, n, dtype):
    # Kernels count maxima over many rows at once: one too many here, one too few there.
    x = np.random.default_rng(0).standard_normal((70, n)).astype(dtype)
    x[1] = odd
    x[40, :2] = 5
    for name in ("log_softmax", "logsumexp"):
        ours = getattr(fastsoftmax, name)(x, axis=1)
        with np.errstate(invalid="ignore"):
            theirs = getattr(scipy.special, name)(x.astype(np.float64), axis=1)
        assert_allclose(ours, theirs, rtol=4 * tolerance(dtype), atol=4 * tolerance(dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["F", "strided", "reversed", "read-only", "swapped", "list"])
def test_layouts(name, layout):
    x = np.random.default_rng(0).standard_normal((12, 20))
    laid = {
        "F": np.asfortranarray(x),
        "strided": x.repeat(2, axis=1)[:, ::2],
        "reversed": x[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": np.frombuffer(x.tobytes()).reshape(x.shape),
        "swapped": x.astype(">f8"),
        "list": x.tolist(),
    }[layout]
    for axis in (0, 1, None):
        ours = getattr(fastsoftmax, name)(laid, axis=axis)
        assert_allclose(ours, getattr(scipy.special, name)(x, axis=axis), rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("x", [3.0, 2, [1, 2, 3], np.int8([[1, 2]]), [1 + 2j, 0.5j]], ids=str)
def test_scalars_integers_and_complex(name, x):
    ours, theirs = (getattr(m, name)(x) for m in (fastsoftmax, scipy.special))
    same_kind(ours, theirs)
    assert_allclose(ours, theirs, rtol=4 * float(np.finfo(np.asarray(theirs).dtype).eps))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axes", [(), 1, (0, 1), (1, 2), (0, 2), (-1, 0), (2, 1, 0)], ids=str)
@pytest.mark.parametrize("layout", ["C", "F", "neither"])
def test_axes_of_three(name, axes, layout):
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    laid = {
        "C": x,
        "F": np.asfortranarray(x),
        "neither": np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
    }[layout]
    for options in ({"keepdims": False}, {"keepdims": True}) if name == "logsumexp" else ({},):
        ours = getattr(fastsoftmax, name)(laid, axis=axes, **options)
        theirs = getattr(scipy.special, name)(x, axis=axes, **options)
        same_kind(ours, theirs)
        assert_allclose(ours, theirs, rtol=1e-14)


SPECIAL = [0.0, 1.0, -1e4, np.inf, -np.inf, np.nan]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [3, 40, 100])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_inf_patterns(name, n, dtype):
    rows = np.array(list(itertools.product(SPECIAL, repeat=3)), dtype)
    x = np.full((len(rows), n), rows[:, :1])
    x[:, 1] = rows[:, 1]
    x[:, n - 1] = rows[:, 2]
    function, theirs = getattr(fastsoftmax, name), getattr(scipy.special, name)
    want = theirs(x, axis=1)
    assert_allclose(function(x, axis=1), want, rtol=2e-6)
    transposed = np.ascontiguousarray(x.T)
    got = function(transposed, axis=0)
    assert_allclose(got if name == "logsumexp" else got.T, want, rtol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_long_row(dtype, value):
    x = np.random.default_rng(0).standard_normal(200_003).astype(dtype)
    if value is not None:
        x[150_000] = value
    for name in NAMES:
        want = getattr(scipy.special, name)(x.astype(np.float64))
        assert_allclose(getattr(fastsoftmax, name)(x), want, rtol=2e-6)


# Strips that one task finishes, and rows in chunks: few columns, lines across rows, ragged ends.
COLUMNS = [
    (1, 100_003, 3), (2, 30_001, 10), (1, 20_000, 130), (1, 3000, 1001), (1, 900, 4100),
    (1, 64, 20_001), (300, 10, 7), (1, 70, 1024), (1, 1500, 1500),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", COLUMNS, ids=str)
def test_columns(shape, dtype):
    """Values, every way of writing them, nothing beyond, and the same bits from one thread."""
    rng = np.random.default_rng(0)
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    x.reshape(-1)[rng.integers(0, x.size, 5)] = [np.inf, -np.inf, np.nan, 1e4, -1e4]
    rtol = 1e-5 if dtype == np.float32 else 1e-13
    for name in NAMES:
        function = getattr(fastsoftmax, name)
        got = function(x, axis=1)
        want = getattr(scipy.special, name)(x.astype(np.float64), axis=1)
        assert_allclose(got, want, rtol=rtol, atol=rtol)
        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            assert_array_equal(function(x, axis=1), got)
        finally:
            numba.set_num_threads(before)
        if name == "logsumexp":
            continue
        for start in (0, 1, 15):
            buffer = np.full(x.size + 32, 7, dtype)
            out = buffer[start : start + x.size].reshape(shape)
            assert_array_equal(function(x, axis=1, out=out), got)
            assert (np.delete(buffer, slice(start, start + x.size)) == 7).all()
        inside = x.copy()
        assert_array_equal(function(inside, axis=1, out=inside), got)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy(dtype):
    x = (20 * np.random.default_rng(0).standard_normal((200, 777))).astype(dtype)
    eps = np.finfo(dtype).eps
    p = fastsoftmax.softmax(x, axis=1)
    assert np.abs(p.astype(np.longdouble).sum(axis=1) - 1).max() < 4 * eps
    wide = x.astype(np.longdouble)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert_allclose(fastsoftmax.log_softmax(x, axis=1), shifted - log_sum, rtol=4 * eps, atol=eps)
    columns = np.ascontiguousarray(x.T)
    assert_allclose(
        fastsoftmax.log_softmax(columns, axis=0).T, shifted - log_sum, rtol=4 * eps, atol=eps
    )
    # x - max is rounded to the dtype before exp sees it.
    want = np.exp(shifted - log_sum)
    assert (np.abs(p - want) <= (4 + np.abs(shifted)) * eps * want + 1e-44).all()
    tiny = np.array([0.0, -40.0], dtype)
    assert_allclose(fastsoftmax.logsumexp(tiny), np.log1p(np.exp(-40.0)), rtol=1e-6)
    assert fastsoftmax.log_softmax([0.0, -1e5])[1] == -1e5


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(50, 10), (9, 700), (3000, 1500)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_out(name, shape, axis):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    function = getattr(fastsoftmax, name)
    want = function(x, axis=axis)
    before = x.copy()
    out = np.empty_like(x)
    assert function(x, axis=axis, out=out) is out
    assert_array_equal(out, want)
    assert_array_equal(x, before)
    shifted = np.empty(x.size + 1, np.float32)[1:].reshape(shape)  # not on a cache line
    assert_array_equal(function(x, axis=axis, out=shifted), want)
    gaps = np.empty((shape[0], 2 * shape[1] - 1), np.float32)[:, ::2]  # none behind a row's last
    assert_array_equal(function(x, axis=axis, out=gaps), want)
    assert function(x, axis=axis, out=x) is x
    assert_array_equal(x, want)


def overlapping():
    buffer = np.zeros(12)
    return buffer[:10], buffer[2:]


BAD_OUT = {
    "shape": (np.zeros(10), np.zeros(9), ValueError, r"out: expected shape \(10,\)"),
    "dtype": (np.zeros(10), np.zeros(10, "f4"), TypeError, "out: expected dtype float64"),
    "list": (np.zeros(10), [0.0] * 10, TypeError, "out: expected an ndarray"),
    "read-only": (np.zeros(10), np.broadcast_to(0.0, 10), ValueError, "out: expected a writeable"),
    "overlap": (*overlapping(), ValueError, "out: expected x itself"),
    "overlap in itself": (
        np.zeros((3, 4)),
        np.lib.stride_tricks.as_strided(np.zeros(12), (3, 4), (24, 8)),
        ValueError,
        "out: expected an array whose elements lie apart",
    ),
    "reversed": (b := np.zeros(10), b[::-1], ValueError, "out: expected x itself"),
}


@pytest.mark.parametrize("case", BAD_OUT)
def test_bad_out(case):
    x, out, error, message = BAD_OUT[case]
    with pytest.raises(error, match=message):
        fastsoftmax.softmax(x, out=out)


@pytest.mark.parametrize("name", NAMES)
def test_bad_axes_and_empty_arrays(name):
    ours, theirs = (getattr(m, name) for m in (fastsoftmax, scipy.special))
    for axis in (2, -3, (0, 0)):
        with pytest.raises(ValueError):  # noqa: PT011  (SciPy's own messages)
            theirs(np.zeros((2, 2)), axis=axis)
        with pytest.raises(ValueError):  # noqa: PT011
            ours(np.zeros((2, 2)), axis=axis)
    assert ours(np.zeros((0, 3)), axis=1).shape == theirs(np.zeros((0, 3)), axis=1).shape
    if name == "logsumexp":
        assert ours([]) == -np.inf
    else:
        with pytest.raises(ValueError, match="zero-size array"):
            ours([])


def test_sign_and_factors():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 5))
    b[0] = 0
    for arguments in ({"b": b}, {"b": b, "return_sign": True}, {"return_sign": True}):
        ours = fastsoftmax.logsumexp(a, axis=1, **arguments)
        theirs = scipy.special.logsumexp(a, axis=1, **arguments)
        assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.0, -1.0], [1e-300, 1e300]),  # their ratio overflows
        ([0.0, 1.0], np.inf),
        ([0.0, 1.0], [-np.inf, 1.0]),
        (np.float32([1, 2]), 2.0),  # a Python number leaves the dtype alone
        (np.float16([1, 2]), True),
        (3, np.float32([1, 2])),
        (np.float32([1, 2]), 1j),
    ],
    ids=str,
)
def test_extreme_factors_and_python_numbers(a, b):
    ours, theirs = (m.logsumexp(a, b=b, return_sign=True) for m in (fastsoftmax, scipy.special))
    for our, their in zip(ours, theirs, strict=True):
        same_kind(our, their)
        assert_allclose(our, their, rtol=1e-3 if np.asarray(our).itemsize == 2 else 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_axis_of_numpys_integer_and_foreign_byte_order(name):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(">f4")
    function = getattr(fastsoftmax, name)
    want = function(x.astype(np.float32), axis=1)
    assert_array_equal(function(x, axis=np.int64(1)), want)  # the same kernels: the same bits
    assert function(x, axis=1).dtype == np.float32


# What SciPy tests of these three, with our functions in the place of its own.
@pytest.mark.slow
def test_scipys_own_tests(tmp_path):
    import subprocess
    import sys

    plugin = tmp_path / "in_place_of_scipy.py"
    plugin.write_text(
        "import fastsoftmax, scipy.special.tests.test_logsumexp as module\n"
        "for name in ('softmax', 'log_softmax', 'logsumexp'):\n"
        "    setattr(module, name, getattr(fastsoftmax, name))\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "in_place_of_scipy", "-p", "no:cacheprovider",
         "-W", "ignore", "--pyargs", "scipy.special.tests.test_logsumexp"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


# ---------------------------------------------------------------- results streamed past the caches


def guarded(shape, dtype, offset):
    """An array ``offset`` elements behind a cache line, with sentinels in and around it."""
    size, around = int(np.prod(shape)), 64
    buffer = np.full(size + 2 * around + 64, 7, dtype)
    start = -(buffer.ctypes.data % 64) % 64 // buffer.itemsize + around + offset
    outside = np.ones(len(buffer), bool)
    outside[start : start + size] = False
    return buffer[start : start + size].reshape(shape), buffer, outside


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("n", [3, 10, 33, 100, 129, 1001, 40_000])
def test_large_results_have_the_same_bits_and_stay_within_their_array(n, offset, dtype):
    shape = ((6 << 20) // (n * np.dtype(dtype).itemsize) + 5, n)
    x = 3 * np.random.default_rng(0).standard_normal(shape).astype(dtype)
    out, buffer, outside = guarded(shape, dtype, offset)
    rows = np.r_[0:9, len(x) // 2 : len(x) // 2 + 9, len(x) - 9 : len(x)]
    for name in ("softmax", "log_softmax"):
        function, truth = getattr(fastsoftmax, name), getattr(scipy.special, name)
        function(x, axis=1, out=out)
        assert (buffer[outside] == 7).all()
        assert_array_equal(out[rows], function(x[rows], axis=1))
        assert_allclose(out, truth(np.float64(x), axis=1), rtol=2e-5, atol=2e-6)
        function(x, axis=0, out=out)
        assert (buffer[outside] == 7).all()
        assert_allclose(out, truth(np.float64(x), axis=0), rtol=2e-5, atol=2e-6)
    y = np.arange(len(x)) % n
    loss, _ = fastsoftmax.cross_entropy_value_and_grad(x, y, out=out, reduction="sum")
    assert (buffer[outside] == 7).all()
    want = fastsoftmax.cross_entropy_value_and_grad(x[rows], y[rows], reduction="sum")[1]
    assert_array_equal(out[rows], want)
    assert loss == fastsoftmax.cross_entropy(x, y, reduction="sum")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_a_last_chunk_shorter_than_a_cache_line_ends_where_results_do(offset, dtype):
    shape = (1 << 20) + 1, 2  # chunks are of a power of two rows: one is left
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    y = np.arange(len(x)) % 2
    for function in (fastsoftmax.softmax, fastsoftmax.log_softmax):
        out, buffer, outside = guarded(shape, dtype, offset)
        function(x, axis=1, out=out)
        assert (buffer[outside] == 7).all()
        assert_array_equal(out[-20:], function(x[-20:], axis=1))
    out, buffer, outside = guarded(shape, dtype, offset)
    fastsoftmax.cross_entropy_value_and_grad(x, y, out=out, reduction="sum")
    assert (buffer[outside] == 7).all()
    want = fastsoftmax.cross_entropy_value_and_grad(x[-20:], y[-20:], reduction="sum")[1]
    assert_array_equal(out[-20:], want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [3, 100, 201, 1001])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_nothing_around_the_rows_is_read(name, n, dtype):
    # Pages that may not be touched lie before and behind: a read there ends this process.
    rows, function = 5, getattr(fastsoftmax, name)
    size = rows * n * np.dtype(dtype).itemsize
    inner = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = np.frombuffer(mmap.mmap(-1, inner + 2 * mmap.PAGESIZE), np.uint8)
    allow = ctypes.CDLL(None).mprotect
    for start in (0, mmap.PAGESIZE + inner):
        address = ctypes.c_void_p(pages.ctypes.data + start)
        assert allow(address, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    want = np.random.default_rng(0).standard_normal((rows, n)).astype(dtype)
    for start in (mmap.PAGESIZE, mmap.PAGESIZE + inner - size):
        x = pages[start : start + size].view(dtype).reshape(rows, n)
        x[:] = want
        assert_array_equal(function(x, axis=1), function(want, axis=1))


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int8])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_sums_of_many_small_numbers(name, dtype):
    x = np.ones(70_000, dtype)
    found = getattr(fastsoftmax, name)(x)
    expected = {
        "softmax": 1 / 70_000,
        "log_softmax": -np.log(70_000),
        "logsumexp": 1 + np.log(70_000),
    }
    np.testing.assert_allclose(np.asarray(found, float), expected[name], rtol=4e-2)
