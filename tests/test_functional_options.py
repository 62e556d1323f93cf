"""The cross product of options: against the reference, and against torch where it is installed."""

import itertools

import numpy as np
import pytest
from problems import make_problem

import fastsoftmax
from fastsoftmax import reference

GRID = [
    dict(zip(("soft", "weights", "classes", "smoothing", "ignore", "alpha"), v, strict=True))
    for v in itertools.product((False, True), repeat=6)
    if not (v[0] and v[4])  # ignore_index with probabilities is an error
]


def name(case):
    return "-".join(key for key, on in case.items() if on) or "plain"


def make_case(case, n_rows, n_features, n_classes, dtype, seed=0):
    X, W, y, bias, s = make_problem(n_rows, n_features, n_classes, dtype, seed=seed)
    rng = np.random.default_rng(seed + 1)
    if case["soft"]:
        y = rng.dirichlet(np.ones(n_classes), n_rows).astype(dtype) * 1.5
        y[y < 0.02] = 0
    options = {
        "sample_weight": s if case["weights"] else None,
        "class_weight": rng.uniform(0, 2, n_classes) if case["classes"] else None,
        "label_smoothing": 0.1 if case["smoothing"] else 0.0,
        "ignore_index": 1 if case["ignore"] else None,
        "lse_square_scale": 0.05 if case["alpha"] else 0.0,
    }
    return X, W, y, bias, options


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GRID, ids=name)
def test_linear_options_against_the_reference(case, dtype):
    tolerance = 300 * float(np.finfo(dtype).eps)
    for shape in ((70, 9, 5), (133, 130, 67)):
        X, W, y, bias, options = make_case(case, *shape, dtype)
        for reduction in ("mean", "sum"):
            arguments = {"bias": bias, "reduction": reduction, **options}
            loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
                X, W, y, l2=0.01, input_grad=True, **arguments
            )
            want, want_grad = reference.linear_cross_entropy_value_and_grad(
                X, W, y, l2=0.01, input_grad=True, **arguments
            )
            assert loss == pytest.approx(want, rel=tolerance)
            assert loss == fastsoftmax.linear_cross_entropy(X, W, y, l2=0.01, **arguments)
            for ours, theirs in zip(grad, want_grad, strict=True):
                assert ours.dtype == theirs.dtype == dtype
                np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())
        rows = fastsoftmax.linear_cross_entropy(X, W, y, bias=bias, reduction="none", **options)
        want_rows = reference.linear_cross_entropy(X, W, y, bias=bias, reduction="none", **options)
        assert rows.dtype == np.float64
        np.testing.assert_allclose(rows, want_rows, atol=tolerance * np.abs(want_rows).max())


@pytest.mark.parametrize("case", GRID, ids=name)
def test_options_against_torch(case):
    torch = pytest.importorskip("torch", reason="torch is not installed: no parity to test")
    X, W, y, bias, options = make_case(case, 90, 11, 7, np.float64, seed=3)
    X_, W_, b_ = (torch.tensor(v, requires_grad=True) for v in (X, W, bias))
    logits = X_ @ W_.T + b_
    classes = options["class_weight"]
    rows = torch.nn.functional.cross_entropy(
        logits,
        torch.tensor(y),
        weight=None if classes is None else torch.tensor(classes),
        label_smoothing=options["label_smoothing"],
        reduction="none",
        **({} if options["ignore_index"] is None else {"ignore_index": 1}),
    )
    kept = np.ones(len(X)) if options["ignore_index"] is None else (y != 1).astype(float)
    s = kept if options["sample_weight"] is None else kept * options["sample_weight"]
    rows = rows + options["lse_square_scale"] * torch.logsumexp(logits, 1) ** 2
    counted = s if classes is None or case["soft"] else s * classes[y]
    loss = (torch.tensor(s) * rows).sum() / counted.sum()
    loss.backward()
    ours, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
        X, W, y, bias=bias, input_grad=True, **options
    )
    assert ours == pytest.approx(loss.item(), rel=1e-12)
    for mine, theirs in zip(grad, (W_.grad, b_.grad, X_.grad), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-12, atol=1e-14)


