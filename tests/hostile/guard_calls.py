"""Random calls of every kernel, each array beside a page that may not be touched.

    python tests/hostile/guard_calls.py --calls 1000000 --target host

Every result is compared with `fastsoftmax.reference` in float64. Call number i depends on the seed
and i alone: `--first i --calls 1` makes it again. A child process makes the calls; when a fault
ends it, another one goes on behind the call that faulted. Half of the calls are made alone, the
other half on a team of threads however small they are. Prints calls and faults.
"""

import argparse
import ctypes
import faulthandler
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent / "helpers")]

TARGETS = {
    "host": {},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"},
    "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
}
TOLERANCES = {np.dtype(np.float16): 4e-3, np.dtype(np.float32): 3e-4, np.dtype(np.float64): 1e-10}
FEATURE_TYPES = "efdbBhHilqQ?"
LAYOUTS = ("C", "C", "F", "step", "reverse", "swapped", "unaligned", "read-only", "padded")


class Drawn:
    """What one call is made of: a source of random numbers and the precision."""

    def __init__(self, seed, number, dtypes, everything):
        self.rng = np.random.default_rng([seed, number])
        self.dtypes, self.everything = dtypes, everything

    def chance(self, p):
        return self.rng.random() < p

    def choice(self, values):
        return values[int(self.rng.integers(len(values)))]

    def dtype(self):
        """Mostly what is computed in; with `everything` also what is converted."""
        if self.everything and self.chance(0.15):
            return np.dtype(self.choice(FEATURE_TYPES))
        return np.dtype(self.choice(self.dtypes))

    def size(self, limit):
        """A length near a border of lanes, tiles or blocks."""
        near = [n for n in (1, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)]
        n = self.choice(near) + int(self.rng.integers(-1, 2))
        if self.chance(0.4):
            n = int(self.rng.integers(1, 40))
        return max(1, min(n, limit))

    def shape(self, elements, ndim):
        """``ndim`` lengths in random order whose product is at most about ``elements``."""
        sizes = []
        for _ in range(ndim):
            sizes.append(self.size(max(elements, 1)))
            elements //= sizes[-1]
        return tuple(int(n) for n in self.rng.permutation(sizes))

    def values(self, shape, dtype, scale=1.0):
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            return self.rng.random(shape) < 0.5
        if dtype.kind in "iu":
            return self.rng.integers(0 if dtype.kind == "u" else -3, 4, shape).astype(dtype)
        return (scale * self.rng.standard_normal(shape)).astype(dtype)

    def laid(self, array, layouts=LAYOUTS):
        """The same values somewhere else in a random layout; its ends are those of memory."""
        layout = self.choice(layouts)
        if layout == "F":
            return np.array(array, order="F")
        if layout == "step" and array.ndim:
            wide = np.empty((*array.shape[:-1], max(2 * array.shape[-1] - 1, 0)), array.dtype)
            wide[..., ::2] = array
            return wide[..., ::2]
        if layout == "reverse" and array.ndim:
            return np.array(array[::-1])[::-1]
        if layout == "swapped":
            return array.astype(array.dtype.newbyteorder())
        if layout == "unaligned":
            raw = np.empty(array.nbytes + 1, np.uint8)[1:]
            moved = raw.view(array.dtype).reshape(array.shape)
            moved[...] = array
            return moved
        if layout == "padded" and array.ndim == 2 and array.size:
            n, d = array.shape
            stride = d + int(self.rng.integers(1, 9))
            flat = np.empty((n - 1) * stride + d, array.dtype)
            strides = (stride * array.itemsize, array.itemsize)
            padded = np.lib.stride_tricks.as_strided(flat, (n, d), strides)
            padded[...] = array
            return padded
        copy = np.array(array)
        copy.flags.writeable = layout != "read-only"
        return copy

    def labels(self, n, k):
        y = self.rng.integers(0, k, n)
        fitting = [t for t in "bBhHilqQ" if k <= np.iinfo(t).max]
        return self.laid(y.astype(self.choice(fitting if self.everything else "ql")))

    def targets(self, n, k, dtype):
        if self.chance(0.75):
            return self.labels(n, k)
        y = self.rng.random((n, k))
        return self.laid((y / y.sum(axis=1, keepdims=True)).astype(dtype))

    def weights(self, n, dtype):
        s = self.rng.uniform(0.1, 2, n)
        s[self.rng.random(n) < 0.1] = 0
        return self.laid(s.astype(dtype if self.chance(0.7) else np.float64))

    def options(self, y, n, k, dtype, reductions=("mean", "sum")):
        options = {"reduction": self.choice(reductions)}
        if self.chance(0.3):
            options["sample_weight"] = self.weights(n, dtype)
        if self.chance(0.3):
            options["class_weight"] = self.laid(self.rng.uniform(0.1, 2, k).astype(dtype))
        if self.chance(0.3):
            options["label_smoothing"] = self.choice([0.1, 1.0])
        if self.chance(0.2):
            options["lse_square_scale"] = 0.01
        if y.ndim == 1 and self.chance(0.2):
            options["ignore_index"] = self.choice([0, k - 1, -100])
        return options


