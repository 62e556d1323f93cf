"""Pictures on the command line: files, what they show, and errors before anything is computed."""

import io
import struct
import sys
import xml.etree.ElementTree

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fastsoftmax.cli import _console
from fastsoftmax.cli._model_files import SavedModel, save_model
from fastsoftmax.cli._plots import Curve, write_plot
from fastsoftmax.cli._scores import Score
from fastsoftmax.linear_model import SoftmaxRegression

NAMES = {
    2: ["no", "yes"],
    10: ["$x_1$", "a\nb", "<b>&amp;", "{x}", "\\frac", "[red]", "", "x" * 300, "été", "\ud800"],
    100: [f"kind {i}" for i in range(100)],
}
CURVE = Curve([(1, 2.0, 0.5), (3, 1.0, 0.1), (5, 0.9, 1e-5)], 1e-4)


def score_of(names, others=0):
    """A score of random rows; the last class never occurs, and the last but one, if there are
    more than two, is never predicted.
    """
    n_classes = len(names)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, n_classes - 1, 2000)
    z = rng.standard_normal((2000, n_classes))
    z[np.arange(2000), truth] += 2
    if n_classes > 2:
        z[:, -2] = -20
    truth[:others] = -1
    result = Score(np.array(names))
    result.add(z - np.log(np.exp(z).sum(axis=1, keepdims=True)), truth)
    return result


def png_size(path):
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return struct.unpack(">II", head[16:])


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_pictures_without_warnings(n_classes, tmp_path):
    """Warnings are errors here, those of missing glyphs and of divisions by zero among them."""
    names = NAMES[n_classes]
    write_plot(tmp_path / "r.svg", "data $x$.csv", score_of(names, others=5))
    text = (tmp_path / "r.svg").read_text()
    assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")
    for expected in ("Confusion matrix", "Calibration", "recall", "(other labels)", "recall –"):
        assert expected in text
    assert ("precision –" in text) == (n_classes > 2)
    shown = {2: names, 10: ["$x_1$", "a\\nb", "\\frac", "x" * 15 + "…", "été", "\\ud800"],
             100: ["kind 0", "kind 4", "kind 8", "lowest F1"]}  # fmt: skip
    for name in shown[n_classes]:
        assert name in text
    assert "data $x$.csv: accuracy" in text
    assert "x" * 17 not in text
    write_plot(tmp_path / "r.PNG", "data", score_of(names), CURVE)
    assert png_size(tmp_path / "r.PNG") == (2400, 1680)


def test_the_ground_is_opaque_and_the_file_always_the_same(tmp_path):
    import matplotlib

    pyplot = "matplotlib.pyplot" in sys.modules
    matplotlib.rcParams["figure.facecolor"] = "black"
    try:
        for name in "ab":
            write_plot(tmp_path / f"{name}.svg", "data", score_of(NAMES[2]))
        assert matplotlib.rcParams["figure.facecolor"] == "black"
    finally:
        matplotlib.rcdefaults()
    text = (tmp_path / "a.svg").read_text()
    assert text.index("fill: #ffffff") < text.index("Confusion")
    assert "#000000" not in text[: text.index("fill: #ffffff")]
    assert (tmp_path / "b.svg").read_text() == text
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_characters_that_no_font_has(tmp_path, monkeypatch, capsys):
    import matplotlib.font_manager as fonts

    own = [font for font in fonts.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(fonts.fontManager, "ttflist", own)
    write_plot(tmp_path / "r.svg", "data", score_of(["北京", "上海", "東"]))
    assert "北京" in (tmp_path / "r.svg").read_text()
    assert capsys.readouterr().err == ""
    write_plot(tmp_path / "r.png", "data", score_of(["北京", "上海", "東"]))
    assert "no font here has 上 京 北 東 海: " in capsys.readouterr().err


@pytest.mark.parametrize("points", [[], [(1, 0.0, 0.0)], CURVE.points])
def test_curves_of_any_length(points, tmp_path):
    write_plot(tmp_path / "r.svg", "data", score_of(NAMES[2]), Curve(points, 0.0))
    assert "passes over the data" in (tmp_path / "r.svg").read_text()


# ------------------------------------------------------------------------- on the command line


def test_evaluate(iris, command):
    (iris / "report.svg").write_text("as it was")
    code, output, errors = command("evaluate", "m.npz", "iris.csv", "--plot", "report.svg")
    assert (code, errors) == (0, "")
    assert "pictures written to report.svg" in output
    text = (iris / "report.svg").read_text()
    assert all(name in text for name in ("setosa", "versicolor", "virginica", "Calibration"))
    assert "iris.csv: accuracy 0." in text
    assert not list(iris.glob(".*"))


def test_train(iris, command):
    arguments = ["train", "iris.csv", "--target", "species", "--checkpoint", "c.npz"]
    code, _, errors = command(*arguments, "--max-iter", "3", "--plot", "first.svg", "--quiet")
    assert code == 0, errors
    code, output, errors = command(*arguments, "--resume", "--plot", "run.svg")
    assert code == 0, errors
    assert "pictures written to run.svg" in output
    for name in ("first.svg", "run.svg"):
        text = (iris / name).read_text()
        assert all(it in text for it in ("Loss", "Gradient", "goal 1e-04", "virginica"))
        assert "iris.csv, held-out rows: accuracy" in text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("r.pdf", "r.pdf: expected .svg or .png as the suffix of --plot"),
        ("r", "r: expected .svg or .png"),
        ("no/r.svg", "no/r.svg: no such directory: no"),
        ("folder.svg", "folder.svg: expected a file to write, got a directory"),
        ("m.png", "m.png: expected "),
    ],
)
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_errors_before_anything_is_read(name, path, message, iris, command):
    (iris / "folder.svg").mkdir()
    (iris / "m.npz").rename(iris / "m.png")
    rest = ["--output", "m.png"] if name == "train" else ["m.png"]
    code, _, errors = command(name, *rest, "missing.csv", "--plot", path)
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors


