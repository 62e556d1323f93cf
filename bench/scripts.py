"""Scripts as one finds them, timed with another library's import and with fastsoftmax's.

Each run is a process of its own, timed from its start to its end: imports, data and all that the
two have in common included; kernels come from the disk cache. The scripts are those of
tests/scripts, where a test compares their answers. Writes results/scripts.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
from script_sources import SCRIPTS, sources  # noqa: E402

RESULTS = Path(__file__).parent / "results"
# What the scripts take as their argument: points a class, copies of the digits, every so many
# paragraphs, copies of the digits.
SIZES = {"spiral_numpy": 50_000, "digits_minimize": 10, "text_pipeline": 4, "torch_probe": 20}
WHAT = {
    "spiral_numpy": "gradient descent in NumPy, `softmax` of SciPy",
    "digits_minimize": "SciPy's `minimize`, its `logsumexp` and `softmax`",
    "text_pipeline": "scikit-learn's pipeline and grid search on text",
    "torch_probe": "torch, `linear_cross_entropy` and AdamW",
}


def seconds(path: Path, argument: int) -> float:
    """Seconds that a script takes as a process."""
    time.sleep(machine.PAUSE)
    started = time.perf_counter()
    command = [sys.executable, "-W", "ignore", str(path), str(argument)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Time all scripts and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--small", action="store_true", help="a trial; like --only it writes nothing"
    )
    parser.add_argument("--only", default="", help="scripts whose name contains this")
    options = parser.parse_args()
    about = machine.description()
    lines = [
        "# Other people's scripts, one import changed", "",
        f"{about['cpu']}, {machine.N_THREADS} cores, {about['date']}; seconds of whole processes, "
        f"imports included, medians of {options.repeats} turns.", "",
        "| script | | argument | as it is | with fastsoftmax | |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in (name for name in SCRIPTS if options.only in name):
        size = SIZES[name] if not options.small else 20 if name == "text_pipeline" else 1
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, f"{who}.py") for who in ("theirs", "ours")]
            for path, source in zip(paths, sources(name), strict=True):
                path.write_text(source)
            seconds(paths[1], size)  # compiles what is not in the cache
            times = [[seconds(path, size) for path in paths] for _ in range(options.repeats)]
        theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
        lines.append(f"| [{name}.py](../../tests/scripts/{name}.py) | {WHAT[name]} | {size:,} | "
                     f"{theirs:.2f} | {ours:.2f} | {theirs / ours:.1f}x |")  # fmt: skip
        print(lines[-1], flush=True)
    lines += ["", machine.foot(about), ""]
    if not (options.small or options.only):
        (RESULTS / "scripts.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
