"""Bad input: an error that names the argument, before anything is computed or written."""

import numpy as np
import pytest
from problems import make_problem

import fastsoftmax

X, W, Y, BIAS, _ = make_problem(6, 4, 3, np.float32)


def weights(*values):
    return np.array(values, float)


BAD = {
    "X one-dimensional": ({"X": X[0]}, ValueError, r"X: expected shape \(n_samples, n_features\)"),
    "X empty": ({"X": X[:0], "y": Y[:0]}, ValueError, "X: expected at least one row"),
    "X without features": ({"X": X[:, :0], "W": W[:, :0]}, ValueError, "X: expected at least"),
    "X of objects": ({"X": X.astype(object)}, TypeError, "X: expected real numbers.*object"),
    "X complex": ({"X": X + 1j}, TypeError, "X: expected real numbers.*complex"),
    "X long double": ({"X": X.astype(np.longdouble)}, TypeError, "X: expected real numbers"),
    "X of strings": ({"X": X.astype(str)}, TypeError, "X: expected real numbers"),
    "X ragged": ({"X": [[1, 2], [3]]}, ValueError, "X: expected an array"),
    "W too narrow": ({"W": W[:, :3]}, ValueError, "W: expected shape.*n_features = 4"),
    "W of one class": ({"W": W[:1]}, ValueError, r"W: expected shape \(n_classes >= 2"),
    "W of objects": ({"W": W.astype(object)}, TypeError, "W: expected real numbers"),
    "bias too long": ({"bias": np.zeros(4)}, ValueError, r"bias: expected shape.*got \(4,\)"),
    "bias two-dimensional": ({"bias": np.zeros((1, 3))}, ValueError, "bias: expected shape"),
    "label negative": ({"y": [0, 1, 2, -1, 0, 0]}, ValueError, r"y: expected labels in \[0, 3\)"),
    "label too large": ({"y": [0, 1, 2, 3, 0, 0]}, ValueError, "got labels from 0 to 3"),
    "label beyond int64": (
        {"y": np.full(6, 2**64 - 1, np.uint64)},
        ValueError,
        "y: expected labels",
    ),
    "labels fractional": ({"y": [0.5] * 6}, TypeError, "y: expected integer class labels"),
    "labels of objects": ({"y": Y.astype(object)}, TypeError, "y: expected integer class labels"),
    "labels too few": ({"y": Y[:5]}, ValueError, r"y: expected shape \(n_samples = 6,\)"),
    "labels ragged": ({"y": [[0], [1, 2]]}, ValueError, "y: expected an array"),
    "weight negative": (
        {"sample_weight": [1, 1, 1, -1, 1, 1]},
        ValueError,
        "sample_weight: .*non-neg",
    ),
    "weight NaN": ({"sample_weight": weights(1, np.nan, 1, 1, 1, 1)}, ValueError, "sample_weight"),
    "weight inf": ({"sample_weight": weights(1, np.inf, 1, 1, 1, 1)}, ValueError, "sample_weight"),
    "weights zero": ({"sample_weight": np.zeros(6)}, ValueError, "every row is ignored"),
    "weights too few": ({"sample_weight": np.ones(5)}, ValueError, "sample_weight: expected shape"),
    "weights of objects": ({"sample_weight": np.ones(6, object)}, TypeError, "sample_weight"),
    "l2 negative": ({"l2": -1e-3}, ValueError, "l2: expected a finite number >= 0"),
    "l2 NaN": ({"l2": np.nan}, ValueError, "l2: expected a finite number >= 0"),
    "l2 text": ({"l2": "much"}, TypeError, "l2: expected a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changed, error, message = BAD[case]
    arguments = {"X": X, "W": W, "y": Y, **changed}
    with pytest.raises(error, match=message):
        fastsoftmax.linear_cross_entropy_value_and_grad(**arguments)
    with pytest.raises(error, match=message):
        fastsoftmax.linear_cross_entropy(**arguments)


@pytest.mark.parametrize(
    "case", [c for c in BAD if not {"W", "bias"} & set(BAD[c][0]) or c == "X without features"]
)
def test_bad_input_of_the_objective(case):
    changed, error, message = BAD[case]
    arguments = {"X": X, "y": Y, "n_classes": 3, **changed}
    arguments.pop("W", None)
    with pytest.raises(error, match=message):
        fastsoftmax.SoftmaxObjective(**arguments)


def test_sparse_by_columns_is_refused_by_name():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="X: expected a dense array or a CSR matrix, got csc_array"):
        fastsoftmax.linear_cross_entropy(scipy_sparse.csc_array(X), W, Y)


def test_tensors_that_numpy_cannot_read_are_refused_by_name():
    torch = pytest.importorskip("torch")
    for tensor in (torch.tensor(X, requires_grad=True), torch.zeros(6, 3, device="meta")):
        with pytest.raises(TypeError, match="X: expected an array of shape"):
            fastsoftmax.linear_cross_entropy(tensor, W, Y)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", ">i8", "?"])
def test_label_dtypes(dtype):
    y = np.array([0, 1, 1, 0, 1, 0]).astype(dtype)
    want = fastsoftmax.linear_cross_entropy(X, W, y.astype(np.int64))
    assert fastsoftmax.linear_cross_entropy(X, W, y) == want
