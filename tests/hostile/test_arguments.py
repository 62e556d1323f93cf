"""Hostile arguments of every public function: the right answer, or an error that names one.

    pytest tests/hostile/test_arguments.py --hypothesis-profile=long

Also: nothing is written into an input, `out` stays as it was where a call fails, no other
exception, and never a warning.
"""

import re
import subprocess
import sys
import warnings

import hostile_arguments as hostile
import numpy as np
import pytest
from hostile_arguments import DOUBTFUL, FORBIDDEN, LEGAL, laid, numbers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fastsoftmax as fs
from fastsoftmax import SoftmaxObjective, reference

PHASES = [Phase.explicit, Phase.generate, Phase.shrink]
LONG = settings.get_current_profile_name() == "long"


def examples(count):
    """So many examples, always the same ones; in the profile `long` that profile's number."""
    if LONG:
        return settings.get_profile("long")
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=PHASES,
    )  # fmt: skip


# Each type of dense features is another kernel to compile.
FEATURES = hostile.COMPUTED + (hostile.CONVERTED if LONG else ("f2", "?"))
OPTIONS = ("sample_weight", "class_weight", "label_smoothing", "ignore_index", "lse_square_scale",
           "reduction")  # fmt: skip


def arrays_of(value):
    """The arrays inside an argument."""
    if isinstance(value, hostile.WithArray):
        value = value.array
    if hasattr(value, "indptr"):
        return [value.data, value.indices, value.indptr]
    if isinstance(value, (tuple, list)):
        return [a for part in value for a in arrays_of(part)] if len(value) < 4 else []
    return [value] if isinstance(value, np.ndarray) and value.dtype.kind != "O" else []


def names_one(message, names):
    """Whether a message names an argument; one letter may as well be a word, but for a colon."""
    patterns = [f"{name}:" if len(name) == 1 else name for name in names]
    return re.search(rf"\b({'|'.join(patterns)})", message) is not None


def outcome(names, function, *arguments, unchanged=True, known=None, **options):
    """The result or None after an error, which must name one of ``names``; inputs are checked."""
    given = [a for value in (*arguments, *options.values()) for a in arrays_of(value)]
    before = [a.tobytes() for a in given]
    result = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = function(*arguments, **options)
    except (TypeError, ValueError) as error:
        assert names_one(str(error), names) or str(error) == known, (
            f"{type(error).__name__} names no argument: {error}"
        )
        unchanged = True
    if unchanged:
        assert [a.tobytes() for a in given] == before, "an argument was written to"
    return result


def agree(got, want, eps):
    """The same shape, the same places of NaN and infinities, and close values."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    if want.dtype.kind == "O":
        got, want = got.astype(complex), want.astype(complex)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    infinite = np.isinf(want)
    np.testing.assert_array_equal(got[infinite], want[infinite])
    finite = np.isfinite(want)
    scale = 1 + np.abs(want[finite]).max(initial=0)
    assert (np.abs(got[finite] - want[finite]) <= 200 * eps * scale).all()


def eps_of(dtype):
    return float(np.finfo(dtype).eps) if np.dtype(dtype).kind in "fc" else 1e-7


def complaint(function, *arguments, **options):
    """NumPy's own message, which the row functions let through: see the test marked xfail."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*arguments, **options)
    except Exception as error:
        return str(error)


