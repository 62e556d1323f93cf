"""Data frames, tensors and memory maps: accepted, and not copied where the layout allows."""

import numpy as np
import pytest
from problems import make_problem

import fastsoftmax
from fastsoftmax._evaluation import validate


class ViaDLPack:
    """An array that offers itself by DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def memmap(X, tmp_path):
    X.tofile(tmp_path / "X.bin")
    return np.memmap(tmp_path / "X.bin", X.dtype, "r", shape=X.shape)


def pandas_frame(X, tmp_path):
    return pytest.importorskip("pandas").DataFrame(X, copy=False)


def torch_tensor(X, tmp_path):
    return pytest.importorskip("torch").from_numpy(X)


def jax_array(X, tmp_path):
    return pytest.importorskip("jax").numpy.asarray(X)


def polars_frame(X, tmp_path):
    return pytest.importorskip("polars").DataFrame(X)


CONTAINERS = {
    "memmap": memmap,
    "pandas": pandas_frame,
    "polars": polars_frame,
    "torch": torch_tensor,
    "jax": jax_array,
    "DLPack": lambda X, tmp_path: ViaDLPack(X),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_accepted(container, tmp_path):
    X, W, y, bias, s = make_problem(300, 12, 4, np.float32)
    want = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    held = CONTAINERS[container](X, tmp_path)
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(held, W, y, bias=bias)
    assert loss == want[0]
    np.testing.assert_array_equal(grad.weight, want[1].weight)
    assert grad.weight.dtype == np.float32


@pytest.mark.parametrize("container", ["memmap", "pandas", "torch", "DLPack"])
def test_without_a_copy(container, tmp_path):
    X = np.arange(60, dtype=np.float32).reshape(20, 3)
    held = CONTAINERS[container](X, tmp_path)
    features = validate.as_features(held)
    shared = np.asarray(held) if container == "memmap" else X
    assert np.shares_memory(features, shared)


def test_columns_of_a_frame_as_labels():
    pandas = pytest.importorskip("pandas")
    X, W, y, _, s = make_problem(50, 3, 4, np.float64)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"]).assign(y=y, s=s)
    loss = fastsoftmax.linear_cross_entropy(
        frame[["a", "b", "c"]], W, frame["y"], sample_weight=frame["s"]
    )
    assert loss == pytest.approx(
        fastsoftmax.linear_cross_entropy(X, W, y, sample_weight=s), rel=1e-15
    )


def test_text_columns_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    with pytest.raises(TypeError, match="^X: expected real numbers"):
        fastsoftmax.linear_cross_entropy(frame, np.zeros((2, 2)), [0, 1])
