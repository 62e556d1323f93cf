"""Damaged and hostile model files, checkpoints and data: the result of before, or one line."""

import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest

TRAIN = ["train", "X.npy", "--checkpoint", "c.npz", "--resume", "--output", "resumed.npz",
         "--tol", "1e-3", "--max-iter", "8"]  # fmt: skip


def refused(result, message=""):
    """Whether a command ended in one line and status 2."""
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    return True


def damages(whole):
    """The bytes of a file, truncated and with single bits flipped, at places drawn at random."""
    rng = random.Random(0)
    yield from (whole[: rng.randrange(len(whole))] for _ in range(50))
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


# -------------------------------------------------------------------------- truncated, bits flipped


def test_truncated_and_flipped_models(iris, command):
    whole, output = (iris / "m.npz").read_bytes(), iris / "out.csv"
    np.savez(iris / "rows.npz", X=np.load(iris / "iris.npz")["X"][::9])
    predict = ("predict", "m.npz", "rows.npz", "--proba", "--output", "out.csv")
    assert command(*predict).code == 0
    expected = output.read_bytes()
    n_refused = 0
    for damaged in damages(whole):
        (iris / "m.npz").write_bytes(damaged)
        output.write_bytes(b"as it was")
        result = command(*predict)
        if result.code == 0:
            assert (result.err, output.read_bytes()) == ("", expected)
        else:
            n_refused += 1
            assert refused(result, "m.npz: ")
            assert output.read_bytes() == b"as it was"
        assert (iris / "m.npz").read_bytes() == damaged
    assert n_refused > 150
    assert not list(iris.glob(".*"))


def test_truncated_and_flipped_checkpoints(digits, command):
    assert command(*TRAIN).code == 0
    whole, model = (digits / "c.npz").read_bytes(), (digits / "resumed.npz").read_bytes()
    n_refused = 0
    for damaged in damages(whole):
        (digits / "c.npz").write_bytes(damaged)
        (digits / "resumed.npz").write_bytes(b"as it was")
        result = command(*TRAIN)
        written = (digits / "resumed.npz").read_bytes()
        if result.code == 0:
            assert result.err == "going on from iteration 8 in c.npz\n" + "".join(
                f"{line}\n" for line in result.err.splitlines()[1:] if "max_iter reached" in line
            )
            assert members(written) == members(model)
        else:
            n_refused += 1
            assert refused_in_training(result, "c.npz: ")
            assert written == b"as it was"
            assert (digits / "c.npz").read_bytes() == damaged
    assert n_refused > 150


def refused_in_training(result, message):
    return refused(result._replace(out=""), message)


def members(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
