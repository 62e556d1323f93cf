"""Checkpoints: the same bits after an end at any moment; other runs' are refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastsoftmax
from fastsoftmax import SoftmaxObjective
from fastsoftmax._optimize import minimize
from fastsoftmax.cli._checkpoints import Checkpoints, load_checkpoint, save_checkpoint
from fastsoftmax.cli._model_files import load_model

RUN = {"l2": 1e-6, "names": ["a", "b"], "nothing": None}


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton-cg"])
def test_every_iteration_can_be_gone_on_from(solver, tmp_path):
    X, y = load_digits(return_X_y=True)
    obj = SoftmaxObjective(X[:600, 10:30], y[:600], l2=1e-5)
    n_saved = 0

    def save(iterate):
        nonlocal n_saved
        save_checkpoint(tmp_path / f"{n_saved}.npz", iterate.state, RUN)
        n_saved += 1

    options = {"solver": solver, "tol": 1e-6, "max_iter": 40}
    whole = minimize.minimize(obj.problem, progress=save, **options)
    for number in sorted({0, 1, n_saved // 2, n_saved - 1}):
        state = load_checkpoint(tmp_path / f"{number}.npz", RUN, len(whole.state.x))
        resumed = minimize.minimize(obj.problem, state=state, **options)
        np.testing.assert_array_equal(resumed.state.x, whole.state.x)
        assert resumed.state.n_iter == whole.state.n_iter
        assert resumed.passes == whole.passes
        assert resumed.state.message == whole.state.message


SIZE = 10 * 65  # of the problem of the digits


def state_of(iterations=3):
    X, y = load_digits(return_X_y=True)
    return minimize.minimize(SoftmaxObjective(X, y).problem, max_iter=iterations)


def test_other_runs_are_refused(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, state_of().state, RUN)
    for change, message in (
        ({"l2": 0.5}, "another run: l2 was 1e-06 there and is 0.5 here"),
        ({"names": ["b", "a"]}, "another run: names was"),
        ({"more": 1}, "another run: more was None there and is 1 here"),
    ):
        with pytest.raises(ValueError, match=f"c.npz: checkpoint of {message}"):
            load_checkpoint(path, {**RUN, **change}, SIZE)


def test_damaged_files_are_refused(tmp_path):
    path, state = tmp_path / "c.npz", state_of().state
    save_checkpoint(path, state, RUN)
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[:-50], whole[:900] + bytes(200) + whole[1100:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="c.npz: not a readable .npz file"):
            load_checkpoint(path, RUN, SIZE)
    np.savez(path, X=np.ones(3))
    with pytest.raises(ValueError, match="c.npz: not a fastsoftmax checkpoint"):
        load_checkpoint(path, RUN, SIZE)
    header = {"format": "fastsoftmax-checkpoint", "version": 99, "run": RUN, "state": {}}
    np.savez(path, header=np.array(json.dumps(header)))
    with pytest.raises(ValueError, match="c.npz: checkpoint format 99"):
        load_checkpoint(path, RUN, SIZE)
    np.savez(path, header=np.array(json.dumps({**header, "version": 5})))
    with pytest.raises(ValueError, match="c.npz: damaged checkpoint"):
        load_checkpoint(path, RUN, SIZE)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path, last = tmp_path / "c.npz", state_of()
    save_checkpoint(path, last.state, RUN)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_checkpoint(path, last.state, RUN)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.npz"]


def test_not_every_iteration_is_written(tmp_path):
    path, last = tmp_path / "c.npz", state_of()
    checkpoints = Checkpoints(path, RUN, seconds=1e9)
    checkpoints(last)
    assert load_checkpoint(path, RUN, SIZE).n_iter == 3
    last.state.n_iter = 4
    checkpoints(last)
    assert load_checkpoint(path, RUN, SIZE).n_iter == 3
    last.state.n_iter = 5  # by the solver, in the middle of an iteration
    checkpoints.write()
    assert load_checkpoint(path, RUN, SIZE).n_iter == 4


# -------------------------------------------------------------------------- the command line

TRAIN = ["train", "X.npy", "--stream", "--dtype", "float64", "--l2", "1e-7", "--tol", "1e-9",
         "--max-iter", "150"]  # fmt: skip


def killed(arguments, checkpoint, n_written):
    """Run a command until it has written so many checkpoints, and kill it a moment later."""
    command = [sys.executable, "-m", "fastsoftmax.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        seen = set()
        while process.poll() is None and len(seen) < n_written:
            if checkpoint.exists():
                seen.add(checkpoint.stat().st_mtime_ns)
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def test_a_kill_and_ctrl_c_at_any_moment_change_no_bit(digits, command, monkeypatch):
    assert command(*TRAIN, "--output", "whole.npz").code == 0
    checkpoint = digits / "c.npz"
    resumed = [*TRAIN, "--output", "m.npz", "--checkpoint", "c.npz", "--resume",
               "--checkpoint-every", "0"]  # fmt: skip
    assert killed(resumed, checkpoint, random.randint(1, 9))
    chunks_left = random.randint(1, 30)

    def interrupted(fit):
        nonlocal chunks_left
        chunks_left -= fit.line.startswith("iteration")
        if chunks_left == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastsoftmax.cli._train._Fit._show_line", interrupted)
        code, _, errors = command(*resumed)
    assert code == 130
    assert "going on from iteration" in errors
    assert errors.endswith("\ninterrupted\n")
    assert not (digits / "m.npz").exists()
    code, _, errors = command(*resumed)
    assert code == 0, errors
    assert "going on from iteration" in errors
    for name in ("coef", "intercept", "n_iter"):
        with np.load(digits / "whole.npz") as whole, np.load(digits / "m.npz") as again:
            np.testing.assert_array_equal(again[name], whole[name])
    # Once more, from the end.
    assert command(*resumed).code == 0
    model = load_model(digits / "m.npz").model
    np.testing.assert_array_equal(model.coef_, load_model(digits / "whole.npz").model.coef_)


@pytest.mark.parametrize("extra", [[], ["--stream"]])
def test_what_resume_says(extra, digits, command):
    arguments = ["train", "X.npy", *extra, "--checkpoint", "c.npz"]
    code, _, errors = command(*arguments, "--max-iter", "5", "--resume")
    assert code == 0
    assert "no checkpoint c.npz: starting afresh" in errors
    before = (digits / "c.npz").read_bytes()
    code, _, errors = command(*arguments)
    assert (code, errors) == (
        2, "error: c.npz: exists: add --resume to go on from it, or remove it\n"
    )  # fmt: skip
    for options, message in (
        (["--l2", "0.5"], "l2 was 0.0001 there and is 0.5 here"),
        (["--tol", "0.5"], "tol was"),
        (["--dtype", "float64"], "dtype was float32 there and is float64 here"),
        (["--seed", "3"], "seed was 0 there and is 3 here"),
        (["--no-intercept"], "intercept was True there and is False here"),
    ):
        code, _, errors = command(*arguments, *options, "--resume", "--output", "never.npz")
        assert code == 2
        assert f"error: c.npz: checkpoint of another run: {message}" in errors
        assert (digits / "c.npz").read_bytes() == before
        assert not (digits / "never.npz").exists()
    longer = ["train", "X.npy", *extra, "--max-iter", "12"]
    code, _, errors = command(
        *longer, "--checkpoint", "c.npz", "--resume", "--output", "resumed.npz"
    )
    assert code == 0
    assert "going on from iteration 5 in c.npz" in errors
    assert command(*longer, "--output", "straight.npz").code == 0
    resumed, straight = (load_model(digits / f"{name}.npz") for name in ("resumed", "straight"))
    np.testing.assert_array_equal(resumed.model.coef_, straight.model.coef_)
    np.testing.assert_array_equal(resumed.model.intercept_, straight.model.intercept_)
    assert resumed.model.n_iter_ == straight.model.n_iter_ == 12


def test_other_data_and_versions_are_refused(digits, command, monkeypatch):
    arguments = ["train", "X.npy", "--stream", "--checkpoint", "d.npz", "--max-iter", "3"]
    assert command(*arguments).code == 0
    X = np.load(digits / "X.npy")
    changed = X.copy()
    changed[300, 10] += 1
    np.save(digits / "X.npy", changed)
    code, _, errors = command(*arguments, "--resume")
    np.save(digits / "X.npy", X)
    assert code == 2
    assert "error: d.npz: checkpoint of another run: data was" in errors
    monkeypatch.setattr(fastsoftmax, "__version__", "99.0")
    code, _, errors = command(*arguments, "--resume")
    assert code == 2
    assert "another run: version was" in errors
