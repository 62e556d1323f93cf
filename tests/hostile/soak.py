"""Threads, child processes and damaged caches: the same bits, and no process that dies.

    python tests/hostile/soak.py              # a minute on each threading layer, and the rest
    python tests/hostile/soak.py --seconds 3  # shorter

Prints a line for each trial, and leaves with 1 if one failed.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAYERS = ("omp", "workqueue")
METHODS = ("fork", "forkserver", "spawn")
DAMAGES = ("empty", "torn", "garbage", "flipped", "unwritable", "not a folder")
TIMEOUT = 900

# What every process evaluates: a list of functions, each of which gives bytes.
WORK = """
import numpy as np
import fastsoftmax as fs

rng = np.random.default_rng(0)
X = rng.standard_normal((6000, 40)).astype(np.float32)
Z, y = X[:, :12].copy(), rng.integers(0, 12, 6000)
W, w = rng.standard_normal((12, 40)), rng.standard_normal(12 * 41)


def flat(result):
    if isinstance(result, tuple):
        return b"".join(flat(part) for part in result if part is not None)
    return np.asarray(result).tobytes()


def thin():
    from scipy.sparse import csr_array

    return csr_array(np.where(rng.random(X.shape) < 0.2, X, 0))


CALLS = {
    "softmax": lambda: fs.softmax(Z, 1),
    "log_softmax": lambda: fs.log_softmax(X, 0),
    "logsumexp": lambda: fs.logsumexp(X, 1),
    "cross_entropy": lambda: fs.cross_entropy_value_and_grad(Z, y),
    "linear": lambda: fs.linear_cross_entropy_value_and_grad(X, W, y, input_grad=True),
    "rows": lambda: fs.linear_cross_entropy(X, W, y, reduction="none"),
}
"""
MORE = """
obj = fs.SoftmaxObjective(X, y, l2=0.01)
sparse = fs.SoftmaxObjective(thin(), y, l2=0.01)
chunked = fs.SoftmaxObjective.from_chunks(
    lambda: ((X[a : a + 700], y[a : a + 700]) for a in range(0, 6000, 700)),
    n_features=40, n_classes=12, l2=0.01)
CALLS |= {
    "objective": lambda: obj(w), "value": lambda: obj.value(w), "hessp": lambda: obj.hessp(w, w),
    "hess_diag": lambda: obj.hess_diag(w), "sparse": lambda: sparse(w),
    "chunks": lambda: chunked(w), "sparse hessp": lambda: sparse.hessp(w, w),
}
"""
THREADS = """
import random, sys, threading, time
names = list(CALLS)
want = {name: flat(CALLS[name]()) for name in names}
assert want["objective"] == want["chunks"]
stop, made, wrong = time.monotonic() + SECONDS, [0] * 8, []

def work(number):
    order = random.Random(number)
    while time.monotonic() < stop:
        name = order.choice(names)
        try:
            if flat(CALLS[name]()) != want[name]:
                wrong.append(name)
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
        made[number] += 1

threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
import numba
print(f"{sum(made)} calls on {numba.threading_layer()}, wrong: {wrong[:5]}")
sys.exit(bool(wrong))
"""
CHILDREN = """
import multiprocessing, sys, threading

def child(_=None):
    return {name: flat(call()) for name, call in CALLS.items()}

if __name__ == "__main__":
    want = child()
    busy = threading.Thread(target=lambda: [child() for _ in range(3)])
    busy.start()  # a process forked meanwhile inherits locks as they are
    with multiprocessing.get_context(METHOD).Pool(3) as pool:
        got = pool.map_async(child, range(6)).get(600)
    busy.join()
    assert child() == want
    print(f"{len(got)} evaluations in children")
    sys.exit(got != [want] * 6)
