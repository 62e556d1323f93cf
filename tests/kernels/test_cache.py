"""The disk cache: its stamp, and damaged files."""

import numpy as np
import pytest

from fastsoftmax._kernels import cache
from fastsoftmax._kernels.cache import KernelCacheFiles

TARGET = ("a triple", "a CPU", "+sse2")


def add_file(folder):
    (folder / "other.py").write_text("")


def change_file(folder):
    (folder / "kernel.py").write_text("x = 2\n")


def rename_file(folder):
    (folder / "kernel.py").rename(folder / "kernels.py")


def remove_file(folder):
    (folder / "kernel.py").unlink()


@pytest.mark.parametrize("edit", [add_file, change_file, rename_file, remove_file])
def test_stamp_changes_with_files_in_sub_folders(edit, tmp_path):
    folder = tmp_path / "vector"
    folder.mkdir()
    (tmp_path / "jit.py").write_text("x = 1\n")
    (folder / "kernel.py").write_text("x = 1\n")
    before = cache.source_stamp(tmp_path)
    assert cache.source_stamp(tmp_path) == before
    edit(folder)
    assert cache.source_stamp(tmp_path) != before


def test_stamp_is_that_of_all_kernel_sources():
    assert cache.source_stamp() == cache.STAMP


@pytest.mark.parametrize(
    "damage", ["truncate", "empty", "garbage", "flip", "other version", "lost"]
)
def test_damaged_files_count_as_missing(damage, tmp_path):
    files = KernelCacheFiles(str(tmp_path), "kernel", "1.0")
    key = ("float32", TARGET, "hash")
    assert files.load(key) is None
    files.save(key, {"code": b"machine" * 100})
    assert files.load(key) == {"code": b"machine" * 100}
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif damage == "flip":
        path.write_bytes(content[:200] + bytes([content[200] ^ 4]) + content[201:])
    elif damage == "other version":
        files = KernelCacheFiles(str(tmp_path), "kernel", "1.1")
    else:
        path.unlink()
    assert files.load(key) is None
    files.save(key, "again")
    assert files.load(key) == "again"
    assert files.load(("float64", TARGET, "hash")) is None
    files.flush()
    assert files.load(key) is None


def test_what_cannot_be_written_stays_uncached(tmp_path):
    files = KernelCacheFiles(str(tmp_path / "missing"), "kernel", "1.0")
    files.save(("float32", TARGET, "hash"), "data")
    assert files.load(("float32", TARGET, "hash")) is None
