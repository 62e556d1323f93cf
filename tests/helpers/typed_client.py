"""A user's program, which tests check for types, and run."""

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import fastsoftmax
from fastsoftmax import LinearGrad, SoftmaxObjective, reference, softmax
from fastsoftmax.linear_model import LogisticRegression, SoftmaxRegression
from fastsoftmax.sources import Chunks

Array = npt.NDArray[Any]

X = np.random.default_rng(0).standard_normal((60, 3))
y = X.argmax(axis=1)
W = np.eye(3)

assert_type(softmax(X, axis=1), Array)
assert_type(fastsoftmax.log_softmax(X, axis=(0, 1), out=np.empty_like(X)), Array)
assert_type(reference.softmax(X.tolist()), Array)

loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=[0, 0, 0], l2=1)
assert_type(loss, float)
assert_type(grad, LinearGrad)
assert_type(grad.weight, Array)
assert_type(grad.bias, Array | None)
assert_type(fastsoftmax.cross_entropy_value_and_grad(X, y), tuple[float, Array])
total: float = fastsoftmax.linear_cross_entropy(X, W, y, reduction="sum")
losses: Array = fastsoftmax.cross_entropy(X, y, reduction="none")

assert_type(fastsoftmax.linear_softmax(X, W), Array)
assert_type(fastsoftmax.linear_argmax(X, W), npt.NDArray[np.int64])

objective = SoftmaxObjective(X, y, l2=1e-3, class_weight=[1, 2, 3])
assert_type(objective, SoftmaxObjective)
assert_type(objective.x0, Array)
assert_type(objective(objective.x0), tuple[float, Array])
assert_type(objective.value(objective.x0), float)
assert_type(objective.hessp(objective.x0, np.ones(objective.size)), Array)
assert_type(objective.hess_diag(objective.x0), Array)
assert_type(objective.hess(objective.x0), Array)
assert_type(objective.pack(W, [0, 0, 0]), Array)
assert_type(objective.unpack(objective.x0), tuple[Array, Array | None])
assert_type(objective.size, int)
assert_type(objective.n_classes, int)
assert_type(objective.n_features, int)


def read() -> Iterator[tuple[Array, Array]]:
    yield X, y


streamed = SoftmaxObjective.from_chunks(read, n_features=3, n_classes=3)
assert_type(streamed, SoftmaxObjective)

# scikit-learn has no types, and its decorators make what fit returns one of any type.
model: SoftmaxRegression = SoftmaxRegression(l2=1e-3).fit(X, y)
model = SoftmaxRegression().fit(Chunks(read, 3, [0, 1, 2]))
predicted: Array = LogisticRegression(C=2.0).fit(X, y).predict(X)
fastsoftmax.warmup(dtypes=(np.float32,), kernels=("dense",))
