"""Files that are written whole or not at all, and checks before the work that fills them."""

import contextlib
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside this one to write to; the file takes its name when it is complete.

    On any error, a full disk's included, the file that was there before stays. A replaced file's
    permissions are kept, and a symbolic link stays a link: the file it leads to is replaced. A
    process that is killed leaves the other file behind.
    """
    target = _target(path)
    permissions = target.stat().st_mode & 0o7777 if target.exists() else None
    # A random name that nothing had before: nobody can have planted a link there.
    temporary = target.with_name(f".fastsoftmax-{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(temporary, flags, 0o666 if permissions is None else 0o600))
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if permissions is not None:
            temporary.chmod(permissions)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npz file, all of it or nothing.

    `numpy.savez` of NumPy 2.0 leaves its archive open at Ctrl-C, which then complains on its own.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _target(path: Path) -> Path:
    """Follow symbolic links to the file that is to be replaced; only regular files may be."""
    link = path
    for _ in range(40):  # as many links as Linux follows
        # /dev/stdout leads there, and from there to the open file, whatever that is.
        if link.parent.resolve().is_relative_to("/proc"):
            raise ValueError(f"{path}: expected a file to write, got an open file of a process")
        if not link.is_symlink():
            break
        link = link.parent / link.readlink()
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a directory")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise ValueError(f"{path}: expected a regular file to replace, got a device, pipe or loop")
    return target


def check_writable(path: Path) -> None:
    """Find out before the work whether its result can be written."""
    directory = _target(path).parent
    if not directory.is_dir():
        raise ValueError(f"{path}: no such directory: {directory}")
    if not os.access(directory, os.W_OK):
        raise ValueError(f"{path}: the directory is not writable")


def check_apart(path: Path, read: Iterable[Path]) -> None:
    """Refuse to write over a file that is read."""
    if path.exists() and any(path.samefile(file) for file in read):
        raise ValueError(f"{path}: expected another file than those read")