def wide(value):
    """The same in native float64 (labels in int64), for the reference."""
    if hasattr(value, "toarray"):
        return value.toarray().astype(np.float64)
    if not isinstance(value, np.ndarray):
        return value
    return value.astype(np.int64 if value.dtype.kind in "iu" and value.ndim == 1 else np.float64)


def computed(dtype):
    """float32 or float64."""
    dtype = np.dtype(dtype)
    small = dtype.kind in "iub" and dtype.itemsize <= 2
    return np.dtype(np.float32 if small or dtype.newbyteorder("=").char in "ef" else np.float64)


def compare(got, want, dtype, what):
    """Shapes, places of NaN and infinities, and values to a loose tolerance."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape} instead of {want.shape}"
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=what)
    got, want = got[finite].astype(np.float64), want[finite].astype(np.float64)
    if want.size:
        worst = np.abs(got - want).max() / max(1.0, np.abs(want).max())
        bound = TOLERANCES[np.dtype(dtype).newbyteorder("=")]
        assert worst <= bound, f"{what}: off by {worst}"


def expected(function, *arguments, **options):
    """The reference's answer, None for a mean over nothing."""
    arguments = [wide(a) for a in arguments]
    try:
        return function(*arguments, **{name: wide(value) for name, value in options.items()})
    except ValueError as error:
        assert "mean over nothing" in str(error)
        return None


