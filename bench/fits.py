"""Whole fits to the same objective: ``python bench/fits.py [--only NAME] [--quick]``.

Every solver stops as early as it can at a loss within 1e-6 of the best known, relatively; nothing
is timed that falls short of it. Results are kept problem by problem, so that a part may be run
again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import traceback
from pathlib import Path
from typing import Any

import fit_batches
import fit_peers
import fit_rivals
import machine
import numpy as np
from fit_problems import PROBLEMS, FitProblem

RESULTS = Path(__file__).parent / "results" / "fits"
_POLISH = 20


def best_known(problem: FitProblem, X: Any, y: np.ndarray) -> dict[str, float]:
    """The lowest loss: of a tight run of ours in float64, and of scikit-learn going on from it."""
    from sklearn.linear_model import LogisticRegression

    from fastsoftmax import SoftmaxObjective
    from fastsoftmax._optimize import minimize

    X = X.astype(np.float64)
    last = minimize.minimize(SoftmaxObjective(X, y, l2=problem.l2).problem, tol=1e-9, max_iter=1000)
    ours = fit_peers.loss_of(X, y, problem.l2, *last.parameters)
    C = 1 / (2 * problem.l2 * X.shape[0])
    model = LogisticRegression(C=C, tol=1e-14, max_iter=_POLISH, warm_start=True)
    model.classes_ = np.unique(y)
    model.coef_, model.intercept_ = last.parameters
    model.fit(X, y)
    peer = fit_peers.loss_of(X, y, problem.l2, model.coef_, model.intercept_)
    return {"loss": min(ours, peer), "ours": ours, "peer": peer, "gradient": last.gradient_norm}


def in_process(function: Any, *arguments: Any, seconds: float = 600) -> Any:
    """Run in a process of its own: no library's idle threads spin on another one's cores."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(seconds) else "took too long"
    except EOFError:
        return "the process died"
    finally:
        process.kill()
        process.join()


def _serve(connection: Any, function: Any, arguments: Any) -> None:
    try:
        connection.send(function(*arguments))
    except Exception as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {error}".splitlines()[0][:200])


def load(directory: str) -> tuple[Any, np.ndarray]:
    from scipy import sparse

    path = Path(directory)
    X = sparse.load_npz(path / "X.npz") if (path / "X.npz").exists() else np.load(path / "X.npy")
    return X, np.load(path / "y.npy")


def save(directory: str, X: Any, y: np.ndarray) -> None:
    from scipy import sparse

    path = Path(directory)
    if sparse.issparse(X):
        sparse.save_npz(path / "X.npz", X, compressed=False)
    else:
        np.save(path / "X.npy", X)
    np.save(path / "y.npy", y)


def _best(problem_name: str, directory: str) -> dict[str, float]:
    return best_known(_problem(problem_name), *load(directory))


def _measure(problem_name: str, peer_name: str, directory: str, *how: Any) -> dict[str, Any]:
    peer = next(peer for peer in peers_of(problem_name) if peer.name == peer_name)
    return peer.measure(*load(directory), _problem(problem_name).l2, *how)


def _problem(name: str) -> FitProblem:
    return next(problem for problem in PROBLEMS if problem.name == name)


def peers_of(problem_name: str) -> list[Any]:
    """Ours, and what can solve the problem."""
    peers, is_double = fit_rivals.DENSE_PEERS, problem_name.endswith("float64")
    if "csr" in problem_name:
        peers = fit_rivals.SPARSE_PEERS
    elif "digits" in problem_name:
        kept = [p for p in fit_rivals.UNSCALED_PEERS if "float64" in p.steps or not is_double]
        return [*fit_rivals.OURS, *kept]
    return [*fit_rivals.OURS, *(p for p in peers if not (is_double and "float64" in p.steps))]


