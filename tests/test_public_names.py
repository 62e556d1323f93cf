"""The public names and their signatures, which only a new version may change."""

import importlib
import inspect
import re

import pytest

import fastsoftmax

OPTIONS = (
    "sample_weight=None, class_weight=None, label_smoothing=0.0, ignore_index=None, "
    "lse_square_scale=0.0, reduction='mean'"
)
WEIGHTS = "class_weight=None, label_smoothing=0.0"
OBJECTIVE = f"n_classes=None, l2=0.0, fit_intercept=True, sample_weight=None, {WEIGHTS}"
STREAMED = f"l2=0.0, fit_intercept=True, {WEIGHTS}"
SOFTMAX_REGRESSION = (
    "(l2=0.0001, *, solver='auto', tol=0.0001, max_iter=1000, fit_intercept=True, "
    "class_weight=None, warm_start=False, verbose=0, random_state=None, batch_size='auto', "
    "learning_rate=0.02)"
)
MODULE = "a module"
DATA = "an attribute"
SAME_AS_SKLEARN = "scikit-learn's"

REFERENCE = {
    "LinearGrad": "(weight, bias, input)",
    "cross_entropy": f"(logits, y, *, {OPTIONS})",
    "cross_entropy_value_and_grad": f"(logits, y, *, {OPTIONS}, out=None)",
    "linear_argmax": "(X, W, *, bias=None)",
    "linear_cross_entropy": f"(X, W, y, *, bias=None, l2=0.0, {OPTIONS})",
    "linear_cross_entropy_value_and_grad": (
        f"(X, W, y, *, bias=None, l2=0.0, {OPTIONS}, input_grad=False)"
    ),
    "linear_log_softmax": "(X, W, *, bias=None, out=None)",
    "linear_softmax": "(X, W, *, bias=None, out=None)",
    "log_softmax": "(x, axis=None, *, out=None)",
    "logsumexp": "(a, axis=None, b=None, keepdims=False, return_sign=False)",
    "softmax": "(x, axis=None, *, out=None)",
}
NAMES = {
    "fastsoftmax": REFERENCE
    | {
        "SoftmaxObjective": f"(X, y, *, {OBJECTIVE})",
        "linear_model": MODULE,
        "reference": MODULE,
        "warmup": (
            "(dtypes=(<class 'numpy.float32'>, <class 'numpy.float64'>), "
            "kernels=('dense', 'sparse', 'softmax', 'losses'))"
        ),
    },
    "fastsoftmax.reference": REFERENCE,
    "fastsoftmax.linear_model": {
        "LogisticRegression": SAME_AS_SKLEARN,
        "LogisticRegressionCV": SAME_AS_SKLEARN,
        "SoftmaxRegression": SOFTMAX_REGRESSION,
    },
    "fastsoftmax.sources": {
        "ArraySource": (
            "(path, X, y, sample_weight=None, *, feature_names=None, files=None, chunk_rows=None)"
        ),
        "ChunkSource": "(path, n_features, names, files=None)",
        "Chunks": "(function, n_features, classes, feature_names=None)",
        "open_source": (
            "(path, target=None, features=None, chunk_rows=None, *, labelled=True, format=None, "
            "classes=None, zero_based='auto', n_features=None, drop=None, weight=None, "
            "missing='error', max_categories=1000, columns=None, learn=True)"
        ),
        "TableColumns": "(columns)",
        "TableSource": "(path, columns, options, files)",
    },
    "fastsoftmax.dask": {
        "SoftmaxObjective": f"(X, y, *, {OBJECTIVE}, n_shares=None)",
        "SoftmaxRegression": SOFTMAX_REGRESSION,
    },
    "fastsoftmax.torch": {
        "CrossEntropyLoss": (
            "(weight=None, size_average=None, ignore_index=-100, reduce=None, reduction='mean', "
            "label_smoothing=0.0)"
        ),
        "LinearCrossEntropyLoss": (
            "(in_features, num_classes, *, out_features=(), bias=False, device=None, dtype=None, "
            "reduction='mean', weight=None, ignore_index=None, label_smoothing=0.0, options=None)"
        ),
        "cross_entropy": (
            "(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, "
            "reduction='mean', label_smoothing=0.0)"
        ),
        "linear_cross_entropy": (
            "(input, linear_weight, target, *, linear_bias=None, weight=None, reduction='mean', "
            "ignore_index=None, label_smoothing=0.0, options=None)"
        ),
    },
}

