"""NumPy's files, of which nothing is believed: headers are checked before arrays are read.

A file of a few bytes may announce 10^15 elements, and one of a few megabytes may unpack to
gigabytes. NumPy's own reader evaluates headers as Python code, and warns about some damaged ones.
"""

import contextlib
import math
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from fastsoftmax.reference import Array

_MAGIC = b"\x93NUMPY"
# Longest header, as in NumPy; usual ones have 118 bytes.
_HEADER_BYTES = 10_000
# A header without its spaces: three entries in any order. Python 2 wrote sizes as 3L.
_ENTRY = (
    r"'descr':'(?P<dtype>[<>=|]?[biufcSUO]\d{0,9})'|'fortran_order':(?P<fortran>True|False)"
    r"|'shape':\((?P<shape>[\dL,]*)\)"
)
_HEADER = re.compile(rf"\{{(?:(?:{_ENTRY}),?){{3}}\}}\s*")
# An array of more than _SMALL_BYTES must not unpack to more than so many times its compressed size.
# Deflate reaches 1030 on zeros, and 936 on one-hot rows of 10,000 columns.
_SMALL_BYTES, _MOST_TIMES = 64 << 20, 1100
_READ_BYTES = 1 << 20


class Header(NamedTuple):
    """What a .npy file says of its array, and the byte at which the array begins."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    start: int

    @property
    def file_size(self) -> int:
        """How many bytes the file must have."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_headers(
    path: Path, names: Collection[str], most_times: int = _MOST_TIMES
) -> dict[str, Header]:
    """Return the headers of those of the named arrays that a .npz file has.

    An array that unpacks to more than ``most_times`` its compressed size is refused, if it is large
    (see `_SMALL_BYTES`).
    """
    with _archive(path) as archive:
        return {name: header for name, header, _ in _members(archive, names, most_times)}


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read those of the named arrays that a .npz file has, without pickle, and no others."""
    with _archive(path) as archive:
        return {name: _read(file, header) for name, header, file in _members(archive, names)}


def list_arrays(path: Path) -> list[str]:
    """Return the names of the arrays of a .npz file."""
    with _archive(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


def map_array(path: Path) -> Array:
    """Map a .npy file into memory."""
    with _errors_of(path, ".npy"):
        with path.open("rb") as file:
            header = _read_header(file)
        if header.file_size > path.stat().st_size:
            raise ValueError("shorter than its header says")
        shape, dtype, order, start = header
        return np.memmap(path, dtype, "r", start, shape, order)


@contextlib.contextmanager
def _errors_of(path: Path, suffix: str) -> Iterator[None]:
    """Turn every error into a ValueError that names the file."""
    try:
        yield
    # Damaged files raise some twenty types of errors: of zipfile, zlib, lzma, struct and NumPy,
    # NotImplementedError, RuntimeError and MemoryError among them.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a readable {suffix} file: {reason}") from None


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .npz file; errors inside the context name the file."""
    with _errors_of(path, ".npz"):
        if not path.is_file():
            raise ValueError("not a regular file")
        with path.open("rb") as file:  # which a ZipFile may leave open after errors
            if not zipfile.is_zipfile(file):
                raise ValueError("no whole zip archive")
            yield zipfile.ZipFile(file)


def _members(
    archive: zipfile.ZipFile, names: Collection[str], most_times: int = _MOST_TIMES
) -> Iterator[tuple[str, Header, IO[bytes]]]:
    """Yield each of the named arrays that is there, with its file open behind the header.

    An array is refused that is not as long as its header says, or unpacks to far too much.
    """
    for name in names:
        if (member := f"{name}.npy") not in archive.namelist():
            continue
        with archive.open(member) as file:
            header, info = _read_header(file), archive.getinfo(member)
            size = header.file_size
            if size != info.file_size:
                raise ValueError(f"{member}: not as long as its header says")
            # The archive may lie about the compressed size, too.
            compressed = min(info.compress_size, Path(str(archive.filename)).stat().st_size)
            if size > _SMALL_BYTES and size > most_times * compressed:
                raise ValueError(f"{member}: {compressed:,} bytes that unpack to {size:,}")
            yield name, header, file


def _read_header(file: IO[bytes]) -> Header:
    """Read the header of a .npy file."""
    beginning = file.read(8)
    length_bytes = 2 if beginning[6:7] == b"\x01" else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if beginning[:6] != _MAGIC or length > _HEADER_BYTES:
        raise ValueError("no .npy header, or one that is too long")
    header = file.read(length).decode("latin1").replace(" ", "").replace('"', "'")
    found = _HEADER.fullmatch(header)
    if found is None or None in (entries := found.groupdict()).values():
        raise ValueError("a damaged .npy header, or an array of neither numbers nor strings")
    dtype = np.dtype(entries["dtype"])
    if dtype.hasobject:
        raise ValueError("an array of pickled Python objects")
    if dtype.itemsize == 0:
        raise ValueError("an array of empty elements")
    shape = tuple(int(size.removesuffix("L")) for size in entries["shape"].split(",") if size)
    order: Literal["C", "F"] = "F" if entries["fortran"] == "True" else "C"
    return Header(shape, dtype, order, 8 + length_bytes + length)


def _read(file: IO[bytes], header: Header) -> Array:
    """Read the array behind a header; zipfile compares its checksum when it is complete."""
    values = np.empty(math.prod(header.shape), header.dtype)
    rest = values.view(np.uint8)
    while len(rest):
        read = file.read(min(len(rest), _READ_BYTES))
        if not read:
            raise EOFError("shorter than its header says")
        rest[: len(read)] = np.frombuffer(read, np.uint8)
        rest = rest[len(read) :]
    return values.reshape(header.shape, order=header.order)
