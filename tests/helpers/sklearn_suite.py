"""A pytest plugin: scikit-learn's own tests of logistic regression, run on ours.

    pytest --pyargs sklearn.linear_model.tests.test_logistic -p sklearn_suite -c /dev/null

Both classes are replaced before the tests are imported, in their parameters too. None of them is
left out. Those that are expected to fail are named here, and must fail.
"""

import pytest
import sklearn.linear_model

from fastsoftmax.linear_model import LogisticRegression, LogisticRegressionCV

sklearn.linear_model.LogisticRegression = LogisticRegression
sklearn.linear_model.LogisticRegressionCV = LogisticRegressionCV

EXPECTED_FAILURES = {
    "test_newton_cholesky_fallback_to_lbfgs": (
        "asks for equal iterations of two of its solvers, of which one falls back to the other"
    ),
    "test_logistic_cv_multinomial_score[neg_log_loss-multiclass_agg_list3]": (
        "compares to six decimals with scikit-learn's own lbfgs, which stops at another point "
        "where the gradient is below tol = 1e-4"
    ),
}


def pytest_collection_modifyitems(items):
    names = {item.name for item in items}
    unknown = set(EXPECTED_FAILURES) - names
    assert not unknown, f"no such tests: {unknown}"
    for item in items:
        reason = EXPECTED_FAILURES.get(item.name)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
