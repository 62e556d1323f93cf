"""A step of training in PyTorch: forward and backward of a linear head and its cross-entropy.

``python bench/torch_training.py`` writes results/torch_training.md: the tasks of this name beside
their peers, as report.py measures them, and how much memory a step takes beyond its inputs.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import frameworks
import linear
import numpy as np

Arrays = dict[str, np.ndarray]

SHAPES = [(1_000_000, 100, 10), (100_000, 512, 1000), (20_000, 256, 10_000)]
MIB = 1 << 20


def truth(of_input: bool, a: Arrays) -> list[np.ndarray]:
    """Loss and gradients in W and b, and in X if it needs one, in float64."""
    found = linear.truth(a)
    if not of_input:
        return found
    W, b = a["W"].astype(float), a["b"].astype(float)
    gradient = np.empty(a["X"].shape)
    for start in range(0, len(gradient), 4096):
        rows = slice(start, start + 4096)
        P = a["X"][rows] @ W.T + b
        P = np.exp(P - P.max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        P[np.arange(len(P)), a["y"][rows]] -= 1
        gradient[rows] = P @ W / len(gradient)
    return [*found, gradient]


def work(of_input: bool, problem: Any) -> tuple[float, float]:
    """Bytes read, and written for the gradient in X; a third product for it."""
    moved, flops = linear.work(problem)
    written = float(np.prod(problem.shape[:2])) * np.dtype(problem.dtype).itemsize
    return (moved + written, 1.5 * flops) if of_input else (moved, flops)


def _step(loss: Any, how: Any, of_input: bool, a: Arrays) -> Any:
    """Evaluate a loss of (X, W, b, y), or of options and these, as ``how`` does."""
    import torch

    X, y = torch.from_numpy(a["X"]), torch.from_numpy(a["y"])

    def of_parameters(*arguments: Any) -> Any:
        options, (W, b, *inputs) = arguments[:-n_parameters], arguments[-n_parameters:]
        return loss(*options, inputs[0] if inputs else X, W, b, y)

    parameters = [a["W"], a["b"], *[a["X"]] * of_input]
    n_parameters = len(parameters)
    return how(of_parameters, *parameters)


def with_fastsoftmax(of_input: bool, a: Arrays) -> Any:
    """`fastsoftmax.torch.linear_cross_entropy(X, W, y, linear_bias=b)`, then `backward()`."""
    from fastsoftmax.torch import linear_cross_entropy

    def loss(X: Any, W: Any, b: Any, y: Any) -> Any:
        return linear_cross_entropy(X, W, y, linear_bias=b)

    return _step(loss, frameworks.torch_eager, of_input, a)


def _dense(X: Any, W: Any, b: Any, y: Any) -> Any:
    import torch.nn.functional as F

    return F.cross_entropy(F.linear(X, W, b), y)


def with_torch(of_input: bool, a: Arrays) -> Any:
    """`F.cross_entropy(F.linear(X, W, b), y)`, then `backward()`."""
    return _step(_dense, frameworks.torch_eager, of_input, a)


def with_torch_compiled(of_input: bool, a: Arrays) -> Any:
    """`torch.compile(torch.func.grad_and_value(...))` of the same loss, compiled before."""
    return _step(_dense, frameworks.torch_compiled, of_input, a)


def with_torch_chunked(of_input: bool, a: Arrays) -> Any:
    """`F.linear_cross_entropy`, then `backward()`, the fastest of three sizes of chunks.

    `options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=...)` with 1,024, 4,096 and 16,384
    rows; the brackets say which was the fastest.
    """
    import torch.nn.functional as F

    def loss(options: Any, X: Any, W: Any, b: Any, y: Any) -> Any:
        return F.linear_cross_entropy(X, W, y, linear_bias=b, options=options)

    return _step(loss, frameworks.torch_chunked, of_input, a)


FACTORIES = {
    "fastsoftmax": with_fastsoftmax,
    "torch": with_torch,
    "torch compiled": with_torch_compiled,
    "torch chunked": with_torch_chunked,
}
# The tasks' names, and whether X, as the result of layers below, needs a gradient as well.
TASKS = {"torch_training": False, "torch_training_of_layers_below": True}


def peers(of_input: bool) -> dict[str, Any]:
    return {name: functools.partial(factory, of_input) for name, factory in FACTORIES.items()}


# ------------------------------------------------------------------------------------- memory


def memory(peer: str, problem: Any) -> int:
    """Bytes that a step takes beyond its inputs, gradients included; in a fresh process."""
    from memory import growth

    run = peers(TASKS[problem.task])[peer](linear.make(problem))
    run()
    # A step begins by dropping the gradients of the one before, which are resident until then.
    gradients = sum(np.asarray(result).nbytes for result in run())
    return growth(run) + gradients


def memory_table(problems: list[Any]) -> list[str]:
    """Lines that say what a step of each peer takes for the largest number of classes."""
    import registry

    n_rows, _, n_classes = problems[0].shape
    logits = 4 * n_rows * n_classes
    lines = [
        "",
        f"### Memory of a step beyond its inputs, gradients included, at {problems[0].shape}",
        "",
        f"MiB, and in brackets the share of the logits, which take {logits / MIB:,.0f}.",
        "",
        "| gradients | " + " | ".join(FACTORIES) + " |",
        "|---" * (1 + len(FACTORIES)) + "|",
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        for problem in problems:
            cells = ["W, b and X" if TASKS[problem.task] else "W and b"]
            for peer in FACTORIES:
                if not registry.available(peer):
                    cells.append("")
                    continue
                size = fresh.submit(memory, peer, problem).result()
                cells.append(f"{size / MIB:,.0f} ({100 * size / logits:.0f} %)")
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    import registry
    import report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few rows, to see whether it works")
    options = parser.parse_args()
    target = report.main(
        ["--only", "torch_training", "--name", "torch_training", *["--smoke"] * options.smoke]
    )
    problems = [p for p in registry.PROBLEMS if p.task in TASKS and p.shape == SHAPES[-1]]
    table = memory_table([p.scaled(0.001) for p in problems] if options.smoke else problems)
    with target.open("a") as file:
        file.write("\n".join(table))


if __name__ == "__main__":
    main()
