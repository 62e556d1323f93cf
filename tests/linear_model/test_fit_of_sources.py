"""SoftmaxRegression.fit on sources: the same bits as of the same rows in arrays."""

import numpy as np
import pandas as pd
import pytest
from problems import make_problem

from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.sources import Chunks, open_source

NAMES = [f"x{i}" for i in range(6)]
ANIMALS = np.array(["ant", "bee", "cat", "dog"])


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def problem(request):
    X, W, _, bias, _ = make_problem(3000, 6, 4, request.param)
    noise = np.random.default_rng(1).gumbel(size=(3000, 4))
    return X, ANIMALS[(X @ W.T + bias + noise).argmax(axis=1)]


def same(a, b):
    np.testing.assert_array_equal(a.coef_, b.coef_)
    np.testing.assert_array_equal(a.intercept_, b.intercept_)
    np.testing.assert_array_equal(a.classes_, b.classes_)
    assert (a.n_iter_, a.loss_, a.n_features_in_) == (b.n_iter_, b.loss_, b.n_features_in_)


@pytest.mark.parametrize(
    "options", [{}, {"class_weight": {"ant": 3.0}}, {"solver": "newton-cg", "fit_intercept": False}]
)
def test_files(problem, options, tmp_path):
    X, y = problem
    frame = pd.DataFrame(X, columns=NAMES)
    frame.assign(animal=y).to_parquet(tmp_path / "a.parquet", row_group_size=999)
    source = open_source(tmp_path / "a.parquet", "animal", chunk_rows=500)
    streamed = SoftmaxRegression(1e-3, **options).fit(source)
    same(streamed, SoftmaxRegression(1e-3, **options).fit(frame, y))
    assert streamed.feature_names_in_.tolist() == NAMES
    assert streamed.score(frame, y) > 0.5


def test_own_chunks_with_weights(problem):
    X, y = problem
    classes, codes = np.unique(y, return_inverse=True)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y)).astype(X.dtype)

    def read():
        for start in range(0, len(y), 701):
            rows = slice(start, start + 701)
            yield X[rows], codes[rows], weight[rows]

    for class_weight in (None, {"bee": 0.5}):
        model = SoftmaxRegression(class_weight=class_weight)
        streamed = SoftmaxRegression(class_weight=class_weight).fit(Chunks(read, 6, classes))
        same(streamed, model.fit(X, y, weight))
        assert not hasattr(streamed, "feature_names_in_")


def test_warm_start_and_names_forgotten(problem):
    X, y = problem
    classes, codes = np.unique(y, return_inverse=True)
    model = SoftmaxRegression(warm_start=True).fit(pd.DataFrame(X, columns=NAMES), y)
    model.fit(Chunks(lambda: [(X, codes)], 6, classes))
    assert model.n_iter_ <= 1
    assert not hasattr(model, "feature_names_in_")


def test_refused():
    X, codes = np.eye(4), np.arange(4) % 2
    chunks = Chunks(lambda: [(X, codes)], 4, [0, 1])
    for arguments, options, message in (
        ((lambda: [],), {}, "without n_features and classes: wrap"),
        ((chunks, codes), {}, "y: expected None with a source"),
        ((chunks, None, np.ones(4)), {}, "sample_weight: expected None with a source"),
        ((Chunks(chunks, 4, [0]),), {}, "y: expected at least two classes, got 1"),
        ((Chunks(chunks, 3, [0, 1]),), {}, "chunk 0: X: expected n_features = 3 columns, got 4"),
        ((chunks,), {"solver": "adam"}, "solver: expected one of"),
        ((chunks,), {"class_weight": "balanced"}, "class_weight: expected None or a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftmaxRegression(**options).fit(*arguments)