def silently(function, *arguments, **options):
    """The reference's answer; None where it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments, **options)
    except Exception:
        return None


# --- rows -----------------------------------------------------------------------------------------


@st.composite
def row_calls(draw):
    dtype = draw(st.sampled_from(hostile.COMPUTED + hostile.CONVERTED + hostile.REFUSED))
    shape = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 17]), max_size=4))
    specials = (np.nan, np.inf, -np.inf, 1e30, -6e4)
    x = numbers(draw, shape, dtype, specials)
    ndim = len(shape)
    axis = draw(
        st.one_of(
            st.none(),
            st.integers(-ndim, max(ndim - 1, 0)),
            st.lists(st.integers(-ndim - 1, ndim), max_size=3).map(tuple),
            # Other things than integers have a test of their own below.
            st.sampled_from([99, -99, np.int64(0)]),
        )
    )
    return x, laid(draw, x), axis


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@examples(150)
@given(st.data())
def test_softmax(name, data):
    draw = data.draw
    x, given, axis = draw(row_calls())
    want = silently(getattr(reference, name), x, axis)
    options = {}
    kind = draw(st.sampled_from(["none", "none", "fresh", "itself", "overlapping", "wrong"]))
    legal = want is not None
    if kind == "fresh" and legal:
        options["out"] = laid(
            draw, np.full(x.shape, 7, np.asarray(want).dtype), ["C", "F", "step", "reverse",
                                                               "unaligned"],
        )  # fmt: skip
    elif kind == "itself" and isinstance(given, np.ndarray):
        options["out"] = given
    elif kind == "overlapping" and isinstance(given, np.ndarray) and given.ndim and len(given) > 1:
        options["out"] = given[::-1]
    elif kind == "wrong":
        options["out"] = draw(
            st.one_of(hostile.NOT_ARRAYS.filter(lambda v: v is not None),
                      st.sampled_from([np.zeros(3, "f2"), np.zeros((2, 2), "i8")]))
        )  # fmt: skip
    result = outcome(
        ["x", "axis", "out"],
        getattr(fs, name),
        given,
        axis,
        **options,
        unchanged=not options,
        known=complaint(getattr(reference, name), given, axis),
    )
    if result is None:
        assert not (legal and kind in ("none", "fresh")) or not is_plain(x), "a legal call fails"
        return
    assert "out" not in options or result is options["out"]
    assert legal, "an answer where the reference has none"
    agree(result, want, max(eps_of(np.asarray(want).dtype), eps_of(np.asarray(result).dtype)))


def is_plain(x):
    return x.dtype.kind in "fiub" and x.dtype.char != "g"


@examples(150)
@given(st.data())
def test_logsumexp(data):
    draw = data.draw
    a, given, axis = draw(row_calls())
    options = {}
    if draw(st.booleans()):
        options["keepdims"] = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0:
        options["return_sign"] = True
    b = None
    if draw(st.integers(0, 3)) == 0:
        b = draw(
            st.one_of(
                hostile.NOT_ARRAYS,
                st.just(None).map(lambda _: numbers(draw, a.shape, "f8", (np.nan, 0, -1))),
                st.just(np.ones(4)),
            )
        )
    want = silently(reference.logsumexp, a, axis, b, **options)
    known = complaint(reference.logsumexp, given, axis, b, **options)
    result = outcome(["a", "axis", "b"], fs.logsumexp, given, axis, b, **options, known=known)
    if result is None:
        assert want is None or not is_plain(a), "a legal call fails"
        return
    assert want is not None, "an answer where the reference has none"
    results, wants = (result, want) if isinstance(want, tuple) else ((result,), (want,))
    for got, right in zip(results, wants, strict=True):
        agree(got, right, eps_of(np.asarray(right).dtype))


# --- losses ---------------------------------------------------------------------------------------


class Call:
    """Arguments, their plain values for the reference, and whether they are legal."""

    def __init__(self, draw):
        self.draw, self.state, self.plain, self.given = draw, LEGAL, {}, {}

    def add(self, name, plain, given, state=LEGAL):
        self.plain[name], self.given[name] = plain, given
        self.state = max(self.state, state)

    def sometimes(self, one_in):
        return self.draw(st.integers(0, one_in - 1)) == 0

    def real(self, name, shape, kinds, specials=(), layouts=None):
        """An array argument: mostly right, at times of a wrong shape, dtype or no array."""
        draw = self.draw
        trouble = draw(st.integers(0, 14))
        if trouble == 0:
            bad = draw(hostile.NOT_ARRAYS)
            if name in ("bias", "sample_weight", "class_weight") and bad is None:
                return self.add(name, None, None)
            return self.add(name, None, bad, DOUBTFUL)
        if trouble == 1:
            dtype = draw(st.sampled_from(hostile.REFUSED))
            array = numbers(draw, shape, dtype)
            return self.add(name, array, laid(draw, array), DOUBTFUL)
        if trouble == 2:
            shape = draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3).map(tuple))
            array = numbers(draw, shape, "f4")
            return self.add(name, array, laid(draw, array), DOUBTFUL)
        array = numbers(draw, shape, draw(st.sampled_from(kinds)), specials)
        return self.add(name, array, laid(draw, array, layouts))

    def scalar(self, name, values, wrong):
        if self.sometimes(6):
            bad = self.draw(wrong)
            return self.add(name, bad, bad, DOUBTFUL)
        value = self.draw(st.sampled_from(values))
        return self.add(name, value, value)

    def labels(self, n, k):
        """y: labels or target rows, at times out of range or of a wrong kind."""
        draw = self.draw
        kind = draw(st.sampled_from(["labels"] * 6 + ["rows"] * 2 + ["range", "kind", "shape"]))
        rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
        y = rng.integers(0, k, n)
        if kind == "labels":
            y = y.astype(draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])))
            return self.add("y", y.astype(np.int64), laid(draw, y))
        if kind == "rows":
            y = (rng.integers(0, 5, (n, k)) / 4).astype(draw(st.sampled_from(["f4", "f8", "f2"])))
            if self.sometimes(4) and y.size:
                y.flat[-1] = draw(st.sampled_from([-1, np.nan, np.inf]))
                return self.add("y", y, laid(draw, y), FORBIDDEN)
            return self.add("y", y, laid(draw, y))
        if kind == "range" and n:
            wrong = draw(st.sampled_from([-1, k, -(2**63), 2**63 - 1, 2**31, 2**32, -100]))
            y[rng.integers(n)] = wrong
            return self.add("y", y, laid(draw, y), FORBIDDEN)
        if kind == "kind":
            bad = draw(
                st.one_of(
                    hostile.NOT_ARRAYS,
                    st.sampled_from([y.astype(float), y.astype(str), y.astype(complex),
                                     y.astype(object), y.astype("M8[s]"), y[:, None] + 0.0,
                                     y.astype("u8") + np.uint64(2**63)]),
                )
            )  # fmt: skip
            return self.add("y", None, bad, DOUBTFUL)
        shape = draw(st.sampled_from([(n + 1,), (n, k + 1), (n, 1), (), (1, n), (n, k, 1)]))
        y = np.zeros(shape, draw(st.sampled_from(["i8", "f8"])))
        return self.add("y", None, y, DOUBTFUL)

    def options(self, n, k, reductions):
        """Each option of the losses at times."""
        draw = self.draw
        for name, length in (("sample_weight", n), ("class_weight", k)):
            if self.sometimes(4):
                self.real(name, (length,), ("f4", "f8", "?", "u1", "i4", "f2"))
                array = self.plain[name]
                if array is not None and array.dtype.kind in "iufb":
                    if array.shape == (length,) and not self.sometimes(5):
                        magnitudes = np.abs(array)
                        self.plain[name] = magnitudes
                        self.given[name] = laid(draw, magnitudes)
                    elif not (array >= 0).all():
                        self.state = FORBIDDEN
        if self.sometimes(4):
            self.scalar("label_smoothing", [0.0, 0.1, 1.0, 1, np.float32(0.25)],
                        st.one_of(hostile.NOT_NUMBERS, st.just(1.5)))  # fmt: skip
        if self.sometimes(4):
            self.scalar("lse_square_scale", [0.0, 0.01, np.float32(0.25)], hostile.NOT_NUMBERS)
        if self.sometimes(5):
            self.scalar("ignore_index", [None, 0, k - 1, -100, np.int8(-1)], hostile.NOT_INTEGERS)
        self.scalar(
            "reduction",
            reductions,
            st.sampled_from(["none", "max", None, 3, "", b"mean", ["mean"]]),
        )


def check(call, function, names, eps_like):
    """Make the call; an answer must be the reference's, a legal call must have one."""
    positional = [n for n in ("logits", "X", "W", "y") if n in call.given]
    options = {n: v for n, v in call.given.items() if n not in positional}
    with_out = "out" in options
    before = options["out"].copy() if with_out and isinstance(options["out"], np.ndarray) else None
    result = outcome(
        names,
        getattr(fs, function),
        *(call.given[n] for n in positional),
        **options,
        unchanged=not with_out,
    )
    plain = {n: v for n, v in call.plain.items() if n not in positional and n != "out"}
    arguments = [call.plain[n] for n in positional]
    want = None
    if all(a is not None for a in arguments) and call.state != FORBIDDEN:
        want = silently(getattr(reference, function), *arguments, **plain)
    if result is None:
        if before is not None:
            np.testing.assert_array_equal(options["out"], before)
        assert want is None or call.state != LEGAL or is_degenerate(call), "a legal call fails"
        return
    assert call.state != FORBIDDEN, "an answer to what is forbidden"
    if call.state == LEGAL:
        assert want is not None, "an answer where the reference has none"
    if want is None:
        return
    for got, right in zip(flat(result), flat(want), strict=True):
        assert (got is None) == (right is None)
        if got is not None:
            agree(got, right, eps_like)