def test_a_file_that_is_read_is_not_replaced(iris, command):
    (iris / "iris.csv").rename(iris / "iris.svg")
    options = ["iris.svg", "--format", "csv", "--plot", "iris.svg", "--target", "species"]
    for arguments in (["evaluate", "m.npz"], ["train"]):
        code, _, errors = command(*arguments, *options)
        assert (code, "iris.svg: expected another file than those read" in errors) == (2, True)


@pytest.mark.parametrize("arguments", [["train"], ["evaluate", "missing.npz"]], ids=str)
def test_missing_matplotlib(arguments, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, errors = command(*arguments, "missing.csv", "--plot", "r.svg")
    assert code == 2
    assert errors == 'error: --plot needs matplotlib: pip install "fastsoftmax[plot]"\n'


# ------------------------------------------------------------------------------- in the terminal


def cells(output, name):
    """The cells of a class in the table of classes."""
    lines = [line.split("│")[1:-1] for line in output.splitlines() if line.startswith("│")]
    found = [[cell.strip() for cell in line] for line in lines]
    return next(line[1:] for line in found if line[0] == name)


def test_classes_in_the_terminal(iris, command):
    frame = pd.read_csv(iris / "iris.csv")
    frame[frame["species"] != "virginica"].to_csv(iris / "two.csv", index=False)
    code, output, errors = command("evaluate", "m.npz", "two.csv")
    assert (code, errors) == (0, "")
    assert cells(output, "setosa") == ["1.0000", "1.0000", "1.0000", "50"]
    assert cells(output, "virginica")[0] == "–"
    assert cells(output, "virginica")[3] == "0"
    assert "not shown" not in output


def test_of_many_classes_the_weakest_are_shown(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    X, y = np.eye(30, dtype=np.float32).repeat(4, axis=0), np.arange(30).repeat(4)
    names = np.array([f"[b]kind {i}" for i in range(30)])
    model = SoftmaxRegression().fit(X, names[y])
    save_model(tmp_path / "m.npz", SavedModel(model))
    labels = y.copy()
    labels[[20, 21, 22]] = 7  # they look like class 5
    np.savez("t.npz", X=X, y=names[labels])
    code, output, errors = command("evaluate", "m.npz", "t.npz")
    assert (code, errors) == (0, "")
    assert "the 10 of 30 classes with the lowest F1" in output
    assert "20 classes are not shown" in output
    assert cells(output, "[b]kind 5") == ["1.0000", "0.2500", "0.4000", "1"]
    assert cells(output, "[b]kind 7") == ["0.5714", "1.0000", "0.7273", "7"]
    assert output.count("kind") == 10


def test_terminals_without_all_characters(monkeypatch):
    ascii_file = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(_console, "out", Console(file=ascii_file))
    assert _console.printable("été –") == "\\xe9t\\xe9 \\u2013"


def test_names_in_one_line():
    assert _console.readable("a\x1b[31m\n", 40) == "a\\x1b[31m\\n"
    assert _console.readable("x" * 9, 8) == "x" * 7 + "…"
    assert _console.readable(np.float64(0.5), 8) == "0.5"
