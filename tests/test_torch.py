"""fastsoftmax.torch beside torch.nn.functional, and where it differs: an error by name."""

import inspect
import itertools
import math

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import functional

torch = pytest.importorskip("torch", reason='needs pip install "fastsoftmax[torch]"')
F = torch.nn.functional

from fastsoftmax.torch import (  # noqa: E402
    CrossEntropyLoss,
    LinearCrossEntropyLoss,
    _autograd,
    cross_entropy,
    linear_cross_entropy,
)

N, D, C = 12, 4, 5
REDUCTIONS = ("mean", "sum", "none")
CASES = [
    dict(zip(("soft", "ignored", "weighted", "smoothed", "reduction"), case, strict=True))
    for case in itertools.product(*[(False, True)] * 4, REDUCTIONS)
    if not (case[0] and case[1])
]


def name(case):
    return "-".join(str(v if k == "reduction" else k) for k, v in case.items() if v)


def tensors(*shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


def target_and_options(case, batch, n_classes=C, axis=1):
    """A target for logits of shape ``batch`` with the classes at ``axis``, and its options."""
    rng = np.random.default_rng(1)
    if case["soft"]:
        target = np.moveaxis(rng.dirichlet(np.ones(n_classes), batch), -1, axis)
    else:
        target = np.asarray(rng.integers(0, n_classes, batch))
        if case["ignored"] and batch:
            target[::3] = -100
    options = {
        "weight": torch.tensor(rng.uniform(0.1, 2, n_classes)) if case["weighted"] else None,
        "label_smoothing": 0.2 if case["smoothed"] else 0.0,
        "reduction": case["reduction"],
    }
    return torch.tensor(target), options


def assert_same(ours, theirs, parameters, rtol=1e-12):
    """The same value, and the same gradients for any gradient that comes down."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-14)
    (down,) = tensors(ours.shape, seed=5)
    found = torch.autograd.grad(ours, parameters, down.detach())
    for mine, want in zip(
        found, torch.autograd.grad(theirs, parameters, down.detach()), strict=True
    ):
        assert mine.shape == want.shape and mine.dtype == want.dtype
        torch.testing.assert_close(mine, want, rtol=rtol, atol=1e-13)


# --------------------------------------------------------------------------- parity with PyTorch


@pytest.mark.parametrize("case", CASES, ids=name)
def test_linear_parity(case):
    X, W, b = tensors((N, D), (C, D), (C,))
    target, options = target_and_options(case, (N,))
    ours = linear_cross_entropy(X, W, target, linear_bias=b, **options)
    assert_same(ours, F.cross_entropy(F.linear(X, W, b), target, **options), (X, W, b))


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("shape", [(C,), (N, C), (N, C, 3), (2, C, 3, 2)], ids=str)
def test_logits_parity(case, shape):
    (Z,) = tensors(shape)
    axis = min(len(shape) - 1, 1)
    target, options = target_and_options(case, shape[:axis] + shape[axis + 1 :], axis=axis)
    assert_same(cross_entropy(Z, target, **options), F.cross_entropy(Z, target, **options), (Z,))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_linear_parity_in_more_dimensions(case):
    X, W, b = tensors((N, D), (C, 3, 2, D), (C, 3, 2))
    target, options = target_and_options(case, (N, 3, 2))
    logits = F.linear(X, W.reshape(-1, D), b.reshape(-1)).reshape(N, C, 3, 2)
    ours = linear_cross_entropy(X, W, target, linear_bias=b, **options)
    assert_same(ours, F.cross_entropy(logits, target, **options), (X, W, b))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_parity_without_a_batch(soft, reduction):
    x, W = tensors((D,), (C, D))
    case = {"soft": soft, "ignored": False, "weighted": True, "smoothed": True}
    target, options = target_and_options({**case, "reduction": reduction}, (), axis=0)
    ours = linear_cross_entropy(x, W, target, **options)
    assert_same(ours, F.cross_entropy(F.linear(x, W), target, **options), (x, W))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", ["ignored", "no rows"])
def test_a_mean_over_nothing_is_nan_and_its_gradient_zero(case, reduction):
    rows = 0 if case == "no rows" else N
    X, W, Z = tensors((rows, D), (C, D), (rows, C))
    target = torch.full((rows,), -100)
    for ours, theirs, parameters in [
        (
            cross_entropy(Z, target, reduction=reduction),
            F.cross_entropy(Z, target, reduction=reduction),
            (Z,),
        ),
        (
            linear_cross_entropy(X, W, target, reduction=reduction),
            F.cross_entropy(F.linear(X, W), target, reduction=reduction),
            (X, W),
        ),
    ]:
        torch.testing.assert_close(ours, theirs, equal_nan=True)
        assert bool(ours.isnan().any()) == (reduction == "mean")
        for mine, want in zip(
            torch.autograd.grad(ours.sum(), parameters),
            torch.autograd.grad(theirs.sum(), parameters),
            strict=True,
        ):
            assert torch.equal(mine, want) and not mine.any()


@pytest.mark.parametrize("ignore_index", [2, -1, -100])
def test_ignore_index(ignore_index):
    (Z,) = tensors((N, C))
    target = torch.arange(N) % C
    target[::4] = ignore_index
    ours = cross_entropy(Z, target, ignore_index=ignore_index)
    assert_same(ours, F.cross_entropy(Z, target, ignore_index=ignore_index), (Z,))


@pytest.mark.parametrize(
    "flags", [(None, False), (False, None), (True, True), (False, False)], ids=str
)
def test_deprecated_flags(flags):
    (Z,) = tensors((N, C))
    target = torch.arange(N) % C
    with pytest.warns(UserWarning, match="size_average and reduce") as caught:
        ours = cross_entropy(Z, target, None, flags[0], -100, flags[1])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="size_average and reduce"):
        theirs = F.cross_entropy(Z, target, None, flags[0], -100, flags[1])
    assert_same(ours, theirs, (Z,))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (cross_entropy, "nn.functional.cross_entropy"),
        (linear_cross_entropy, "nn.functional.linear_cross_entropy"),
        (CrossEntropyLoss, "nn.CrossEntropyLoss"),
        (LinearCrossEntropyLoss, "nn.LinearCrossEntropyLoss"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_are_those_of_torch(ours, theirs):
    found = torch
    for part in theirs.split("."):
        if not hasattr(found, part):
            pytest.skip(f"this PyTorch has no {theirs}")
        found = getattr(found, part)
    signatures = [
        [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (ours, found)
    ]
    assert signatures[0] == signatures[1]


# ------------------------------------------------------------------------------ types and layouts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_small_types_come_back_rounded_once(dtype, reduction):
    small = tensors((N, D), (C, D), (C,), (N, C), dtype=dtype)
    wide = [t.detach().double().requires_grad_() for t in small]
    target = torch.arange(N) % C
    results = []
    for X, W, b, Z in (small, wide):
        losses = (
            linear_cross_entropy(X, W, target, linear_bias=b, reduction=reduction),
            cross_entropy(Z, target, reduction=reduction),
        )
        # A factor of float16's loss scaling: gradients are scaled before they are rounded.
        gradients = torch.autograd.grad([loss.sum() * 512 for loss in losses], (X, W, b, Z))
        results.append((*losses, *gradients))
    for ours, want in zip(*results, strict=True):
        assert ours.dtype == dtype
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(
            ours.double(), want, rtol=eps, atol=2e-5 * want.abs().max().item()
        )


def test_scaled_gradients_do_not_underflow_in_float16():
    (Z,) = tensors((4096, 2), dtype=torch.float16)
    target = torch.zeros(4096, dtype=torch.int64)
    (cross_entropy(Z.mul(12), target) * 1024).backward()
    assert (Z.grad != 0).float().mean() > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_under_autocast_losses_of_small_types_are_float32(dtype):
    (Z,) = tensors((N, C), dtype=dtype)
    target = torch.arange(N) % C
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = cross_entropy(Z, target), F.cross_entropy(Z, target)
    assert_same(ours, theirs, (Z,), rtol=1e-12 if dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded", "negated"])
def test_layouts(layout):
    (X,) = tensors((D, D))
    (W,) = tensors((C, D))
    X = {
        "transposed": lambda: X.detach().T,
        "strided": lambda: X.detach().repeat(2, 2)[::2, ::2],
        "expanded": lambda: X.detach()[:1].expand(D, D),
        "negated": lambda: torch.complex(X.detach(), X.detach()).conj().imag,
    }[layout]().requires_grad_()
    target = torch.arange(D)
    ours = linear_cross_entropy(X, W, target)
    assert_same(ours, F.cross_entropy(F.linear(X, W), target), (X, W))
    ours = cross_entropy(X, target)
    assert_same(ours, F.cross_entropy(X, target), (X,))


def test_parameters_and_mixed_types():
    X = torch.randn(N, D)
    W = torch.nn.Parameter(torch.randn(C, D, dtype=torch.float64))
    target = (torch.arange(N) % C).to(torch.int32)
    loss = linear_cross_entropy(X, W, target)
    loss.backward()
    assert loss.dtype == torch.float32 and W.grad.dtype == torch.float64
    want = F.cross_entropy(X @ W.float().T, target.long())
    torch.testing.assert_close(loss, want)


# ------------------------------------------------------------------------- one pass, and no copies


@pytest.fixture
def calls(monkeypatch):
    """What is called of the functions of arrays: names, results and options."""
    found = []

    def spy(function):
        original = getattr(functional, function)

        def call(*arguments, **options):
            result = original(*arguments, **options)
            found.append((function, arguments, options, result))
            return result

        monkeypatch.setattr(functional, function, call)

    for function in functional.__all__[1:]:
        spy(function)
    return found


def test_one_pass_that_reads_and_returns_the_same_memory(calls):
    X, W, b = tensors((N, D), (C, D), (C,))
    target = torch.arange(N) % C
    loss = linear_cross_entropy(X, W, target, linear_bias=b)
    found = torch.autograd.grad(loss, (X, W, b))
    ((function, arguments, options, result),) = calls
    assert function == "linear_cross_entropy_value_and_grad"
    given = (*arguments, options["bias"])
    for array, tensor in zip(given, (X, W, target, b), strict=True):
        assert array.ctypes.data == tensor.data_ptr()
    grad = result[1]
    for tensor, array in zip(found, (grad.input, grad.weight, grad.bias), strict=True):
        assert tensor.data_ptr() == array.ctypes.data


def test_bfloat16_is_viewed():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    X = tensors((N, D), dtype=torch.bfloat16)[0][:, ::2]
    array = _autograd._array(X)
    assert array.dtype == ml_dtypes.bfloat16 and array.ctypes.data == X.data_ptr()
    assert np.array_equal(array.astype(np.float32), X.detach().float().numpy())


def test_backward_leaves_the_gradient_of_logits_where_it_was_computed(calls):
    (Z,) = tensors((N, C))
    cross_entropy(Z, torch.arange(N) % C).backward()
    ((_, (logits, _), _, (_, gradient)),) = calls
    assert logits.ctypes.data == Z.data_ptr() and gradient.ctypes.data == Z.grad.data_ptr()


@pytest.mark.parametrize("needed", range(3))
def test_gradients_only_as_asked_for(needed, calls):
    parameters = [t.detach() for t in tensors((N, D), (C, D), (C,))]
    parameters[needed].requires_grad_()
    X, W, b = parameters
    linear_cross_entropy(X, W, torch.arange(N) % C, linear_bias=b).backward()
    assert [t.grad is not None for t in parameters] == [i == needed for i in range(3)]
    assert calls[0][2]["input_grad"] == (needed == 0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_loss_alone_is_computed(mode, calls):
    X, W = tensors((N, D), (C, D))
    target = torch.arange(N) % C
    with mode():
        losses = linear_cross_entropy(X, W, target), cross_entropy(X @ W.T, target)
    assert [call[0] for call in calls] == ["linear_cross_entropy", "cross_entropy"]
    assert not any(loss.requires_grad for loss in losses)
    torch.testing.assert_close(*losses)


def test_backward_twice():
    X, W = tensors((N, D), (C, D))
    target = torch.arange(N) % C
    want = torch.autograd.grad(F.cross_entropy(F.linear(X, W), target), (X, W))
    loss = linear_cross_entropy(X, W, target)
    for times in (1, 2, 3):
        loss.backward(retain_graph=times < 3)
        for tensor, one in zip((X, W), want, strict=True):
            torch.testing.assert_close(tensor.grad, times * one)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_tensors_changed_before_backward_are_an_error():
    X, W = tensors((N, D), (C, D))
    loss = linear_cross_entropy(X, W, torch.arange(N) % C, reduction="none")
    with torch.no_grad():
        W += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_gradients_from_above_that_are_not_finite(value):
    X, W, Z = tensors((N, D), (C, D), (N, C))
    target = torch.arange(N) % C
    down = torch.ones(N, dtype=torch.float64)
    down[3] = value
    for parameter, loss in [
        (W, linear_cross_entropy(X, W, target, reduction="none")),
        (Z, cross_entropy(Z, target, reduction="none")),
        (Z, cross_entropy(Z, target) * value),
    ]:
        (found,) = torch.autograd.grad(loss, parameter, down if loss.ndim else None)
        assert not found[-1 if parameter is W else 3].isfinite().any()


# -------------------------------------------------------------------------------------- autograd


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("soft", [False, True])
def test_gradcheck(reduction, soft):
    X, W, b, Z = tensors((4, 3), (3, 3), (3,), (4, 3))
    case = {"soft": soft, "ignored": not soft, "weighted": True, "smoothed": True}
    target, options = target_and_options({**case, "reduction": reduction}, (4,), 3)
    assert torch.autograd.gradcheck(
        lambda X, W, b: linear_cross_entropy(X, W, target, linear_bias=b, **options), (X, W, b)
    )
    assert torch.autograd.gradcheck(lambda Z: cross_entropy(Z, target, **options), (Z,))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_derivatives_are_an_error(reduction):
    X, W = tensors((N, D), (C, D))
    loss = linear_cross_entropy(X, W, torch.arange(N) % C, reduction=reduction).sum()
    (gradient,) = torch.autograd.grad(loss, W, create_graph=True)
    with pytest.raises(NotImplementedError, match="input: .* no second derivatives"):
        (gradient**2).sum().backward()


def linear_loss(reduction="mean"):
    X, W = (t.detach() for t in tensors((N, D), (C, D)))
    target = torch.arange(N) % C
    return W, {
        loss: lambda W, loss=loss: loss(X, W, target, reduction)
        for loss in (
            lambda X, W, y, how: linear_cross_entropy(X, W, y, reduction=how).square().sum(),
            lambda X, W, y, how: F.cross_entropy(F.linear(X, W), y, reduction=how).square().sum(),
        )
    }


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_torch_func(reduction):
    W, losses = linear_loss(reduction)
    ours, theirs = losses.values()
    torch.testing.assert_close(torch.func.grad(ours)(W), torch.func.grad(theirs)(W))
    value, pull_back = torch.func.vjp(ours, W)
    for _ in range(2):
        torch.testing.assert_close(pull_back(torch.ones_like(value))[0], torch.func.grad(theirs)(W))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, by PyTorch itself
@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda f: lambda W: torch.func.jvp(f, (W,), (W,)), "linear_weight: .* in forward mode"),
        (lambda f: torch.func.jacrev(torch.func.grad(f)), "linear_weight: .* second derivatives"),
        (lambda f: lambda W: torch.func.vmap(f)(W.expand(2, C, D)), "linear_weight: .*func.vmap"),
    ],
    ids=["jvp", "jacrev of grad", "vmap"],
)
def test_other_transforms_are_refused_by_name(transform, message):
    W, losses = linear_loss()
    with pytest.raises(NotImplementedError, match=message):
        transform(next(iter(losses.values())))(W)


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, by itself
def test_compiled_code_breaks_its_graph():
    X, W = tensors((N, D), (C, D))
    target = torch.arange(N) % C
    head = LinearCrossEntropyLoss(D, C, dtype=torch.float64)

    def training_loss(loss, X, W):
        return 2 * loss(X.relu(), W, target) + head(X.sin(), target)

    compiled = torch.compile(training_loss, backend="eager")
    ours = compiled(linear_cross_entropy, X, W)
    theirs = training_loss(lambda X, W, y: F.cross_entropy(F.linear(X, W), y), X, W)
    assert_same(ours, theirs, (X, W, head.linear.weight))


class LossOfRows(torch.utils.data.Dataset):
    """Data whose loading computes a loss and a gradient."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        X, W = tensors((500, 50), (10, 50), seed=i)
        loss = linear_cross_entropy(X, W, torch.arange(500) % 10)
        loss.backward()
        return loss.detach(), W.grad


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX warns where it is imported
def test_workers_of_a_data_loader():
    data = LossOfRows()
    want = [data[i] for i in range(len(data))]  # threads have run before the fork
    loader = torch.utils.data.DataLoader(data, num_workers=2, multiprocessing_context="fork")
    for found, one in zip(loader, want, strict=True):
        for tensor, expected in zip(found, one, strict=True):
            assert torch.equal(tensor[0], expected)


# --------------------------------------------------------------------------------------- modules


def test_modules():
    X, Z = tensors((N, D), (N, C))
    target = torch.arange(N) % C
    weight = torch.rand(C, dtype=torch.float64)
    options = {"weight": weight, "label_smoothing": 0.1, "ignore_index": 1, "reduction": "sum"}
    ours = CrossEntropyLoss(**options)(Z, target)
    assert_same(ours, torch.nn.CrossEntropyLoss(**options)(Z, target), (Z,))
    head = LinearCrossEntropyLoss(D, C, bias=True, dtype=torch.float64, **options)
    assert head.state_dict().keys() == {"weight", "linear.weight", "linear.bias"}
    parameters = (X, *head.parameters())
    want = F.cross_entropy(head.linear(X), target, **options)
    assert_same(head(X, target), want, parameters)


def test_module_exchanges_states_with_torch():
    if not hasattr(torch.nn, "LinearCrossEntropyLoss"):
        pytest.skip("this PyTorch has no LinearCrossEntropyLoss")
    (X,) = tensors((N, D))
    target = (torch.arange(N * 3) % C).reshape(N, 3)
    arguments = {"out_features": (3,), "bias": True, "dtype": torch.float64}
    ours, theirs = (
        kind(D, C, weight=torch.rand(C, dtype=torch.float64), **arguments)
        for kind in (LinearCrossEntropyLoss, torch.nn.LinearCrossEntropyLoss)
    )
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(X, target), theirs(X, target))