def flat(result):
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in flat(part)]
    return [result]


def is_degenerate(call):
    """No rows or features, a mean over nothing, options that exclude each other."""
    first = call.plain.get("X", call.plain.get("logits"))
    y, ignored = call.plain.get("y"), call.plain.get("ignore_index")
    return (
        0 in np.shape(first)
        or (np.ndim(y) == 2 and ignored is not None)
        or call.plain.get("reduction") == "none"
    )


def computed_eps(array):
    dtype = getattr(array, "dtype", np.dtype("f4"))
    small = dtype.kind in "b" or dtype.itemsize <= 2 or dtype.newbyteorder("=") == np.float32
    return 1.2e-7 if small else 2.3e-16


LOGITS = ["logits", "y", "out", *OPTIONS]


@pytest.mark.parametrize("function", ["cross_entropy", "cross_entropy_value_and_grad"])
@examples(150)
@given(st.data())
def test_cross_entropy(function, data):
    call = Call(data.draw)
    n = data.draw(st.sampled_from([0, 1, 2, 3, 17]))
    k = data.draw(st.sampled_from([2, 3, 5, 8, 33]))
    gradient = function.endswith("grad")
    call.real("logits", (n, k), hostile.COMPUTED + hostile.CONVERTED, (1e4, -1e4))
    call.labels(n, k)
    call.options(n, k, ["mean", "sum"] if gradient else ["mean", "sum", "none"])
    Z = call.given["logits"]
    if gradient and call.sometimes(3) and isinstance(Z, np.ndarray) and Z.dtype.kind != "O":
        kind = data.draw(st.sampled_from(["fresh", "itself", "overlapping", "wrong"]))
        dtype = np.dtype("f4" if computed_eps(Z) > 1e-10 else "f8")
        if kind == "fresh":
            call.given["out"] = np.full(Z.shape, 7, dtype)
        elif kind == "itself":
            call.given["out"] = Z
            call.state = max(call.state, DOUBTFUL)
        elif kind == "overlapping" and Z.ndim and len(Z) > 1:
            call.given["out"] = Z[::-1]
            call.state = max(call.state, DOUBTFUL)
        elif kind == "wrong":
            call.given["out"] = data.draw(st.sampled_from([[1.0], 3, np.zeros((n, k + 1), "f4"),
                                                           np.zeros((n, k), "i8")]))  # fmt: skip
            call.state = FORBIDDEN
    check(call, function, LOGITS, computed_eps(call.plain["logits"]))


