"""SoftmaxRegression against scikit-learn: its own checks, its optimum, and hard scales."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsoftmax.linear_model import SoftmaxRegression


@parametrize_with_checks([SoftmaxRegression()])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)  # asserts
    assert not hasattr(estimator, "coef_"), "the check worked on clones"
