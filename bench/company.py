"""How long calls take in a process, and on a machine, that others use as well.

Each case is timed after nothing, after a pause, right after a product of matrices by NumPy, torch
and JAX in the same process, while scikit-learn works in another one, and while another process
keeps one core busy. Beside it stand the same call on one thread, in the same place and in turn with
it, and for softmax torch's. The package promises that no call takes more than 1.3 times as long as
on one thread in the same place. Writes results/company.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import machine
import numba
import numpy as np
import scipy.sparse as sp

import fastsoftmax as fs
from fastsoftmax.linear_model import LogisticRegression

RESULTS = Path(__file__).parent / "results"
Call = Callable[[], Any]


def features(n: int, d: int, k: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d), dtype=np.float32), rng.integers(0, k, n)


def linear(n: int, d: int, k: int) -> Call:
    (X, y), W = features(n, d, k), np.zeros((k, d), np.float32)
    return lambda: fs.linear_cross_entropy_value_and_grad(X, W, y)


def product(n: int, d: int, k: int) -> Call:
    objective = fs.SoftmaxObjective(*features(n, d, k), n_classes=k)
    w = np.ones(objective.size)
    return lambda: objective.hessp(w, w)


def sparse(n: int, d: int, k: int) -> Call:
    rng = np.random.default_rng(0)
    indptr = np.arange(0, 20 * n + 1, 20)
    values = rng.standard_normal(20 * n, dtype=np.float32)
    X = sp.csr_array((values, rng.integers(0, d, 20 * n), indptr), shape=(n, d))
    objective = fs.SoftmaxObjective(X, rng.integers(0, k, n), n_classes=k)
    return lambda: objective(objective.x0)


def softmax(n: int, k: int) -> Call:
    Z = features(n, k, 2)[0]
    out = np.empty_like(Z)
    return lambda: fs.softmax(Z, axis=1, out=out)


def cross_entropy(n: int, k: int) -> Call:
    (Z, y), out = features(n, k, k), np.empty((n, k), np.float32)
    return lambda: fs.cross_entropy_value_and_grad(Z, y, out=out)


def fit(n: int, d: int, k: int) -> Call:
    X, y = features(n, d, k)
    return lambda: LogisticRegression().fit(X, y)


CASES: dict[str, tuple[Callable[..., Call], tuple[int, ...]]] = {
    "linear (200k, 50, 10)": (linear, (200_000, 50, 10)),
    "linear (20k, 256, 1000)": (linear, (20_000, 256, 1000)),
    "linear (100k, 100, 10)": (linear, (100_000, 100, 10)),
    "linear (2000, 64, 10)": (linear, (2000, 64, 10)),
    "hessp (100k, 100, 10)": (product, (100_000, 100, 10)),
    "CSR (50k, 10k, 10)": (sparse, (50_000, 10_000, 10)),
    "softmax (64, 1000)": (softmax, (64, 1000)),
    "softmax (1000, 100)": (softmax, (1000, 100)),
    "softmax (10k, 1000)": (softmax, (10_000, 1000)),
    "cross_entropy (1000, 1000)": (cross_entropy, (1000, 1000)),
    "fit (20k, 50, 10)": (fit, (20_000, 50, 10)),
    "fit (1500, 64, 10)": (fit, (1500, 64, 10)),
}


def torch_softmax(n: int, k: int) -> Call:
    import torch

    Z = torch.from_numpy(features(n, k, 2)[0])
    out = torch.empty_like(Z)
    return lambda: torch.softmax(Z, 1, out=out)


def multiply_by(library: str) -> Call:
    """Return a product of matrices, large enough to wake all of the library's threads."""
    a = np.ones((1000, 1000), np.float32)
    if library == "torch":
        import torch

        t = torch.from_numpy(a)
        return lambda: t @ t
    if library == "jax":
        import jax

        j, times = jax.numpy.asarray(a), jax.jit(lambda a: a @ a)
        return lambda: times(j).block_until_ready()
    return lambda: a @ a


SKLEARN = """
import numpy as np
from sklearn.linear_model import LogisticRegression
X = np.random.default_rng(0).standard_normal((100000, 100), dtype=np.float32)
while True:
    LogisticRegression(max_iter=20).fit(X, np.arange(100000) % 10)
"""


@contextmanager
def beside(script: str) -> Iterator[None]:
    """Run a script in another process meanwhile."""
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
    time.sleep(4.0)
    try:
        yield
    finally:
        other.kill()
        other.wait()


def alternate(calls: dict[str, Call], before: Call, repeats: int) -> dict[str, float]:
    """Median milliseconds of calls made in turn, ``before`` each of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(repeats + 3):
        random.Random(turn).shuffle(order)  # nobody always comes after the same one
        for name in order:
            before()
            started = time.perf_counter()
            calls[name]()
            if turn >= 3:
                times[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def on_one_thread(call: Call) -> Call:
    def run() -> Any:
        numba.set_num_threads(1)
        try:
            return call()
        finally:
            numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

    return run


def one_case(name: str, place: str, repeats: int, peer: bool) -> None:
    """Print the medians of a case in a place: ours and ours on one thread, or torch's."""
    make, shape = CASES[name]
    if peer:
        calls = {"torch": torch_softmax(*shape)}
    else:
        ours = make(*shape)
        calls = {"ours": ours, "one": on_one_thread(ours)}
    for call in calls.values():
        call()
    before: Call = lambda: None  # noqa: E731
    if place == "a pause of 5 ms":
        before = lambda: time.sleep(0.005)  # noqa: E731
    elif place.startswith("a product by "):
        before = multiply_by(place.removeprefix("a product by ").lower())
    script = {"scikit-learn elsewhere": SKLEARN, "a busy process": "while True: pass"}.get(place)
    with beside(script) if script else nullcontext():
        found = alternate(calls, before, repeats)
    print(*found.values())


def medians(command: list[str]) -> list[float]:
    """What a process of its own prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()]


PLACES = [
    "nothing", "a pause of 5 ms", "a product by NumPy", "a product by torch", "a product by JAX",
    "scikit-learn elsewhere", "a busy process",
]  # fmt: skip


def main() -> None:
    """Measure every case in every place, each in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", default="", help="part of the name of the cases")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        one_case(*options.case, options.repeats, options.torch)
        return
    lines = [
        "# In company", "",
        f"{machine.description()['cpu']}, {machine.N_THREADS} cores, {time.strftime('%Y-%m-%d')}; "
        f"medians of {options.repeats}. A cell: milliseconds, and how many times that is what "
        "one thread takes in the same place; for softmax also what torch takes.", "",
        "| case | " + " | ".join(PLACES) + " |", "|---" * (len(PLACES) + 1) + "|",
    ]  # fmt: skip
    for name in CASES:
        if options.only not in name:
            continue
        cells = []
        for place in PLACES:
            library = place.removeprefix("a product by ").lower()
            if library in ("torch", "jax") and not importlib.util.find_spec(library):
                cells.append("–")
                continue
            command = [sys.executable, __file__, "--repeats", str(options.repeats)]
            command += ["--case", name, place]
            ours, one = medians(command)
            cell = f"{ours:.3g}, {ours / one:.2f}"
            if CASES[name][0] is softmax and importlib.util.find_spec("torch"):
                cell += f", {ours / medians([*command, '--torch'])[0]:.2f}"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    lines += ["", machine.foot(machine.description()), ""]
    if not options.only:
        (RESULTS / "company.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