def measure(problem: FitProblem, options: Any, keep: Any) -> None:
    """Everybody's row for a problem, kept as they come."""
    rows: dict[str, dict[str, Any]] = {}
    fastest: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        n_rows = problem.n_rows // 10 if options.quick else problem.n_rows
        X, y = problem.make(n_rows)
        save(directory, X, y)
        del X, y
        best = in_process(_best, problem.name, directory)
        print(f"{problem.name}: {best}", flush=True)
        result = {"about": problem.about, "l2": problem.l2, "best": best, "rows": rows,
                  "fastest": fastest, "promises": problem.promises}  # fmt: skip
        for peer in peers_of(problem.name):
            if fit_rivals.missing(peer):
                rows[peer.name] = {"failed": "not installed"}
                continue
            # Whoever is half as slow again as its library's fastest is not the fastest.
            known = fastest.get(peer.library, np.inf)
            limit = min(options.limit, 1.5 * known + 1)
            how = (best["loss"], limit, 1 if options.quick else 3)
            row = in_process(_measure, problem.name, peer.name, directory, *how)
            rows[peer.name] = row if isinstance(row, dict) else {"failed": row}
            print(f"  {peer.name}: {row}", flush=True)
            if rows[peer.name].get("reached"):
                assert row["excess"] > -1e-8, "the best known loss is not the best"
                fastest[peer.library] = min(known, row["seconds"])
            keep(problem.name, result)


def ratios(result: dict[str, Any]) -> dict[str, str]:
    """How many times as long as our estimator a library's fastest solver takes."""
    ours, found = result["fastest"].get("fastsoftmax"), {}
    for library in fit_rivals.LIBRARIES:
        rows = [
            row
            for name, row in result["rows"].items()
            if name.startswith(library + " ") and "failed" not in row
        ]
        if ours is None or not rows:
            continue
        if library in result["fastest"]:
            found[library] = f"{result['fastest'][library] / ours:.1f}x"
        else:
            # What stops by itself before it gets there says nothing of time.
            ended = [r["seconds"] for r in rows if r.get("why") == "time"]
            found[library] = f"> {max(ended) / ours:.1f}x" if ended else "never there"
    return found


def table(name: str, result: dict[str, Any]) -> list[str]:
    promised = ", ".join(f"{n}x {library}" for library, n in result["promises"].items())
    compared = ", ".join(f"{library} {ratio}" for library, ratio in ratios(result).items())
    lines = [
        f"## {name}",
        "",
        f"{result['about']}; l2 = {result['l2']:g}. Best known loss {result['best']['loss']:.9g}. "
        f"**The fastest of a library, as a multiple of ours: {compared}** (wanted: {promised}).",
        "",
        "| solver | seconds | iterations | passes | excess |",
        "|---|---|---|---|---|",
    ]
    for peer, row in result["rows"].items():
        if "failed" in row:
            lines.append(f"| {peer} | {row['failed']} | | | |")
            continue
        seconds = f"{row['seconds']:.3g}"
        if not row["reached"]:
            early = row["why"] != "time"
            seconds = "never: stops by itself" if early else f"> {seconds}"
        lines.append(
            f"| {peer} | {seconds} | {row['iterations']} | {row['passes']} | {row['excess']:.1e} |"
        )
    return [*lines, ""]


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "Seconds of a whole fit, median, each solver in a process of its own and told to stop as "
        "early as it can at a loss at most 1e-6 above the best known, relatively: ours by `tol`, "
        "others by `max_iter`, which was found in a run that watched their iterates. A pass is an "
        "evaluation or a Hessian product; those that build a preconditioner or a Hessian are not "
        'counted. "> s" is a run ended when it had taken half as long again as the fastest of its '
        "library, or at the limit; the excess is what it had reached.",
        "",
    ]
    for name, result in results["problems"].items():
        lines += table(name, result)
        lines += [f"{result['machine']}.", ""]
    if "batches" in results:
        lines += fit_batches.table(results["batches"])
    return "\n".join([*lines, machine.foot(results["machine"]), ""])


def write(results: dict[str, Any], target: Path) -> None:
    order = [problem.name for problem in PROBLEMS]
    found = results["problems"]
    results["problems"] = {name: found[name] for name in order if name in found}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows, to see that all works")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--limit", type=float, default=60, help="seconds a solver may take")
    options = parser.parse_args()
    target = RESULTS.with_name("fits-quick") if options.quick else RESULTS
    results: dict[str, Any] = {"problems": {}}
    if target.with_suffix(".json").exists():
        results = json.loads(target.with_suffix(".json").read_text())
    on = results["machine"] = machine.description()

    def keep(name: str, result: dict[str, Any]) -> None:
        # Problems may be measured one by one, on several machines.
        result["machine"] = f"{on['cpu']}, {on['threads']} threads, {on['date']}"
        results["problems"][name] = result
        write(results, target)

    for problem in PROBLEMS:
        if options.only in problem.name:
            measure(problem, options, keep)
    if options.only in fit_batches.NAME:
        results["batches"] = fit_batches.measure(in_process, options.quick)
        write(results, target)
    print(f"written: {target}.md")


if __name__ == "__main__":
    main()