LINEAR = ["X", "W", "y", "bias", "l2", "input_grad", *OPTIONS]


def hostile_csr(draw, X):
    """A CSR matrix or array of X's values; at times a corrupt one, or another format."""
    from scipy import sparse

    matrix = draw(st.sampled_from([sparse.csr_matrix, sparse.csr_array]))(X)
    trouble = draw(st.integers(0, 9))
    if trouble == 0:
        return matrix.asformat(draw(st.sampled_from(["csc", "coo", "lil", "dok", "bsr"]))), DOUBTFUL
    if trouble == 1 and matrix.nnz:
        matrix.indices[-1] = draw(st.sampled_from([-1, X.shape[1], 2**31 - 1, -(2**31)]))
        return matrix, FORBIDDEN
    if trouble == 2:
        matrix.indptr = matrix.indptr.astype(np.int64)
        wrong = draw(st.sampled_from([-1, 2**63 - 1, matrix.nnz + 1, -(2**63)]))
        matrix.indptr[draw(st.integers(0, len(X)))] = wrong
        right = np.diff(matrix.indptr.astype(object)).min(initial=0) >= 0
        return matrix, DOUBTFUL if right and 0 <= wrong <= matrix.nnz else FORBIDDEN
    if trouble == 3:
        matrix.data = matrix.data[:-1]
        return matrix, FORBIDDEN if matrix.nnz else LEGAL
    if trouble == 4:
        matrix.indices = matrix.indices.astype(np.int64)
        matrix.indptr = matrix.indptr.astype(np.int64)
    if trouble == 5:
        matrix.data = matrix.data.astype(matrix.dtype.newbyteorder())
    return matrix, LEGAL


