"""Every memory layout and dtype of X gives what its plain copy gives."""

import numpy as np
import pytest
from problems import make_problem

import fastsoftmax


def unaligned(X):
    buffer = np.empty(X.nbytes + 1, np.uint8)
    view = np.frombuffer(buffer.data, X.dtype, offset=1, count=X.size).reshape(X.shape)
    np.copyto(view, X)
    assert not view.flags.aligned
    return view


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


LAYOUTS = {
    "F": np.asfortranarray,
    "every second row": lambda X: X.repeat(2, axis=0)[::2],
    "every second column": lambda X: X.repeat(2, axis=1)[:, ::2],
    "rows backwards": lambda X: X[::-1].copy()[::-1],
    "columns backwards": lambda X: X[:, ::-1].copy()[:, ::-1],
    "strided F": lambda X: np.asfortranarray(X.repeat(2, axis=1))[:, ::2],
    "read-only": read_only,
    "byte-swapped": lambda X: X.astype(X.dtype.newbyteorder()),
    "unaligned": unaligned,
    "list": lambda X: X.astype(float).tolist(),
}


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 3), (9, 1, 3), (33, 17, 4), (1000, 40, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, dtype, shape):
    if layout == "list" and dtype == np.float32:
        dtype = np.float64
    X, W, y, bias, _ = make_problem(*shape, dtype)
    want = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    laid = LAYOUTS[layout](X)
    got = fastsoftmax.linear_cross_entropy_value_and_grad(laid, W, y, bias=bias)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1].weight, want[1].weight)
    np.testing.assert_array_equal(got[1].bias, want[1].bias)


# The kernels are compiled anew for each of these.
COMPILED = [("u1", "f4"), ("u2", "f4"), ("i4", "f8"), ("i8", "f8"), ("u8", "f8"), (">i2", "f4")]


@pytest.mark.parametrize(
    ("source", "compute"),
    [
        ("f2", "f4"), ("i1", "f4"), ("?", "f4"), ("u4", "f8"), (">f4", "f4"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [*COMPILED, ("i2", "f4")]),
    ],
)  # fmt: skip
def test_dtypes(source, compute):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2 if source == "?" else 100, (70, 21)).astype(source)
    _, W, y, bias, _ = make_problem(70, 21, 4, compute, scale=0.01)
    want = fastsoftmax.linear_cross_entropy_value_and_grad(X.astype(compute), W, y, bias=bias)
    got = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    assert got[0] == want[0]
    assert got[1].weight.dtype == compute
    np.testing.assert_array_equal(got[1].weight, want[1].weight)


def test_nothing_past_the_last_row_is_needed(tmp_path):
    # A memmap ends with its file: a read past its last page would be a bus error.
    shape = (1024, 4)
    X = np.memmap(tmp_path / "x", np.float32, "w+", shape=shape)
    X[:] = np.random.default_rng(0).standard_normal(shape)
    W = np.zeros((3, 4))
    loss = fastsoftmax.linear_cross_entropy(X, W, np.zeros(1024, int))
    assert loss == pytest.approx(np.log(3), rel=1e-6)


def test_inputs_stay_as_they_were():
    X, W, y, bias, s = make_problem(300, 20, 5, np.float32)
    copies = [a.copy() for a in (X, W, y, bias, s)]
    fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias, sample_weight=s)
    for array, copy in zip((X, W, y, bias, s), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