X, W, Y, BIAS, _ = make_problem(6, 4, 3, np.float64)
ROWS = np.full((6, 3), 1 / 3)
BAD = {
    "class_weight too short": ({"class_weight": np.ones(2)}, ValueError, "class_weight: expected"),
    "class_weight negative": ({"class_weight": [-1, 1, 1]}, ValueError, "class_weight: expected"),
    "class_weight dict": ({"class_weight": {0: 1.0}}, (TypeError, ValueError), "class_weight"),
    "smoothing above 1": ({"label_smoothing": 1.1}, ValueError, r"label_smoothing: .*\[0, 1\]"),
    "smoothing negative": ({"label_smoothing": -0.1}, ValueError, "label_smoothing"),
    "scale negative": ({"lse_square_scale": -1.0}, ValueError, "lse_square_scale"),
    "reduction unknown": ({"reduction": "average"}, ValueError, "reduction: expected"),
    "ignore with rows": ({"y": ROWS, "ignore_index": 0}, ValueError, "ignore_index: expected None"),
    "ignored label not an integer": ({"ignore_index": 1.0}, TypeError, "ignore_index: expected an"),
    "rows of integers": ({"y": np.ones((6, 3), int)}, TypeError, "y: expected float target rows"),
    "rows too few": ({"y": ROWS[:5]}, ValueError, "y: expected shape"),
    "rows negative": ({"y": -ROWS}, ValueError, "y: expected finite, non-negative"),
    "rows NaN": ({"y": ROWS * np.nan}, ValueError, "y: expected finite, non-negative"),
    "all ignored": ({"y": Y * 0, "ignore_index": 0}, ValueError, "reduction: a mean"),
    "classes of no weight": ({"class_weight": np.zeros(3)}, ValueError, "reduction: a mean"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case):
    changed, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fastsoftmax.linear_cross_entropy(**{"X": X, "W": W, "y": Y, **changed})


def test_none_has_no_gradient_and_no_penalty():
    with pytest.raises(ValueError, match="l2: expected 0 with reduction"):
        fastsoftmax.linear_cross_entropy(X, W, Y, l2=1.0, reduction="none")
    with pytest.raises(ValueError, match='reduction: expected "mean" or "sum"'):
        fastsoftmax.linear_cross_entropy_value_and_grad(X, W, Y, reduction="none")


def test_a_sum_over_nothing_is_zero():
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
        X[:0], W, Y[:0], reduction="sum", input_grad=True
    )
    assert loss == 0.0
    assert not grad.weight.any()
    assert grad.input.shape == (0, 4)
    assert fastsoftmax.linear_cross_entropy(X, W, Y * 0, ignore_index=0, reduction="sum") == 0
    assert fastsoftmax.linear_cross_entropy(X[:0], W, Y[:0], reduction="none").shape == (0,)


def test_ignored_rows_count_for_nothing_even_where_their_logits_overflow():
    X_ = X.copy()
    X_[2] = 1e300
    W_ = W * 1e10
    y = Y.copy()
    y[2] = -100
    kept = np.arange(6) != 2
    got = fastsoftmax.linear_cross_entropy(X_, W_, y, ignore_index=-100)
    want = fastsoftmax.linear_cross_entropy(X[kept], W_, Y[kept])
    assert got == pytest.approx(want, rel=1e-14)


def test_minus_infinity_under_a_zero_target_is_legal():
    bias = np.array([0.0, -np.inf, 1.0])
    y = np.array([[0.5, 0.0, 0.5]] * 6)
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    want, want_grad = reference.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    assert np.isfinite(loss)
    assert loss == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(grad.weight, want_grad.weight, atol=1e-14)
    assert not grad.weight[1].any()


# ------------------------------------------------------------------------------ from logits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GRID, ids=name)
def test_logits_options_against_the_reference(case, dtype):
    tolerance = 300 * float(np.finfo(dtype).eps)
    for n_rows, n_classes in ((70, 2), (201, 10), (33, 64), (40, 200), (3, 1001)):
        Z, _, y, _, options = make_case(case, n_rows, n_classes, n_classes, dtype)
        Z *= 3
        for reduction in ("mean", "sum"):
            arguments = {"reduction": reduction, **options}
            loss, grad = fastsoftmax.cross_entropy_value_and_grad(Z, y, **arguments)
            want, want_grad = reference.cross_entropy_value_and_grad(Z, y, **arguments)
            assert loss == pytest.approx(want, rel=tolerance)
            assert fastsoftmax.cross_entropy(Z, y, **arguments) == loss
            assert grad.dtype == dtype
            np.testing.assert_allclose(grad, want_grad, atol=tolerance * np.abs(want_grad).max())
        rows = fastsoftmax.cross_entropy(Z, y, reduction="none", **options)
        want_rows = reference.cross_entropy(Z, y, reduction="none", **options)
        assert rows.dtype == np.float64
        np.testing.assert_allclose(rows, want_rows, atol=tolerance * np.abs(want_rows).max())


