"""The command line as a whole: errors and Ctrl-C become one line and an exit status."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastsoftmax.cli._model_files import SavedModel, save_model
from fastsoftmax.linear_model import SoftmaxRegression

BAD_FILES = {
    "empty.csv": "",
    "header.csv": "a,b,species\n",
    "text.csv": "a,b,species\n1,x,s\n2,y,t\n",
    "hole.csv": "a,b,species\n1,2,s\n,3,t\n1,1,s\n",
    "label.csv": "a,b,species\n1,2,\n1,3,t\n1,1,s\n",
    "one.csv": "a,b,species\n1,2,s\n1,3,s\n1,1,s\n",
    "large.csv": "a,b,species\n1,2,s\n1e300,3,t\n1,1,s\n",
    "fake.npz": "no archive at all",
    "data.xyz": "1",
}
ERRORS = [
    (("train", "missing.csv"), "missing.csv: no such file"),
    (("train", "data.xyz"), r"data.xyz: expected .parquet, .csv"),
    (("train", "data.xyz", "--target", "species"), r"data.xyz: expected .parquet, .csv"),
    (("predict", "data.xyz", "iris.csv"), "data.xyz: not a readable .npz file: no whole zip"),
    (("train", "large.csv", "--target", "species"), 'column "a": NaN or infinite in float32'),
    (("evaluate", "m.npz", "iris.csv", "--target", "petal width (cm)"), "or a feature, not both"),
    (("train", "iris.csv"), "no labels"),
    (("train", "iris.csv", "--target", "kind"), 'no column "kind"'),
    (("train", "empty.csv", "--target", "species"), "empty.csv: not a CSV file"),
    (("train", "header.csv", "--target", "species"), "header.csv: no rows"),
    (("predict", "n.npz", "text.csv"), 'column "b": expected numbers, got "x" in row 1'),
    (
        ("train", "hole.csv", "--target", "species"),
        'column "a": missing or infinite value in row 2',
    ),
    (("train", "label.csv", "--target", "species"), "label.csv: row 1: missing label"),
    (("train", "one.csv", "--target", "species"), "at least two classes"),
    (("train", "fake.npz"), "fake.npz: not a readable .npz file"),
    (("train", "digits", "--l2", "-1"), "l2: expected"),
    (("train", "digits", "--dtype", "float16"), "--dtype"),
    (("train", "digits", "--output", "nowhere/m.npz"), "no such directory"),
    (("train",), "Missing argument"),
    (("predict", "iris.npz", "iris.csv"), "not a fastsoftmax model file"),
    (("predict", "m.npz", "text.csv"), "missing feature columns"),
    (("evaluate", "m.npz", "missing.npz"), "missing.npz: no such file"),
    (("dance",), "dance"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_are_one_line_and_status_2(arguments, message, iris, command):
    for name, content in BAD_FILES.items():
        (iris / name).write_text(content)
    save_model(iris / "n.npz", SavedModel(SoftmaxRegression().fit(np.eye(2), [0, 1]), ["a", "b"]))
    code, _, errors = command(*arguments)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("reason", ["", "Unable to allocate 4.8 GiB"])
def test_too_little_memory(reason, iris, command, monkeypatch):
    def exhausted(*_):
        raise MemoryError(reason)

    monkeypatch.setattr("fastsoftmax.sources._text.CSVSource._read", exhausted)
    code, _, errors = command("predict", "m.npz", "iris.csv")
    assert code == 2
    assert errors == "error: not enough memory" + f": {reason}" * bool(reason) + "\n"


def test_no_command_shows_help_and_no_empty_error(command):
    assert "error" not in command().err


def run_python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options
    )


def test_errors_reach_the_shell(tmp_path):
    result = run_python("-m", "fastsoftmax.cli", "train", "missing.csv", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: missing.csv: no such file or directory\n"
    assert result.stdout == ""


def test_missing_extra_is_named():
    code = "import sys; sys.modules['typer'] = None; from fastsoftmax import cli; cli.main()"
    result = run_python("-c", code)
    assert result.returncode == 2
    assert 'pip install "fastsoftmax[train]"' in result.stderr
    assert "Traceback" not in result.stderr


# ----------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_during_training(digits):
    command = [sys.executable, "-m", "fastsoftmax.cli", "train", "X.npy", "--stream", "--dtype",
               "float64", "--l2", "1e-7", "--tol", "0", "--max-iter", "1000000", "--output",
               "m.npz", "--checkpoint", "c.npz", "--checkpoint-every", "0"]  # fmt: skip
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=digits, **pipes) as process:
        while process.poll() is None and not (digits / "c.npz").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert sorted(path.name for path in digits.iterdir()) == ["X.npy", "c.npz", "y.npy"]


def test_ctrl_c_during_imports_even_one_that_swallows_it():
    code = """if True:
        import signal, sys

        class Finder:
            def find_spec(name, path, target=None):
                if name == "numba":
                    try:
                        signal.raise_signal(signal.SIGINT)
                    except BaseException:
                        pass

        sys.meta_path.insert(0, Finder)
        from fastsoftmax import cli
        cli.main()
    """
    result = run_python("-c", code)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "iris.csv", "--target", "species", "--output", "kept"),
        ("evaluate", "m.npz", "iris.csv"),
        ("predict", "m.npz", "iris.csv", "--output", "kept"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_ctrl_c_while_rows_are_read(arguments, iris, command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastsoftmax.sources._text.CSVSource._read", interrupted)
    (iris / "kept").write_text("as it was")
    code, _, errors = command(*arguments)
    assert (code, errors) == (130, "interrupted\n")
    assert (iris / "kept").read_text() == "as it was"
    assert not list(iris.glob(".*"))


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_ctrl_c_while_a_slow_source_is_read(command, iris):
    code = """if True:
        import sys, time
        import fastsoftmax.sources._text as text
        from fastsoftmax import cli

        read = text.CSVSource._read

        def read_slowly(*arguments):
            yield from read(*arguments)
            open("reading", "w").close()
            time.sleep(300)

        text.CSVSource._read = read_slowly
        cli.main()
    """
    arguments = [sys.executable, "-c", code, command, "m.npz", "iris.csv"]
    arguments += ["--output", "kept"] if command == "predict" else []
    (iris / "kept").write_text("as it was")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=iris, **pipes) as process:
        while process.poll() is None and not (iris / "reading").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=300)
    assert (process.returncode, output, errors) == (130, "", "interrupted\n")
    assert (iris / "kept").read_text() == "as it was"
    assert not list(iris.glob(".*"))
