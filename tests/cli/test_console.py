"""What the commands print while they work."""

import io

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