def refuses(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except ValueError as error:
        assert "reduction" in str(error)
    else:
        raise AssertionError("a mean over nothing")


def call_rows(d, fs):
    """softmax, log_softmax and logsumexp along any axes."""
    dtype = d.dtype()
    limit = 40_000 if d.chance(0.05) else 3000
    shape = d.shape(limit, d.choice([1, 2, 2, 2, 3, 4]))
    x = d.values(shape, dtype, 3.0)
    if dtype.kind == "f" and d.chance(0.1):
        for special in (-np.inf, np.inf, np.nan)[: 1 + int(d.rng.integers(3))]:
            x[d.rng.random(shape) < 0.02] = special
    kind = d.choice(["one", "one", "one", "all", "two"])
    axis = int(d.rng.integers(-len(shape), len(shape)))
    if kind == "all":
        axis = None
    elif kind == "two" and len(shape) > 1:
        axis = tuple(int(a) for a in d.rng.permutation(len(shape))[:2])
    x = d.laid(x)
    name = d.choice(["softmax", "log_softmax", "logsumexp"])
    what = f"{name} {dtype} {shape} axis {axis}"
    if name == "logsumexp":
        keepdims = d.chance(0.3)
        got = fs.logsumexp(x, axis, keepdims=keepdims)
        want = fs.reference.logsumexp(wide2(x), axis, keepdims=keepdims)
        compare(got, want, computed(dtype) if dtype.char != "e" else dtype, what)
        return
    options = {}
    if dtype.kind == "f" and d.chance(0.3):
        if x.flags.writeable and x.dtype.isnative and d.chance(0.5):
            options["out"] = x
        else:
            out = d.laid(np.empty(shape, dtype), ("C", "F", "step", "reverse", "unaligned"))
            options["out"] = out
    want = getattr(fs.reference, name)(wide2(x), axis)
    got = getattr(fs, name)(x, axis, **options)
    assert "out" not in options or got is options["out"]
    compare(got, want, got.dtype, what)


def wide2(x):
    return x.astype(np.float64)


def call_logits(d, fs):
    """cross_entropy and its gradient."""
    dtype = d.dtype()
    n, k = d.shape(40_000 if d.chance(0.05) else 4000, 2)
    k = max(k, 2)
    Z = d.values((n, k), dtype, 2.0)
    y = d.targets(n, k, computed(dtype))
    if dtype.kind == "f" and y.ndim == 1 and d.chance(0.1):
        Z[(d.rng.random((n, k)) < 0.1) & (np.arange(k) != y[:, None])] = -np.inf
    Z = d.laid(Z)
    gradient = d.chance(0.6)
    options = d.options(y, n, k, computed(dtype), ("mean", "sum") + ("none",) * (not gradient))
    if not np.isfinite(wide2(Z)).all():
        # Smoothing wants every logit to be finite, and so does a weighted floor.
        options.pop("label_smoothing", None)
        options.pop("ignore_index", None)
    what = f"cross_entropy {dtype} {(n, k)} {sorted(options)}"
    if not gradient:
        want = expected(fs.reference.cross_entropy, Z, y, **options)
        if want is None:
            return refuses(fs.cross_entropy, Z, y, **options)
        compare(fs.cross_entropy(Z, y, **options), want, computed(dtype), what)
        return None
    want = expected(fs.reference.cross_entropy_value_and_grad, Z, y, **options)
    if want is None:
        return refuses(fs.cross_entropy_value_and_grad, Z, y, **options)
    native = Z.dtype.isnative and Z.dtype == computed(dtype)
    if d.chance(0.2) and native and Z.flags.writeable and Z.flags.c_contiguous:
        options["out"] = Z
    elif d.chance(0.2):
        options["out"] = d.laid(np.empty((n, k), computed(dtype)), ("C", "unaligned"))
    loss, grad = fs.cross_entropy_value_and_grad(Z, y, **options)
    compare(loss, want[0], computed(dtype), what)
    compare(grad, want[1], computed(dtype), what + " gradient")
    return None


def features(d, n, width, sparse=None):
    """Dense or CSR features."""
    from scipy.sparse import csr_array, csr_matrix

    dtype = d.dtype()
    X = d.values((n, width), dtype)
    if not (d.chance(0.35) if sparse is None else sparse):
        return d.laid(X), computed(dtype)
    if dtype.char == "e":
        X = X.astype(np.float32)  # SciPy has no CSR of float16
    X[d.rng.random((n, width)) < d.choice([0.3, 0.8, 1.0])] = 0
    matrix = d.choice([csr_array, csr_matrix])(X)
    index = d.choice([np.int32, np.int64])
    indices, data = matrix.indices.astype(index), matrix.data
    if d.chance(0.3) and matrix.nnz:  # unsorted, and duplicates, which add
        for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
            order = a + d.rng.permutation(b - a)
            indices[a:b], data[a:b] = indices[order], data[order]
            if b - a > 1 and d.chance(0.3):
                indices[a] = indices[b - 1]
    fresh = type(matrix)((n, width), dtype=X.dtype)
    fresh.data, fresh.indices = np.array(data), np.array(indices)
    fresh.indptr = matrix.indptr.astype(index)
    return fresh, computed(dtype)


def problem(d):
    """X, W, y and the bias of a linear problem, and the compute dtype."""
    big = d.chance(0.03)
    n, width, k = d.shape(300_000 if big else 12_000, 3)
    if d.chance(0.5):
        k = int(d.rng.integers(2, 20))
    k = min(max(k, 2), 1100)
    X, dtype = features(d, n, width)
    W = d.laid((d.rng.standard_normal((k, width)) / np.sqrt(width)).astype(dtype))
    bias = d.laid(d.values(k, dtype)) if d.chance(0.5) else None
    return X, W, d.targets(n, k, dtype), bias, dtype


def call_linear(d, fs):
    """linear_cross_entropy and its gradients."""
    X, W, y, bias, dtype = problem(d)
    n, k = X.shape[0], len(W)
    what = f"linear {type(X).__name__} {X.dtype} {(*X.shape, k)}"
    gradient = d.chance(0.7)
    options = d.options(y, n, k, dtype, ("mean", "sum") + ("none",) * (not gradient))
    if d.chance(0.3) and options["reduction"] != "none":
        options["l2"] = 0.1
    options["bias"] = bias
    what += f" {sorted(options)}"
    if not gradient:
        want = expected(fs.reference.linear_cross_entropy, X, W, y, **options)
        if want is None:
            return refuses(fs.linear_cross_entropy, X, W, y, **options)
        compare(fs.linear_cross_entropy(X, W, y, **options), want, dtype, what)
        return None
    options["input_grad"] = d.chance(0.4)
    want = expected(fs.reference.linear_cross_entropy_value_and_grad, X, W, y, **options)
    if want is None:
        return refuses(fs.linear_cross_entropy_value_and_grad, X, W, y, **options)
    loss, grads = fs.linear_cross_entropy_value_and_grad(X, W, y, **options)
    compare(loss, want[0], dtype, what)
    for name, got, right in zip(grads._fields, grads, want[1], strict=True):
        assert (got is None) == (right is None)
        if got is not None:
            compare(got, right, dtype, f"{what}: {name}")
    return None


def hessian_product(X, W, b, V, c, options, y):
    """H·(V, c) by the formula of the design, and the diagonal, without the penalty."""
    k = len(W)
    t = np.eye(k)[y] if y.ndim == 1 else y
    e = options.get("label_smoothing", 0.0)
    t = options.get("class_weight", np.ones(k)) * ((1 - e) * t + e / k)
    s = options.get("sample_weight", np.ones(len(X)))
    counted = s if y.ndim == 2 else s * options.get("class_weight", np.ones(k))[y]
    Z = X @ W.T + b
    P = np.exp(Z - Z.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    scale = (s * t.sum(axis=1) / counted.sum())[:, None]
    u = X @ V.T + c
    R = scale * P * (u - (P * u).sum(axis=1, keepdims=True))
    Q = scale * P * (1 - P)
    return (R.T @ X, R.sum(axis=0)), (Q.T @ (X * X), Q.sum(axis=0))


def call_objective(d, fs):
    """SoftmaxObjective, also of chunks: value, gradient, Hessian."""
    X, W, y, bias, dtype = problem(d)
    n, k = X.shape[0], len(W)
    options = d.options(y, n, k, dtype, ("mean",))
    for name in ("reduction", "ignore_index", "lse_square_scale"):
        options.pop(name, None)
    prepared = dict(options, l2=0.05, fit_intercept=bias is not None)
    weight = options.get("sample_weight")
    if weight is not None and not weight.any():
        return
    if d.chance(0.4):
        cuts = np.sort(d.rng.integers(0, n + 1, int(d.rng.integers(0, 6))))
        del prepared["sample_weight" if weight is not None else "l2"]
        prepared["l2"] = 0.05
        kinds = (X, y) if weight is None else (X, y, weight)

        def source(X=X, y=y, weight=weight, kinds=kinds):
            for a, b in zip([0, *cuts], [*cuts, n], strict=True):
                parts = (X[a:b], y[a:b]) + (() if weight is None else (weight[a:b],))
                # SciPy's empty slices forget their dtype.
                yield tuple(p.astype(whole.dtype) for p, whole in zip(parts, kinds, strict=False))

        obj = fs.SoftmaxObjective.from_chunks(
            source, n_features=X.shape[1], n_classes=k, **prepared
        )
    else:
        obj = fs.SoftmaxObjective(X, y, n_classes=k, **prepared)
    w = np.array(obj.pack(W, bias))
    what = f"objective {type(X).__name__} {X.dtype} {(*X.shape, k)} {sorted(options)}"
    X, W, y = wide(X), wide(W), wide(y)
    options = {name: wide(value) for name, value in options.items()}
    b = None if bias is None else wide(bias)
    if d.chance(0.6):
        want, grads = fs.reference.linear_cross_entropy_value_and_grad(
            X, W, y, bias=b, l2=0.05, **options
        )
        if d.chance(0.3):
            compare(obj.value(d.laid(w)), want, dtype, what)
            return
        loss, flat = obj(d.laid(w))
        compare(loss, want, dtype, what)
        compare(flat, np.concatenate([a.ravel() for a in grads if a is not None]), dtype, what)
        return
    v = d.rng.standard_normal(obj.size)
    V, c = obj.unpack(v)
    zero = np.zeros(k)
    product, diagonal = hessian_product(
        X, W, zero if b is None else b, V, zero if c is None else c, options, y
    )
    if obj.size <= 1000 and d.chance(0.3):
        got, parts = obj.hess(d.laid(w)) @ v, (product[0] + 0.1 * V, product[1])
    elif d.chance(0.6):
        got, parts = obj.hessp(d.laid(w), d.laid(v)), (product[0] + 0.1 * V, product[1])
    else:
        got, parts = obj.hess_diag(d.laid(w)), (diagonal[0] + 0.1, diagonal[1])
    want = np.concatenate([a.ravel() for a in (parts if b is not None else parts[:1])])
    compare(got, want, dtype, what + " Hessian")


def call_partial_fit(d, fs):
    """Mini-batches, the same from arrays that end and from arrays that begin at a guard."""
    import guard_pages

    from fastsoftmax.linear_model import SoftmaxRegression

    n, width = d.shape(4000, 2)
    k = int(d.rng.integers(2, 12))
    batches = [
        (features(d, n, width, sparse)[0], d.labels(n, k))
        for sparse in [d.chance(0.3)]
        for _ in range(2)
    ]
    weight = d.weights(n, np.float64) + 0.1 if d.chance(0.4) else None
    coefs = []
    for mode in (guard_pages.AT_END, guard_pages.AT_BEGIN):
        guard_pages.place(mode)
        model = SoftmaxRegression(l2=0.01, random_state=0, batch_size=min(n, 32))
        for X, y in batches:
            model.partial_fit(X, y, classes=np.arange(k), sample_weight=weight)
        assert np.isfinite(model.coef_).all() and np.isfinite(model.loss_)
        coefs.append(model.coef_)
    np.testing.assert_array_equal(*coefs)


def call_fit(d, fs):
    """A fit, whose end must be near a minimum by the reference, and its probabilities."""
    from fastsoftmax.linear_model import LogisticRegression, SoftmaxRegression

    n, width = d.shape(3000, 2)
    n, k = max(n, 4), int(d.rng.integers(2, 6))
    X, dtype = features(d, n, width)
    y = d.rng.integers(0, k, n)
    y[:k] = np.arange(k)[:n]
    weight = d.weights(n, np.float64) + 0.1 if d.chance(0.3) else None
    if len(np.unique(y)) < 2:
        return
    l2 = 0.1
    if d.chance(0.6):
        model = SoftmaxRegression(l2=l2).fit(X, y, sample_weight=weight)
        W, b = model.coef_, model.intercept_
        _, grads = fs.reference.linear_cross_entropy_value_and_grad(
            wide(X), W.astype(float), np.searchsorted(model.classes_, y), bias=b.astype(float),
            l2=l2, sample_weight=weight,
        )  # fmt: skip
        slope = max(np.abs(grads.weight).max(), np.abs(grads.bias).max())
        assert slope < 2e-2, f"fit {X.dtype} {X.shape}: gradient {slope}"
    else:
        model = LogisticRegression().fit(X, y, sample_weight=weight)
        W, b = model.coef_, model.intercept_
    if len(W) > 1:
        want = fs.reference.softmax(wide(X) @ W.T.astype(float) + b, 1)
        compare(model.predict_proba(X), want, np.float32, "predict_proba")


def call_scores(d, fs):
    """linear_softmax, linear_log_softmax and linear_argmax."""
    X, W, _, bias, dtype = problem(d)
    name = d.choice(["linear_softmax", "linear_log_softmax", "linear_argmax"])
    what = f"{name} {type(X).__name__} {X.dtype} {(*X.shape, len(W))}"
    got = getattr(fs, name)(X, W, bias=bias)
    want = getattr(fs.reference, name)(X, W, bias=bias)
    if name == "linear_argmax":  # of logits that differ by rounding either is right
        Z = fs.reference.linear_log_softmax(X, W, bias=bias)
        got, want = (Z[np.arange(len(Z)), labels] for labels in (got, want))
    compare(got, want, dtype, what)


KINDS = (
    [call_rows] * 30 + [call_logits] * 20 + [call_linear] * 20 + [call_objective] * 17
    + [call_scores] * 10 + [call_partial_fit] * 2 + [call_fit]
)  # fmt: skip


ALWAYS_ALONE = 1 << 60


def share_out_from(size):
    """Let kernels be shared out among threads from problems of this size on."""
    from fastsoftmax._evaluation import accumulators, plans, rowwise

    plans._SERIAL_WORK = plans.SHORT_WORK = accumulators._SERIAL_ELEMENTS = size
    rowwise._SERIAL_ELEMENTS = rowwise._DIRECT_SERIAL = size


def jobs_of_team():
    """How many kernels the team of threads has run together so far."""
    from fastsoftmax._evaluation import threads
    from fastsoftmax._kernels.team import TICKET

    if threads._team is None:
        return 0
    return ctypes.c_int64.from_address(threads._team.board + 8 * TICKET).value


def make_calls(arguments):
    """What the child process does."""
    import guard_pages

    import fastsoftmax as fs
    from fastsoftmax import linear_model  # noqa: F401  (imported before arrays are guarded)

    faulthandler.enable()
    warnings.simplefilter("ignore")
    guard_pages.install(arguments.library)
    guard_pages.tight_scratch()
    progress = np.memmap(arguments.progress, np.int64, "r+")
    begun, wrong = time.monotonic(), 0
    for number in range(arguments.first, arguments.first + arguments.calls):
        progress[0] = number
        d = Drawn(arguments.seed, number, arguments.dtypes.split(","), not arguments.few_types)
        guard_pages.place(int(d.rng.integers(3)))
        share_out_from(1 if arguments.threads > 1 and d.chance(0.5) else ALWAYS_ALONE)
        kind = d.choice(KINDS)
        try:
            kind(d, fs)
        except Exception as error:
            wrong += 1
            print(f"call {number} ({kind.__name__}): {type(error).__name__}: {error}", flush=True)
            if arguments.verbose:
                raise
        progress[1], progress[2], progress[3] = number + 1, wrong, jobs_of_team()
        if arguments.seconds and time.monotonic() - begun > arguments.seconds:
            break


def run(arguments, library, progress):
    """Make all calls in children.

    Returns how many were made, how many faulted, how many were wrong, and the jobs of the team.
    """
    stop, first = arguments.first + arguments.calls, arguments.first
    faults = wrong = jobs = 0
    ends = time.monotonic() + arguments.seconds if arguments.seconds else None
    environment = {**os.environ, **TARGETS[arguments.target]}
    # What kernels allocate themselves is Numba's: GNU malloc fills it with large numbers.
    environment["MALLOC_PERTURB_"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    )
    environment["NUMBA_NUM_THREADS"] = str(arguments.threads)
    while first < stop:
        np.array([first, first, 0, 0], np.int64).tofile(progress)
        command = [
            sys.executable, __file__, "--child", "--library", library, "--progress", progress,
            "--first", str(first), "--calls", str(stop - first), "--seed", str(arguments.seed),
            "--dtypes", arguments.dtypes, "--threads", str(arguments.threads), "--seconds",
            str(max(ends - time.monotonic(), 1) if ends else 0),
        ]  # fmt: skip
        command += ["--few-types"] * arguments.few_types
        command += ["--verbose"] * arguments.verbose
        code = subprocess.run(command, env=environment, check=False).returncode
        begun, done, child_wrong, child_jobs = np.fromfile(progress, np.int64)
        wrong, jobs = wrong + int(child_wrong), jobs + int(child_jobs)
        if code == 0:
            first = int(done)
            break
        faults += 1
        print(f"call {begun}: the process ended with {code}", flush=True)
        first = int(begun) + 1
        if ends and time.monotonic() > ends or faults > 50:
            break
    return first - arguments.first, faults, wrong, jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many; 0: never")
    parser.add_argument("--target", choices=TARGETS, default="host")
    parser.add_argument("--dtypes", default="f,d", help="what is computed in")
    parser.add_argument("--few-types", action="store_true", help="nothing that is converted")
    parser.add_argument("--threads", type=int, default=3, help="1: every call on one thread")
    parser.add_argument("--verbose", action="store_true", help="the traceback of a wrong call")
    for name in ("--library", "--progress"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return make_calls(arguments)
    import guard_pages

    if guard_pages.compiler() is None:
        sys.exit("no C compiler: the memory handler cannot be built")
    with tempfile.TemporaryDirectory() as folder:
        library = str(guard_pages.build(folder))
        calls, faults, wrong, jobs = run(arguments, library, os.path.join(folder, "progress"))
    print(f"{arguments.target}: {calls} calls, {faults} faults, {wrong} wrong; {jobs} on threads")
    sys.exit(1 if faults or wrong else 0)


if __name__ == "__main__":
    main()
