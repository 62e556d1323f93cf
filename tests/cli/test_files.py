"""Files that are written: whole or not at all, and never over one that is read."""

import os

import pytest

from fastsoftmax.cli._files import check_writable, replacing


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "kept").write_text("as it was")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "kept") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "kept").read_text() == "as it was"
    assert os.listdir(tmp_path) == ["kept"]


def test_directories_are_not_writable_files(tmp_path):
    with pytest.raises(ValueError, match="expected a file to write, got a directory"):
        check_writable(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "m.npz", "iris.csv", "--output", "iris.csv"),
        ("predict", "m.npz", "iris.csv", "--output", "m.npz"),
        ("train", "iris.csv", "--target", "species", "--output", "iris.csv"),
        ("train", "iris.csv", "--target", "species", "--resume", "--checkpoint", "iris.csv"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_nothing_that_is_read_is_written_over(arguments, iris, command):
    before = (iris / arguments[-1]).read_bytes()
    code, _, errors = command(*arguments)
    assert code == 2
    assert "expected another file than those read" in errors
    assert (iris / arguments[-1]).read_bytes() == before