"""
SMALL = """
import numpy as np, fastsoftmax as fs, hashlib
X = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
result = fs.softmax(X, 1), fs.cross_entropy(X, np.arange(50) % 7)
print(hashlib.sha256(result[0].tobytes() + np.float64(result[1]).tobytes()).hexdigest())
"""


def start(program, folder, **environment):
    """Run a program in a process of its own; return its status, output and errors."""
    path = Path(folder) / "program.py"
    path.write_text(program)
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": python_path, **environment}
    try:
        result = subprocess.run(
            [sys.executable, "-W", "error", str(path)], env=environment, capture_output=True,
            text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "", "timed out"
    return result.returncode, result.stdout.strip(), result.stderr.strip()


def threads(layer, seconds, folder):
    """Eight threads over all entry points."""
    program = WORK + MORE + THREADS.replace("SECONDS", str(seconds))
    return start(program, folder, NUMBA_THREADING_LAYER=layer)


def children(method, folder):
    """A pool of processes while the parent computes in another thread."""
    return start(WORK + CHILDREN.replace("METHOD", repr(method)), folder)


def damage(cache, kind):
    """Damage every file of a cache; return what NUMBA_CACHE_DIR is to be."""
    if kind == "unwritable":  # for root, too
        return "/proc/nowhere"
    if kind == "not a folder":
        path = cache / "file"
        path.write_bytes(b"")
        return str(path)
    for path in cache.rglob("*.nb[ic]"):
        content = bytearray(path.read_bytes())
        if kind == "empty":
            content = b""
        elif kind == "torn":
            content = content[: len(content) // 2]
        elif kind == "garbage":
            content = b"garbage" * 1000
        else:
            content[len(content) // 2] ^= 16
        path.write_bytes(content)
    return str(cache)


def damaged_cache(kind, warm, want, folder):
    """A process that finds a damaged cache, and the next one."""
    cache = Path(folder) / "cache"
    shutil.copytree(warm, cache)
    place = damage(cache, kind)
    for _ in range(2):
        outcome = start(SMALL, folder, NUMBA_CACHE_DIR=place)
        if outcome[:2] != (0, want):
            return outcome
    return outcome


def shared_cache(want, folder):
    """Eight processes that begin at once with one empty cache."""
    folders = [Path(folder) / str(i) for i in range(8)]
    for path in folders:
        path.mkdir()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        cache = str(Path(folder) / "cache")
        outcomes = list(pool.map(lambda f: start(SMALL, f, NUMBA_CACHE_DIR=cache), folders))
    bad = [outcome for outcome in outcomes if outcome[:2] != (0, want)]
    return bad[0] if bad else (0, "8 processes", "")


def trials(seconds, only):
    """Names of trials and functions that make them."""
    for layer in LAYERS:
        yield f"threads {layer}", lambda folder, layer=layer: threads(layer, seconds, folder)
    for method in METHODS:
        yield f"children {method}", lambda folder, method=method: children(method, folder)
    if only and not any(name.startswith("cache") for name in only):
        return
    with tempfile.TemporaryDirectory() as warm:
        cache = os.path.join(warm, "cache")
        code, want, errors = start(SMALL, warm, NUMBA_CACHE_DIR=cache)
        assert code == 0, errors
        for kind in DAMAGES:
            yield (
                f"cache {kind}",
                lambda folder, kind=kind: damaged_cache(kind, cache, want, folder),
            )
        yield "cache shared", lambda folder: shared_cache(want, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of trials' names")
    arguments = parser.parse_args()
    outcomes = {}
    for name, trial in trials(arguments.seconds, arguments.only):
        if arguments.only and not any(name.startswith(start) for start in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            code, output, errors = trial(folder)
        outcomes[name] = code
        print(f"{name}: {'ok' if code == 0 else 'FAILED'} ({code}) {output}", flush=True)
        if code != 0:
            print(errors[-2000:], flush=True)
    sys.exit(any(code != 0 for code in outcomes.values()))


if __name__ == "__main__":
    main()