def test_a_module_trains():
    X, target = torch.randn(200, D), torch.randint(0, 3, (200,))
    head = LinearCrossEntropyLoss(D, 3, bias=True)
    optimiser = torch.optim.LBFGS(head.parameters(), line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = head(X, target)
        loss.backward()
        return loss

    for _ in range(3):
        optimiser.step(closure)
    W, b = (p.detach().numpy() for p in head.parameters())
    _, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X.numpy(), W, target.numpy(), bias=b)
    assert np.abs(grad.weight).max() < 1e-3


# ---------------------------------------------------------------------------------------- errors

BAD_OF_BOTH = {
    "input an array": ({"input": np.ones((N, D))}, TypeError, "input: expected a tensor"),
    "input meta": ({"input": torch.ones(N, D, device="meta")}, ValueError, "input: .* on meta"),
    "input sparse": ({"input": torch.eye(N, D).to_sparse()}, ValueError, "input: .*sparse_coo"),
    "input complex": ({"input": torch.ones(N, D) * 1j}, TypeError, "input: .*complex64"),
    "input integers": ({"input": torch.ones(N, D).long()}, TypeError, "input: .*int64"),
    "target complex": ({"target": torch.ones(N) * 1j}, TypeError, "target: .*complex64"),
    "target floats": ({"target": torch.ones(N)}, TypeError, "target: expected integer"),
    "target too large": ({"target": torch.full((N,), C)}, ValueError, "target: expected labels"),
    "target negative": ({"target": torch.full((N,), -1)}, ValueError, "target: expected labels"),
    "target too short": ({"target": torch.zeros(N - 1).long()}, ValueError, "target: expected sh"),
    "target negative rows": ({"target": -torch.ones(N, C)}, ValueError, "target: .*non-negative"),
    "target of integer rows": ({"target": torch.ones(N, C).long()}, TypeError, "target: expected"),
    "target wants a gradient": (
        {"target": torch.ones(N, C, requires_grad=True)}, ValueError, "target: no gradient"),
    "weight too short": ({"weight": torch.ones(C - 1)}, ValueError, "weight: expected shape"),
    "weight negative": ({"weight": -torch.ones(C)}, ValueError, "weight: .*non-negative"),
    "weight wants a gradient": (
        {"weight": torch.ones(C, requires_grad=True)}, ValueError, "weight: no gradient"),
    "reduction": ({"reduction": "average"}, ValueError, "reduction: expected"),
    "label_smoothing": ({"label_smoothing": 1.1}, ValueError, "label_smoothing: expected"),
    "ignore_index no integer": ({"ignore_index": 1.5}, TypeError, "ignore_index: expected"),
    "ignore_index of rows": (
        {"ignore_index": 1, "target": torch.ones(N, C)}, ValueError, "ignore_index: expected"),
}  # fmt: skip
BAD_OF_LINEAR = {
    "input of three dimensions": ({"input": torch.ones(N, 1, D)}, ValueError, "input: expected"),
    "input too narrow": ({"input": torch.ones(N, D - 1)}, ValueError, "linear_weight: expected"),
    "weights of one dimension": ({"linear_weight": torch.ones(D)}, ValueError, "linear_weight: ex"),
    "one class": ({"linear_weight": torch.ones(1, D)}, ValueError, "linear_weight: expected"),
    "weights of more dimensions": (
        {"linear_weight": torch.ones(C, 3, D + 1)}, ValueError, "input: expected shape"),
    "linear_bias": ({"linear_bias": torch.ones(C + 1)}, ValueError, "linear_bias: expected shape"),
    "linear_bias integers": ({"linear_bias": torch.ones(C).int()}, TypeError, "linear_bias: exp"),
    "no weights": ({"linear_weight": None}, TypeError, "linear_weight: expected a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD_OF_BOTH, *BAD_OF_LINEAR])
def test_linear_errors_name_the_argument(case):
    changes, kind, message = {**BAD_OF_BOTH, **BAD_OF_LINEAR}[case]
    arguments = {
        "input": torch.ones(N, D),
        "linear_weight": torch.ones(C, D, requires_grad=True),
        "target": torch.zeros(N, dtype=torch.int64),
    }
    with pytest.raises(kind, match=message):
        linear_cross_entropy(**{**arguments, **changes})


@pytest.mark.parametrize("case", BAD_OF_BOTH)
def test_logits_errors_name_the_argument(case):
    changes, kind, message = BAD_OF_BOTH[case]
    changes = dict(changes)
    if isinstance(changes.get("input"), torch.Tensor):
        changes["input"] = changes["input"][:, :1].expand(N, C) if "sparse" not in case else (
            torch.eye(N, C).to_sparse())  # fmt: skip
    arguments = {"input": torch.ones(N, C), "target": torch.zeros(N, dtype=torch.int64)}
    with pytest.raises(kind, match=message):
        cross_entropy(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((), torch.tensor(0), r"input: expected shape \(C,\)"),
        ((N, C, 3, 2), torch.zeros(N, 2, 3).long(), r"target: expected shape \(12, 3, 2\)"),
        ((N, C, 3), torch.ones(N, 3, C), r"target: .*\(12, 5, 3\) of probabilities"),
        ((C,), torch.zeros(1).long(), r"target: expected shape \(\) of class indices"),
        ((N, 1), torch.zeros(N).long(), "input: expected"),
    ],
)
def test_shapes_of_logits_are_checked(shape, target, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(torch.ones(shape), target)


def test_module_refuses_a_wrong_weight():
    with pytest.raises(ValueError, match=r"weight: expected shape \(5,\)"):
        LinearCrossEntropyLoss(D, C, weight=torch.ones(C + 1))