OBJECTIVE_MEMBERS = {
    "__call__": "(self, w)",
    "from_chunks": f"(source, *, n_features, n_classes, {STREAMED})",
    "hess": "(self, w)",
    "hess_diag": "(self, w)",
    "hessp": "(self, w, v)",
    "pack": "(self, W, b=None)",
    "unpack": "(self, w)",
    "value": "(self, w)",
} | dict.fromkeys(
    ("dtype", "fit_intercept", "l2", "n_classes", "n_features", "n_rows", "size", "x0"), DATA
)
PREDICTIONS = dict.fromkeys(
    ("decision_function", "predict", "predict_log_proba", "predict_proba"), "(self, X)"
)
SOURCE_MEMBERS = {
    "__call__": "(self)",
    "choose": "(self, rows)",
    "encode_labels": "(self, where, labels)",
    "features": "(self)",
    "files": DATA,
    "load": "(self)",
    "n_bytes": DATA,
    "split": "(self, fraction, seed=0)",
    "use_classes": "(self, classes)",
    "zero_based": DATA,
}
REGRESSION_MEMBERS = PREDICTIONS | {
    "fit": "(self, X, y=None, sample_weight=None)",
    "partial_fit": "(self, X, y, classes=None, sample_weight=None)",
}
# What the package itself defines in a class; the rest is its base's.
MEMBERS = {
    ("fastsoftmax", "LinearGrad"): dict.fromkeys(("weight", "bias", "input"), DATA),
    ("fastsoftmax", "SoftmaxObjective"): OBJECTIVE_MEMBERS,
    ("fastsoftmax.linear_model", "LogisticRegression"): PREDICTIONS
    | {"fit": "(self, X, y, sample_weight=None)"},
    ("fastsoftmax.linear_model", "LogisticRegressionCV"): PREDICTIONS
    | {"fit": "(self, X, y, sample_weight=None, **params)"},
    ("fastsoftmax.linear_model", "SoftmaxRegression"): REGRESSION_MEMBERS,
    ("fastsoftmax.sources", "ArraySource"): SOURCE_MEMBERS,
    ("fastsoftmax.sources", "ChunkSource"): SOURCE_MEMBERS,
    ("fastsoftmax.sources", "TableColumns"): {"from_json": "(text)", "to_json": "(self)"},
    ("fastsoftmax.sources", "TableSource"): SOURCE_MEMBERS
    | {"labels": "(self)", "learn_columns": "(self)", "use_columns": "(self, columns)"}
    | dict.fromkeys(("columns", "unseen"), DATA),
    ("fastsoftmax.sources", "Chunks"): {"__call__": "(self)"}
    | dict.fromkeys(("function", "n_features", "classes", "feature_names"), DATA),
    ("fastsoftmax.dask", "SoftmaxObjective"): OBJECTIVE_MEMBERS
    | {"from_chunks": (f"(source, *, n_features=None, n_classes=None, {STREAMED}, n_shares=None)")},
    ("fastsoftmax.dask", "SoftmaxRegression"): REGRESSION_MEMBERS
    | {"score": "(self, X, y, sample_weight=None)"},
    ("fastsoftmax.torch", "CrossEntropyLoss"): {"forward": "(self, input, target)"},
    ("fastsoftmax.torch", "LinearCrossEntropyLoss"): {"forward": "(self, input, target)"},
}
# scikit-learn makes the former of the signatures of methods; the latter is for the package's use.
NOT_FROZEN = re.compile(r"set_\w+_request|from_problem")


def module(name):
    extra = name.rpartition(".")[2]
    if extra in ("dask", "torch"):
        pytest.importorskip(extra, reason=f'needs pip install "fastsoftmax[{extra}]"')
    return importlib.import_module(name)


def signature(value):
    """Return the signature as text, without types."""
    plain = inspect.signature(value).replace(return_annotation=inspect.Signature.empty)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in plain.parameters.values()
    ]
    return str(plain.replace(parameters=parameters))


def spelt_out(text):
    """Return what a signature of the reference takes, in place of its ``**options``, sorted."""
    options = OPTIONS if ", *, " in text else f"*, {OPTIONS}"
    names = text.strip("()").replace("**options", options).split(", ")
    fixed = names[: names.index("*")] if "*" in names else names
    return fixed, sorted(set(names) - set(fixed) - {"*"})


def public_members(cls):
    """Return the names of a class that this package defines, private ones aside."""
    homes = [home for home in cls.__mro__ if home.__module__.startswith("fastsoftmax")]
    names = {name for home in homes for name in vars(home)}
    return {
        name
        for name in names
        if name == "__call__" or not (name.startswith("_") or NOT_FROZEN.fullmatch(name))
    }


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert sorted(module(name).__all__) == sorted(NAMES[name])


@pytest.mark.parametrize(
    ("home", "name"), [(home, name) for home, names in NAMES.items() for name in names]
)
def test_signatures(home, name):
    expected, value = NAMES[home][name], getattr(module(home), name)
    if expected == MODULE:
        assert inspect.ismodule(value)
    elif expected == SAME_AS_SKLEARN:
        sklearn = importlib.import_module("sklearn.linear_model")
        assert signature(value) == signature(getattr(sklearn, name))
    elif home == "fastsoftmax.reference":
        assert spelt_out(signature(value)) == spelt_out(expected)
    else:
        assert signature(value) == expected


@pytest.mark.parametrize(("home", "name"), MEMBERS, ids=".".join)
def test_members(home, name):
    cls = getattr(module(home), name)
    expected = MEMBERS[home, name]
    assert sorted(public_members(cls)) == sorted(expected)
    for member, text in expected.items():
        value = getattr(cls, member)
        if text == DATA:
            assert not inspect.isroutine(value), member
        else:
            assert signature(value) == text, member


def test_classes_of_public_modules_have_their_members_listed():
    classes = {
        (home, name)
        for home, names in NAMES.items()
        if home not in ("fastsoftmax.dask", "fastsoftmax.torch", "fastsoftmax.reference")
        for name in names
        if inspect.isclass(getattr(module(home), name))
    }
    assert classes <= set(MEMBERS)


def test_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastsoftmax.__version__)
