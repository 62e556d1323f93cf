"""Formats of files: what their names and first lines tell; and files that are compressed."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, get_args

Format = Literal["parquet", "csv", "tsv", "svmlight", "npy", "npz"]

# Formats whose columns have names.
TABLES = ("parquet", "csv", "tsv")
# How names end, in any case.
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".npy": "npy", ".npz": "npz",
    ".svm": "svmlight", ".svmlight": "svmlight", ".libsvm": "svmlight", ".pq": "parquet",
}  # fmt: skip
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSED = (*_OPENERS, ".zst")
_SNIFFED_BYTES = 1 << 16


def file_format(path: Path, format: Format | None = None) -> Format:
    """Return the format of a data set: the one given, or what its name or its first line tell."""
    if format is not None and format not in get_args(Format):
        expected = ", ".join(f'"{name}"' for name in get_args(Format))
        raise ValueError(f'format: expected one of {expected}, got "{format}"')
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory")
    if path.is_dir():
        if format is None:
            return _folder_format(path)
        if format not in ("parquet", "npy"):
            raise ValueError(f'{path}: expected a file for the format "{format}", got a directory')
        return format
    if not path.is_file():
        raise ValueError(
            f"{path}: expected a regular file, which can be read more than once, got a pipe or "
            "device: write it to a file first"
        )
    found = format or named_format(path)
    if found is None and _starts_as_svmlight(path):
        return "svmlight"
    if found is None:
        raise ValueError(
            f"{path}: expected {', '.join(_SUFFIXES)}, of which text may be compressed "
            f"({', '.join(COMPRESSED)}), or a directory of .parquet or .npy files, got "
            f'"{path.suffix}": give the format, such as "csv" or "svmlight"'
        )
    return found


def _folder_format(folder: Path) -> Format:
    """Return the format of the files of a folder, which their names tell."""
    files = files_of(folder)
    formats = {named_format(file) for file in files}
    if "parquet" in formats:
        return "parquet"
    if "npy" in formats:
        return "npy"
    found = ", ".join(str(file.relative_to(folder)) for file in files[:3]) or "none"
    raise ValueError(
        f"{folder}: expected .parquet files, or X.npy or X_*.npy, found {found}"
        + bool(files) * ': give the format "parquet" (--format parquet) if they are such files'
    )


def named_format(path: Path) -> Format | None:
    """Return the format that the name of a file tells, that of compressed text included."""
    suffix = path.suffix.lower()
    if suffix not in (*COMPRESSED, ".zip"):
        return _SUFFIXES.get(suffix)
    found = _SUFFIXES.get(Path(path.stem).suffix.lower())
    texts = ("csv", "tsv") if suffix == ".zip" else ("csv", "tsv", "svmlight")
    return found if found in texts else None


def open_bytes(path: Path, mode: Literal["rb", "wb"], name: Path | None = None) -> IO[bytes]:
    """Open a file, compressed as its name says or another one that is given."""
    suffix = (name or path).suffix.lower()
    if suffix == ".zst" and mode == "rb":
        return io.BufferedReader(_ZstdFile(path))
    return _OPENERS.get(suffix, open)(path, mode)  # type: ignore[no-any-return]


class _ZstdFile(io.RawIOBase):
    """The content of a .zst file; zstandard's own readers take a file that is cut off for whole."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError(f"{path}: needs pip install zstandard") from error
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._file = path.open("rb")
        self._frame: Any = None
        self._text = self._rest = b""  # decompressed and not yet read; the frames after this one

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._text:
            if not (data := self._rest or self._file.read(_SNIFFED_BYTES)):
                if self._frame is not None:
                    raise EOFError("the file ends before the end of a frame")
                return 0
            self._frame = self._frame or self._new_frame()
            self._text, self._rest = self._frame.decompress(data), b""
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        n = min(len(buffer), len(self._text))
        buffer[:n], self._text = self._text[:n], self._text[n:]
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser or a decompressor raises over a file into a ValueError naming it."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: not readable: {error}") from None
    except Exception as error:  # pandas, zipfile and zstandard have many
        raise ValueError(f"{path}: not {what}: {str(error).strip()}") from None


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder and those in it, in order, less what pyarrow.dataset ignores."""
    files, seen = [], set()

    def fail(error: OSError) -> None:
        raise ValueError(f"{error.filename}: not readable: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            raise ValueError(f"{parent}: a link to a folder that is read already")
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        files += [Path(parent, name) for name in names if not name.startswith((".", "_"))]
    return sorted(files)


def _starts_as_svmlight(path: Path) -> bool:
    """Whether scikit-learn can read the first line that is no comment, and finds features there."""
    from sklearn.datasets import load_svmlight_file

    try:
        with open_bytes(path, "rb") as file:
            head = file.read(_SNIFFED_BYTES)
        for line in head.splitlines():
            if line.strip() and not line.lstrip().startswith(b"#"):
                if len(head) == _SNIFFED_BYTES and line == head.splitlines()[-1]:
                    line = line.rsplit(None, 1)[0]  # the last entry may not be whole
                return bool(load_svmlight_file(io.BytesIO(line))[0].nnz)
    except ImportError:
        raise
    except Exception:
        pass
    return False
