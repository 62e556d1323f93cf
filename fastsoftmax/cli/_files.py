"""Files that are written whole or not at all, and checks before the work that fills them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside this one to write to; the file takes its name when it is complete.

    On any error, a full disk's included, the file that was there before stays. A process that is
    killed leaves the other file behind, for the next one to replace.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Find out before the work whether its result can be written."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a directory")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such directory: {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the directory is not writable")


def check_apart(path: Path, read: Iterable[Path]) -> None:
    """Refuse to write over a file that is read."""
    if path.exists() and any(path.samefile(file) for file in read):
        raise ValueError(f"{path}: expected another file than those read")