@pytest.mark.parametrize("case", GRID, ids=name)
def test_logits_options_against_torch(case):
    torch = pytest.importorskip("torch", reason="torch is not installed: no parity to test")
    for n_classes in (7, 150):
        Z, _, y, _, options = make_case(case, 60, n_classes, n_classes, np.float64, seed=5)
        logits = torch.tensor(Z, requires_grad=True)
        classes = options["class_weight"]
        rows = torch.nn.functional.cross_entropy(
            logits,
            torch.tensor(y),
            weight=None if classes is None else torch.tensor(classes),
            label_smoothing=options["label_smoothing"],
            reduction="none",
            **({} if options["ignore_index"] is None else {"ignore_index": 1}),
        )
        kept = np.ones(len(Z)) if options["ignore_index"] is None else (y != 1).astype(float)
        s = kept if options["sample_weight"] is None else kept * options["sample_weight"]
        rows = rows + options["lse_square_scale"] * torch.logsumexp(logits, 1) ** 2
        counted = s if classes is None or case["soft"] else s * classes[y]
        loss = (torch.tensor(s) * rows).sum() / counted.sum()
        loss.backward()
        ours, grad = fastsoftmax.cross_entropy_value_and_grad(Z, y, **options)
        assert ours == pytest.approx(loss.item(), rel=1e-12)
        np.testing.assert_allclose(grad, logits.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_classes", [3, 100, 777])
def test_the_gradient_may_replace_the_logits(n_classes):
    Z, _, y, _, _ = make_problem(300, n_classes, n_classes, np.float32)
    before = Z.copy()
    loss, want = fastsoftmax.cross_entropy_value_and_grad(Z, y)
    np.testing.assert_array_equal(Z, before)
    out = np.empty_like(Z)
    assert fastsoftmax.cross_entropy_value_and_grad(Z, y, out=out)[1] is out
    np.testing.assert_array_equal(out, want)
    again, grad = fastsoftmax.cross_entropy_value_and_grad(Z, y, out=Z)
    assert (again, grad is Z) == (loss, True)
    np.testing.assert_array_equal(Z, want)


@pytest.mark.parametrize("n_classes", [3, 100, 777])
def test_the_gradient_may_replace_the_target_rows(n_classes):
    Z, *_ = make_problem(300, n_classes, n_classes, np.float32)
    rows = np.random.default_rng(0).random(Z.shape, np.float32)
    loss, want = fastsoftmax.cross_entropy_value_and_grad(Z, rows)
    assert fastsoftmax.cross_entropy_value_and_grad(Z, rows, out=rows)[0] == loss
    np.testing.assert_array_equal(rows, want)


@pytest.mark.parametrize("n_classes", [10, 300])
def test_logits_give_the_same_bits_on_one_thread(n_classes):
    import numba

    Z, _, y, _, s = make_problem(4000, n_classes, n_classes, np.float32)
    before = numba.get_num_threads()
    results = []
    for threads in (1, before):
        numba.set_num_threads(threads)
        results.append(fastsoftmax.cross_entropy_value_and_grad(Z, y, sample_weight=s))
    numba.set_num_threads(before)
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


BAD_LOGITS = {
    "one class": (np.zeros((3, 1)), [0, 0, 0], {}, ValueError, "logits: expected shape"),
    "one-dimensional": (np.zeros(3), [0], {}, ValueError, "logits: expected shape"),
    "complex": (np.zeros((3, 2)) * 1j, [0, 0, 0], {}, TypeError, "logits: expected real"),
    "label": (np.zeros((3, 2)), [0, 0, 2], {}, ValueError, "y: expected labels"),
    "out of another dtype": (
        np.zeros((3, 2)), [0, 0, 1], {"out": np.zeros((3, 2), "f4")}, TypeError, "out: expected",
    ),
    "out overlapping": (
        (b := np.zeros((4, 2)))[:3], [0, 0, 1], {"out": b[1:]}, ValueError, "out: expected logits",
    ),
    "out in F order": (
        np.zeros((3, 2)), [0, 0, 1], {"out": np.zeros((2, 3)).T}, ValueError, "out: .*contiguous",
    ),
    "out overlapping the weights": (
        np.zeros((3, 2)), [0, 0, 1], {"sample_weight": (c := np.ones(6))[:3],
        "out": c.reshape(3, 2)}, ValueError, "out: expected sample_weight",
    ),
    "out overlapping the targets": (
        np.zeros((3, 2)), (t := np.ones((4, 2)))[:3], {"out": t[1:]}, ValueError, "out: expected y",
    ),
    "none": (np.zeros((3, 2)), [0, 0, 1], {"reduction": "none"}, ValueError, "reduction: expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LOGITS)
def test_bad_logits(case):
    logits, y, options, error, message = BAD_LOGITS[case]
    with pytest.raises(error, match=message):
        fastsoftmax.cross_entropy_value_and_grad(logits, y, **options)


@pytest.mark.parametrize("n_classes", [4, 90])
def test_infinite_logits_flow_as_in_the_reference(n_classes):
    Z, _, y, _, _ = make_problem(40, n_classes, n_classes, np.float64)
    Z[0, 1], Z[1, 2], Z[2, 0], Z[3] = -np.inf, np.inf, np.nan, -np.inf
    y[:4] = 0
    rows = fastsoftmax.cross_entropy(Z, y, reduction="none")
    np.testing.assert_allclose(rows, reference.cross_entropy(Z, y, reduction="none"), rtol=1e-12)
    _, grad = fastsoftmax.cross_entropy_value_and_grad(Z, y, reduction="sum")
    _, want = reference.cross_entropy_value_and_grad(Z, y, reduction="sum")
    np.testing.assert_allclose(grad, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_classes", [10, 300])
def test_weights_whose_sum_is_beyond_float32(n_classes):
    Z, _, y, _, _ = make_problem(64, n_classes, n_classes, np.float32)
    loss, want = fastsoftmax.cross_entropy_value_and_grad(Z, y)
    weight = np.full(64, 3e38, np.float32)
    weighted, grad = fastsoftmax.cross_entropy_value_and_grad(Z, y, sample_weight=weight)
    assert weighted == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(grad, want, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_huge_weights_give_finite_gradients(dtype, reduction):
    X, W, y, bias, s = make_problem(60, 5, 4, dtype)
    huge = dtype(np.finfo(dtype).max / 16)
    expected = fastsoftmax.linear_cross_entropy(
        X, W, y, bias=bias, sample_weight=s, reduction=reduction
    )
    factor = 1.0 if reduction == "mean" else float(huge)
    scaled = s / dtype(4) * huge
    found = fastsoftmax.linear_cross_entropy(
        X, W, y, bias=bias, sample_weight=scaled, reduction=reduction
    )
    with np.errstate(over="ignore"):
        goal = np.asarray(expected) * (factor / (1 if reduction == "mean" else 4))
    np.testing.assert_allclose(found, goal, rtol=1e-5)
    if reduction == "mean":
        _, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
            X, W, y, bias=bias, sample_weight=scaled
        )
        _, want = fastsoftmax.linear_cross_entropy_value_and_grad(
            X, W, y, bias=bias, sample_weight=s
        )
        np.testing.assert_allclose(grad.weight, want.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("module", [fastsoftmax, fastsoftmax.reference], ids=["kernels", "NumPy"])
@pytest.mark.parametrize("option", ["label_smoothing", "lse_square_scale", "l2"])
def test_strengths_of_a_small_type_count_in_full(option, module):
    X, W, y, _, _ = make_problem(20, 4, 3, np.float64)
    strength = np.float16(0.1)
    got = module.linear_cross_entropy(X, W, y, **{option: strength})
    assert got == module.linear_cross_entropy(X, W, y, **{option: float(strength)})
