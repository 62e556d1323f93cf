"""What the commands print while they work."""

import io
import os
import subprocess
import sys

import pandas as pd
import pytest
from rich.console import Console

from fastsoftmax.cli import _console, _train
from fastsoftmax.cli._console import seconds_left


def test_the_time_left_follows_the_fall_of_the_gradient():
    falling = [(float(i), 10.0**-i) for i in range(5)]
    assert seconds_left(falling, 1e-6) == pytest.approx(2)
    assert seconds_left(falling, 1e-3) == 0
    # Only the later half counts.
    assert seconds_left([(-1.0, 5.0), (-0.5, 5.0), *falling], 1e-6) == pytest.approx(2)
    for history, goal in (
        ([], 1e-6), (falling[:3], 1e-6), (falling, 0.0), (falling[::-1], 1e-6),
        ([(float(i), 0.0) for i in range(5)], 1e-6),
    ):  # fmt: skip
        assert seconds_left(history, goal) is None


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["memory", "stream"])
def test_progress_on_a_terminal_alone(terminal, stream, iris, command, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    for module in (_console, _train):
        monkeypatch.setattr(module, "out", console)
    train = ["train", "iris.csv", "--target", "species", *stream]
    assert command(*train).code == 0
    shown = console.file.getvalue()
    assert ("gradient" in shown and "(goal 1e-04)" in shown and "left (an estimate)" in shown) == (
        terminal
    )
    rows = shown.split("training rows")[1].split("│")[1].strip()
    assert (f"{rows} of {rows} rows" in shown) == (terminal and bool(stream))


def test_quiet(iris, command):
    train = ["train", "iris.csv", "--target", "species", "--output", "q.npz"]
    result = command(*train, "--quiet", "--max-iter", "2")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("warning: stopped after 2 iterations")
    assert (iris / "q.npz").exists()
    assert "model written to" in command(*train).out


def test_brackets_in_warnings_are_no_markup(tmp_path, monkeypatch, command):
    (tmp_path / "[").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, label in (("[/a].csv", "[b]"), ("[/b].csv", "[/c]")):
        pd.DataFrame({"v": [0.0, 1.0] * 50, "y": ["a", label] * 50}).to_csv(name, index=False)
    train = ["train", "[/a].csv", "--target", "y", "--output", "[/m].npz"]
    train += ["--checkpoint", "[/c].npz", "--resume"]
    for message in ("no checkpoint [/c].npz", "going on from iteration", "[/c].npz"):
        result = command(*train)
        assert result.code == 0 and message in result.err
    result = command("evaluate", "[/m].npz", "[/b].csv")
    assert result.code == 0 and "warning: [/b].csv: labels" in result.err
    assert "text ([/c])" in result.err


def test_names_on_an_ascii_terminal(tmp_path):
    pd.DataFrame({"é": ["ü", "x"] * 50, "y": ["ja→", "no"] * 50}).to_csv(tmp_path / "a.csv")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in (
        ["train", "a.csv", "--target", "y", "--output", "ö.npz", "--features", "é"],
        ["info", "ö.npz"],
        ["coefficients", "ö.npz"],
        ["evaluate", "ö.npz", "a.csv"],
    ):
        command = [sys.executable, "-m", "fastsoftmax.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\u2192" in done.stdout or arguments[0] == "train"
