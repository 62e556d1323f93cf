"""A pytest plugin: scikit-learn's own tests of LogisticRegression, run on ours.

    pytest --pyargs sklearn.linear_model.tests.test_logistic -p sklearn_suite -c /dev/null

Tests look the class up in their module when they run; that is where it is replaced.
"""

UNSUPPORTED_SOLVERS = ("liblinear", "sag", "saga")
# Tests, by the start of their name, that ours cannot pass or that do not concern it.
OTHERS = "the test compares with or runs liblinear, sag or saga, which are not here"
L1 = "L1 and elastic net are not here"
LEFT_OUT = {
    "test_check_solver_option": "the class is named in a parameter; liblinear's message",
    "test_consistency_path": OTHERS,
    "test_liblinear": OTHERS,
    "test_logistic_regression_solvers[": OTHERS,
    "test_logistic_regression_solvers_multiclass": OTHERS,
    "test_sample_and_class_weight_equivalence_liblinear": OTHERS,
    "test_logistic_regression_class_weights": OTHERS,
    "test_logreg_l1": L1,
    "test_saga_vs_liblinear": OTHERS,
    "test_warm_start_converge_LR": OTHERS,
    "test_elastic_net": L1,
    "test_LogisticRegression_elastic_net_objective": L1,
    "test_scores_attribute_layout_elasticnet": L1,
    "test_l1_ratio_non_elasticnet": L1,
    "test_lr_penalty_l1ratio_incompatible": L1,
    "test_logisticregression_liblinear_sample_weight": OTHERS,
    "test_newton_cholesky_fallback_to_lbfgs": "counts the iterations of two of its solvers",
}


def pytest_collection_modifyitems(config, items):
    from fastsoftmax.linear_model import LogisticRegression

    kept, left_out = [], []
    for item in items:
        item.module.LogisticRegression = LogisticRegression
        solver = getattr(item, "callspec", None) and item.callspec.params.get("solver")
        name = item.name
        unsupported = solver in UNSUPPORTED_SOLVERS or any(name.startswith(t) for t in LEFT_OUT)
        (left_out if unsupported else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
