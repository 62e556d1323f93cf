"""Files that are written: whole or not at all, and never over one that is read."""

import os
import socket
import stat

import pytest

from fastsoftmax.cli._files import check_writable, replacing


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "kept").write_text("as it was")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "kept") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "kept").read_text() == "as it was"
    assert os.listdir(tmp_path) == ["kept"]


def write(path, text="new"):
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_permissions(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("as it was")
    before = os.umask(0o027)
    try:
        for permissions in (0o604, 0o400):
            old.chmod(permissions)
            write(old)
            assert stat.S_IMODE(old.stat().st_mode) == permissions
        write(new)
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_links_stay_links(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "file"
    target.write_text("as it was")
    (tmp_path / "near").symlink_to("there/file")
    (tmp_path / "far").symlink_to("near")
    (tmp_path / "broken").symlink_to("there/new")
    for link in ("near", "far", "broken"):
        check_writable(tmp_path / link)
        write(tmp_path / link, link)
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / link).read_text() == link
    assert target.read_text() == "far"
    assert sorted(os.listdir(tmp_path / "there")) == ["file", "new"]
    (tmp_path / "lost").symlink_to("nowhere/file")
    with pytest.raises(ValueError, match="lost: no such directory: .*nowhere"):
        check_writable(tmp_path / "lost")


def test_temporary_names_cannot_be_foreseen(tmp_path, monkeypatch):
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        assert first != second
        for temporary in (first, second):
            temporary.write_text("new")
    # Even if one were, what lies there is neither followed nor written over.
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    first.symlink_to(victim)
    monkeypatch.setattr("secrets.token_hex", lambda n: first.name.split("-")[1].split(".")[0])
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", "other")
    assert victim.read_text() == "as it was"
    assert (tmp_path / "a").read_text() == "new"


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "open").write_text("as it was")
    with (tmp_path / "open").open("a") as file:
        names = ["/dev/null", "/dev/stdout", f"/dev/fd/{file.fileno()}"]
        names += [f"/proc/self/fd/{file.fileno()}", "pipe", "socket", "null", "loop"]
        for path in (tmp_path / name for name in names):
            kind = path.lstat().st_mode
            for check in (check_writable, write):
                with pytest.raises(ValueError, match=f"{path}: expected a "):
                    check(path)
            assert path.lstat().st_mode == kind
    assert (tmp_path / "open").read_text() == "as it was"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("output", ["/dev/null", "/dev/stdout"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "m.npz", "iris.csv", "--output"),
        ("train", "iris.csv", "--target", "species", "--output"),
        ("train", "iris.csv", "--target", "species", "--resume", "--checkpoint"),
    ],
    ids=" ".join,
)
def test_devices_as_outputs(arguments, output, iris, command):
    before = os.lstat(output)
    result = command(*arguments, output)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"error: {output}: expected a ")
    assert os.lstat(output).st_ino == before.st_ino


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