def features(call, n, width):
    """X, dense or sparse."""
    if call.sometimes(4):
        X = numbers(call.draw, (n, width), call.draw(st.sampled_from(hostile.COMPUTED)))
        given, state = hostile_csr(call.draw, X)
        call.add("X", X, given, state)
    else:
        call.real("X", (n, width), FEATURES, (1e4, -1e4))


def linear_model(call):
    """X and W; returns the numbers of rows and of classes."""
    n = call.draw(st.sampled_from([0, 1, 2, 3, 17]))
    width = call.draw(st.sampled_from([0, 1, 2, 5, 8, 33]))
    k = call.draw(st.sampled_from([2, 3, 5, 17]))
    features(call, n, width)
    call.real("W", (k, width), hostile.COMPUTED + hostile.CONVERTED)
    return n, k


@pytest.mark.parametrize(
    "function", ["linear_cross_entropy", "linear_cross_entropy_value_and_grad"]
)
@examples(150)
@given(st.data())
def test_linear_cross_entropy(function, data):
    call = Call(data.draw)
    n, k = linear_model(call)
    gradient = function.endswith("grad")
    call.labels(n, k)
    call.options(n, k, ["mean", "sum"] if gradient else ["mean", "sum", "none"])
    if call.sometimes(3):
        call.real("bias", (k,), hostile.COMPUTED + hostile.CONVERTED)
    if call.sometimes(3):
        call.scalar("l2", [0.0, 0.1, 1], hostile.NOT_NUMBERS)
    if gradient and call.sometimes(2):
        call.scalar("input_grad", [False, True], st.sampled_from([np.True_, np.False_]))
    if call.plain.get("reduction") == "none" and call.plain.get("l2"):
        call.state = max(call.state, DOUBTFUL)
    check(call, function, LINEAR, computed_eps(call.plain["X"]))


@pytest.mark.parametrize("function", ["linear_softmax", "linear_log_softmax", "linear_argmax"])
@examples(100)
@given(st.data())
def test_scores(function, data):
    call = Call(data.draw)
    _, k = linear_model(call)
    if call.sometimes(3):
        call.real("bias", (k,), hostile.COMPUTED + hostile.CONVERTED)
    check(call, function, ["X", "W", "bias"], computed_eps(call.plain["X"]))


# --- the objective --------------------------------------------------------------------------------

OBJECTIVE = ["X", "y", "n_classes", "l2", "fit_intercept", "sample_weight", "class_weight",
             "label_smoothing", "source", "n_features", "w", "v", "W", "b"]  # fmt: skip


def is_no_count(n):
    """Huge numbers of classes have a test of their own below."""
    return not (isinstance(n, int) and n > 1 << 20)


