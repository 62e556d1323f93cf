"""Threads, child processes and damaged caches: the same bits, and no process that dies.

    python tests/hostile/soak.py              # a minute for each kind of threads, and the rest
    python tests/hostile/soak.py --seconds 3  # shorter

Prints a line for each trial and the sums, and leaves with 1 if one failed.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# On which threads kernels run, as environment variables of the process.
THREADS = {
    "team": {},
    "omp": {"FASTSOFTMAX_THREADS": "numba", "NUMBA_THREADING_LAYER": "omp"},
    "workqueue": {"FASTSOFTMAX_THREADS": "numba", "NUMBA_THREADING_LAYER": "workqueue"},
}
METHODS = ("fork", "forkserver", "spawn")
DAMAGES = ("empty", "torn", "garbage", "flipped", "full", "unwritable", "not a folder")
# Python 3.12 warns of every fork of a process that has threads, which is what is tried here.
COMMAND = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
TIMEOUT = 1800

# What every process evaluates: functions, by name, each of which gives bytes.
WORK = """
import warnings
import numpy as np
import fastsoftmax as fs
from fastsoftmax.linear_model import LogisticRegression, SoftmaxRegression
from scipy.sparse import csr_array

warnings.filterwarnings("ignore", "(?s).*stopped after 3 iterations")
rng = np.random.default_rng(0)
X = rng.standard_normal((6000, 40)).astype(np.float32)
Z, y = X[:, :12].copy(), rng.integers(0, 12, 6000)
W, w = rng.standard_normal((12, 40)), rng.standard_normal(12 * 41)
T = rng.random((6000, 12)).astype(np.float32)
S = csr_array(np.where(rng.random(X.shape) < 0.2, X, 0))
weight = rng.random(6000)


def flat(result):
    if isinstance(result, tuple):
        return b"".join(flat(part) for part in result if part is not None)
    return np.asarray(result).tobytes()


def batches():
    model = SoftmaxRegression(l2=0.01, random_state=0)
    for a in range(0, 600, 200):
        model.partial_fit(X[a : a + 200], y[a : a + 200], classes=range(12))
    return model.coef_, model.predict_proba(X)


def fit(estimator, X):
    model = estimator(max_iter=3).fit(X[:600], y[:600])
    return model.coef_, model.intercept_


obj = fs.SoftmaxObjective(X, y, l2=0.01)
sparse = fs.SoftmaxObjective(S, y, l2=0.01)
chunked = fs.SoftmaxObjective.from_chunks(
    lambda: ((X[a : a + 700], y[a : a + 700]) for a in range(0, 6000, 700)),
    n_features=40, n_classes=12, l2=0.01)
CALLS = {
    "softmax": lambda: fs.softmax(Z, 1),
    "softmax of columns": lambda: fs.softmax(X, 0),
    "log_softmax": lambda: fs.log_softmax(X, 0),
    "logsumexp": lambda: fs.logsumexp(X, 1),
    "cross_entropy": lambda: fs.cross_entropy(Z, y, reduction="none"),
    "cross_entropy gradient": lambda: fs.cross_entropy_value_and_grad(Z, T),
    "linear": lambda: fs.linear_cross_entropy_value_and_grad(X, W, y, input_grad=True),
    "linear sparse": lambda: fs.linear_cross_entropy_value_and_grad(S, W, T, input_grad=True),
    "linear_softmax": lambda: fs.linear_softmax(X, W),
    "linear_log_softmax": lambda: fs.linear_log_softmax(S, W),
    "linear_argmax": lambda: fs.linear_argmax(X, W, bias=w[:12]),
    "rows": lambda: fs.linear_cross_entropy(X, W, y, reduction="none", sample_weight=weight),
    "objective": lambda: obj(w), "value": lambda: obj.value(w), "hessp": lambda: obj.hessp(w, w),
    "hess_diag": lambda: obj.hess_diag(w), "sparse": lambda: sparse(w),
    "hess": lambda: obj.hess(w), "sparse hess": lambda: sparse.hess(w),
    "chunks": lambda: chunked(w), "sparse hessp": lambda: sparse.hessp(w, w),
    "partial_fit": batches,
    "fit": lambda: fit(SoftmaxRegression, X), "sparse fit": lambda: fit(SoftmaxRegression, S),
    "LogisticRegression": lambda: fit(LogisticRegression, X),
}
"""
EIGHT = """
import os, random, sys, threading, time
names = list(CALLS)
want = {name: flat(CALLS[name]()) for name in names}
assert want["objective"] == want["chunks"]
stop, made, wrong = time.monotonic() + SECONDS, [dict.fromkeys(names, 0) for _ in range(8)], []

def work(number):
    order = random.Random(number)
    while time.monotonic() < stop:
        name = order.choice(names)
        try:
            if flat(CALLS[name]()) != want[name]:
                wrong.append(name)
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
        made[number][name] += 1

threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if layer := os.environ.get("NUMBA_THREADING_LAYER"):
    import numba
    assert numba.threading_layer() == layer
else:
    names_of_threads = [thread.name for thread in threading.enumerate()]
    assert sum(name.startswith("fastsoftmax-helper") for name in names_of_threads) == 3
missed = [name for name in names if not any(counts[name] for counts in made)]
print(f"{sum(sum(counts.values()) for counts in made)} calls, wrong: {wrong[:5]}", end="")
print(f", never made: {missed}" * bool(missed))
sys.exit(bool(wrong or missed))
"""
CHILDREN = """
import multiprocessing, sys, threading

def child(_=None):
    return {name: flat(call()) for name, call in CALLS.items()}

if __name__ == "__main__":
    want = child()
    stop = threading.Event()

    def compute_on():
        while not stop.is_set():
            child()

    busy = [threading.Thread(target=compute_on) for _ in range(2)]
    [thread.start() for thread in busy]  # a process forked meanwhile inherits locks as they are
    with multiprocessing.get_context(METHOD).Pool(3, maxtasksperchild=2) as pool:
        got = pool.map_async(child, range(12), chunksize=1).get(1500)
    stop.set()
    [thread.join() for thread in busy]
    assert child() == want
    print(f"{len(got) * len(CALLS)} calls in children")
    sys.exit(got != [want] * 12)
"""
SMALL = """
import numpy as np, fastsoftmax as fs, hashlib
X = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
result = fs.softmax(X, 1), fs.cross_entropy(X, np.arange(50) % 7)
print(hashlib.sha256(result[0].tobytes() + np.float64(result[1]).tobytes()).hexdigest())
"""
# No file may become longer than this, as on a disk that is full.
FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""


def start(program, folder, **environment):
    """Run a program in a process of its own; return its status, output and errors."""
    path = Path(folder) / "program.py"
    path.write_text(program)
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": python_path, **environment}
    try:
        result = subprocess.run(
            [*COMMAND, str(path)], env=environment, capture_output=True, text=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "", "timed out"
    return result.returncode, result.stdout.strip(), result.stderr.strip()


def eight_threads(kind, seconds, folder):
    """Eight threads over all entry points, each with kernels on up to four threads."""
    program = WORK + EIGHT.replace("SECONDS", str(seconds))
    return start(program, folder, NUMBA_NUM_THREADS="4", **THREADS[kind])


def children(kind, method, folder):
    """A pool of processes while the parent computes in other threads."""
    program = WORK + CHILDREN.replace("METHOD", repr(method))
    return start(program, folder, NUMBA_NUM_THREADS="4", **THREADS[kind])


def damage(cache, kind):
    """Damage every file of a cache; return what NUMBA_CACHE_DIR is to be."""
    if kind == "full":
        return str(cache / "new")
    if kind == "unwritable":  # for root, too
        return "/proc/nowhere"
    if kind == "not a folder":
        path = cache / "file"
        path.write_bytes(b"")
        return str(path)
    files = list(cache.rglob("*.nbc"))
    assert files, "nothing is cached"
    for path in files:
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
        outcome = start(FULL_DISK * (kind == "full") + SMALL, folder, NUMBA_CACHE_DIR=place)
        if outcome[:2] != (0, want):
            return outcome[0] or 1, *outcome[1:]
    return 0, "2 processes", ""


def shared_cache(want, folder):
    """Eight processes that begin at once with one empty cache."""
    folders = [Path(folder) / str(i) for i in range(8)]
    for path in folders:
        path.mkdir()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        cache = str(Path(folder) / "cache")
        outcomes = list(pool.map(lambda f: start(SMALL, f, NUMBA_CACHE_DIR=cache), folders))
    bad = [outcome for outcome in outcomes if outcome[:2] != (0, want)]
    return (bad[0][0] or 1, *bad[0][1:]) if bad else (0, "8 processes", "")


def trials(seconds, only):
    """Names of trials and functions that make them."""
    for kind in THREADS:
        yield f"threads {kind}", lambda folder, kind=kind: eight_threads(kind, seconds, folder)
    for kind in THREADS:
        for method in METHODS:
            yield (
                f"children {kind} {method}",
                lambda folder, kind=kind, method=method: children(kind, method, folder),
            )
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
    failed = 0
    counts = {"trials": 0, "calls": 0, "processes": 0}
    for name, trial in trials(arguments.seconds, arguments.only):
        if arguments.only and not any(name.startswith(start) for start in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            code, output, errors = trial(folder)
        failed, counts["trials"] = failed + (code != 0), counts["trials"] + 1
        if count := re.match(r"(\d+) (calls|processes)", output):
            counts[count[2]] += int(count[1])
        print(f"{name}: {'ok' if code == 0 else 'FAILED'} ({code}) {output}", flush=True)
        if code != 0:
            print(errors[-2000:], flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()) + f", {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
