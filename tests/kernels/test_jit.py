"""The stamp of the disk cache."""

import pytest

from fastsoftmax._kernels import jit
from fastsoftmax._kernels.tasks import pack_and_call


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
    before = jit.source_stamp(tmp_path)
    assert jit.source_stamp(tmp_path) == before
    edit(folder)
    assert jit.source_stamp(tmp_path) != before


def test_stamp_is_that_of_all_kernel_sources():
    assert pack_and_call._cache._cache_file._source_stamp == jit.source_stamp()