@pytest.mark.parametrize("chunked", [False, True])
@examples(150)
@given(st.data())
def test_objective(chunked, data):
    draw = data.draw
    call = Call(draw)
    n, width = draw(st.sampled_from([0, 1, 2, 17])), draw(st.sampled_from([1, 2, 5, 17]))
    k = draw(st.sampled_from([2, 3, 5]))
    features(call, n, width)
    call.labels(n, k)
    call.options(n, k, ["mean"])
    for name in ("ignore_index", "lse_square_scale", "reduction"):
        call.given.pop(name, None)
        call.plain.pop(name, None)
    call.scalar("l2", [0.0, 0.1, 1], hostile.NOT_NUMBERS)
    call.scalar(
        "n_classes",
        [k],
        st.one_of(hostile.NOT_INTEGERS.filter(is_no_count), st.sampled_from([0, 1, -3, k + 1])),
    )
    call.scalar("fit_intercept", [True, False], st.sampled_from([np.True_, np.False_]))
    given = dict(call.given)
    X, y = given.pop("X"), given.pop("y")
    if chunked:
        weight = given.pop("sample_weight", None)
        chunk = (X, y) if weight is None else (X, y, weight)
        given["n_features"] = draw(st.sampled_from([width] * 8 + [0, -1, width + 1, "2", None]))
        source = draw(st.sampled_from([lambda: [chunk]] * 9 + [
            None, lambda: None, lambda: [], lambda: [chunk[:1]], lambda: [None], lambda: iter(()),
            [chunk]]))  # fmt: skip
        obj = outcome(OBJECTIVE, SoftmaxObjective.from_chunks, source, **given)
    else:
        obj = outcome(OBJECTIVE, SoftmaxObjective, X, y, **given)
    if obj is None:
        # Nothing tells a small label from a wrong one, nor is a mean over nothing one.
        assert call.state != LEGAL or n == 0 or chunked or not has_weight(call), (
            "legal, but refused"
        )
        return
    assert call.state != FORBIDDEN, "an objective of what is forbidden"
    name = draw(
        st.sampled_from(["__call__", "value", "hessp", "hess_diag", "hess", "unpack", "pack"])
    )
    method = getattr(obj, name)
    if name == "pack":
        W, b = Call(draw), Call(draw)
        W.real("W", (obj.n_classes, width), hostile.COMPUTED + hostile.CONVERTED)
        b.real("b", (obj.n_classes,), hostile.COMPUTED + hostile.CONVERTED)
        outcome(OBJECTIVE, method, W.given["W"], b.given["b"])
        return
    vector = Call(draw)
    vector.real("w", (obj.size,), hostile.COMPUTED + hostile.CONVERTED)
    arguments = [vector.given["w"]] + ([np.ones(obj.size)] if name == "hessp" else [])
    result = outcome(OBJECTIVE, method, *arguments)
    if result is None:
        assert vector.state != LEGAL, "a legal vector is refused"
        return
    if name not in ("__call__", "value") or call.state != LEGAL or vector.state != LEGAL:
        return
    W, b = obj.unpack(vector.plain["w"])
    options = {
        name: call.plain[name]
        for name in ("sample_weight", "class_weight", "label_smoothing", "l2")
        if call.plain.get(name) is not None
    }
    want = silently(
        reference.linear_cross_entropy_value_and_grad, call.plain["X"], W, call.plain["y"],
        bias=b, **options,
    )  # fmt: skip
    assert want is not None, "an answer where the reference has none"
    eps = computed_eps(call.plain["X"])
    agree(result if name == "value" else result[0], want[0], eps)
    if name == "__call__":
        agree(result[1], np.concatenate([a.ravel() for a in want[1] if a is not None]), eps)


def has_weight(call):
    """Whether a mean is over something."""
    s, w, y = call.plain.get("sample_weight"), call.plain.get("class_weight"), call.plain["y"]
    total = np.ones(len(y)) if s is None else s.astype(float)
    if w is not None and y.ndim == 1:
        total = total * w[y]
    return total.sum() > 0


# --- what does not hold yet -----------------------------------------------------------------------


@pytest.mark.parametrize("x", [[], ["text"], np.zeros(2, "M8[s]"), [None, 1.0]], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_errors_of_the_row_functions_name_the_argument(name, x):
    if name == "logsumexp":
        x = x if len(x) else ["text"]  # the logarithm of an empty sum is -inf
    with pytest.raises((TypeError, ValueError)) as error:
        getattr(fs, name)(x)
    assert names_one(str(error.value), ["x", "a"])


X, Y, W = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1]), np.ones((2, 3))


def masked(array):
    """The array with its first entry masked, which NumPy's functions would not see."""
    return np.ma.masked_array(array, np.arange(array.size).reshape(array.shape) == 0)


