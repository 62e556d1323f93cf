"""Estimators with scikit-learn's interface."""

try:
    import scipy  # noqa: F401
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        'fastsoftmax.linear_model needs scikit-learn and SciPy: pip install "fastsoftmax[train]"'
    ) from error

from fastsoftmax.linear_model._logistic import LogisticRegression
from fastsoftmax.linear_model._logistic_cv import LogisticRegressionCV
from fastsoftmax.linear_model._softmax import SoftmaxRegression

__all__ = ["LogisticRegression", "LogisticRegressionCV", "SoftmaxRegression"]