UNNAMED = {
    # argument: (why, the call)
    "l2 10^400": ("validate.as_strength", ["l2"],
                  lambda: fs.linear_cross_entropy(X, W, Y, l2=10**400)),
    "label_smoothing 10^400": ("validate.as_strength", ["label_smoothing"],
                               lambda: fs.cross_entropy(X, Y, label_smoothing=10**400)),
    "n_classes 2^62": ("objective.py", ["n_classes"],
                       lambda: SoftmaxObjective(X, Y, n_classes=2**62)),
    "axis 10^30": ("special.py", ["axis"], lambda: fs.softmax(X, 10**30)),
    "axis text": ("special.py", ["axis"], lambda: fs.softmax(X, "0")),
    "axis 1.5": ("special.py", ["axis"], lambda: fs.softmax(X, 1.5)),
    "axis list": ("special.py: the reference refuses it", ["axis"], lambda: fs.softmax(Y, [0])),
    "x of StringDType": ("special.py", ["x"],
                         lambda: fs.softmax(np.array(["a"], np.dtypes.StringDType()))),
    "reduction array": ("targets.make_targets", ["reduction"],
                        lambda: fs.cross_entropy(X, Y, reduction=np.array(["mean", "sum"]))),
    "warmup of None": ("_warmup.py", ["dtypes"], lambda: fs.warmup(None)),
    "warmup of text": ("_warmup.py", ["dtypes"], lambda: fs.warmup(("S3",))),
    "fit_intercept text": ("problem.py", ["fit_intercept"],
                           lambda: SoftmaxObjective(X, Y, fit_intercept="no")),
    "input_grad text": ("functional.py", ["input_grad"],
                        lambda: fs.linear_cross_entropy_value_and_grad(X, W, Y, input_grad="no")),
    "l2 text": ("validate.as_strength", ["l2"],
                lambda: fs.linear_cross_entropy(X, W, Y, l2="0.5")),
    "out overlaps itself": (
        "validate.check_out: rows of out share memory, and the last one is what remains", ["out"],
        lambda: fs.softmax(np.eye(2), 1, out=np.lib.stride_tricks.as_strided(np.zeros(2), (2, 2),
                                                                              (0, 8)))),
    "masked X": ("validate._converted", ["X"], lambda: fs.linear_cross_entropy(masked(X), W, Y)),
    "masked W": ("validate._converted", ["W"], lambda: fs.linear_softmax(X, masked(W))),
    "masked y": ("validate._converted", ["y"], lambda: SoftmaxObjective(X, masked(Y))),
    "masked weights": ("validate._converted", ["sample_weight"],
                       lambda: fs.cross_entropy(X, Y, sample_weight=masked(np.ones(4)))),
}  # fmt: skip


@pytest.mark.parametrize("case", UNNAMED)
def test_these_are_refused_by_name(case):
    _, names, function = UNNAMED[case]
    with pytest.raises((TypeError, ValueError)) as error:
        function()
    assert names_one(str(error.value), names)


WARNING = {
    "target rows": lambda: fs.cross_entropy(X, np.full((4, 3), 1e39)),
    "W": lambda: fs.linear_cross_entropy(X, W * 1e300, Y),
    "bias": lambda: fs.linear_cross_entropy(X, W, Y, bias=[1e300, 0]),
    "w": lambda: SoftmaxObjective(X, Y).value(np.full(8, 1e300)),
}


@pytest.mark.parametrize("case", WARNING)
def test_no_warning_where_a_float32_overflows(case):
    try:
        WARNING[case]()
    except (TypeError, ValueError) as error:
        assert names_one(str(error), [*LINEAR, "w"])


INDPTR = """
import numpy as np, fastsoftmax as fs
from scipy.sparse import csr_array
X = csr_array(np.ones((4, 3)))
X.indptr = np.array([0, 2**63 - 1, -(2**63), -1, 12])
try:
    fs.linear_cross_entropy(X, np.ones((2, 3)), np.zeros(4, int))
except ValueError as error:
    assert str(error).startswith("X: ")
else:
    raise AssertionError("accepted")
"""


def test_row_pointers_that_wrap_around_are_refused():
    code = subprocess.run([sys.executable, "-c", INDPTR], capture_output=True, check=False)
    assert code.returncode == 0, code.stderr


MIXED = """
import numpy as np
from fastsoftmax.linear_model import SoftmaxRegression
rng = np.random.default_rng(0)
X, y = rng.standard_normal((33, 33)), np.arange(33) % 5
weight = rng.uniform(0.1, 2, 33)
coefs = []
for dtype in (np.float64, np.float32):
    model = SoftmaxRegression(random_state=0)
    model.partial_fit(X, y, classes=np.arange(5), sample_weight=weight)
    model.partial_fit(X.astype(dtype), y, sample_weight=weight)
    coefs.append(model.coef_)
np.testing.assert_allclose(*coefs, atol=1e-4)
"""


def test_partial_fit_takes_batches_of_either_precision():
    code = subprocess.run([sys.executable, "-c", MIXED], capture_output=True, check=False)
    assert code.returncode == 0, code.stderr
