"""The disk cache of compiled kernels: files behind a checksum, in the folder that Numba chooses."""

import contextlib
import hashlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

from numba.core.serialize import dumps

from fastsoftmax._kernels import objects


def source_stamp(root: Path = Path(__file__).parent) -> str:
    """Hash of all Python files below ``root``: names and contents."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


# Numba's own stamp covers a kernel's own file only, so an edit of ``vector/simd.py`` would leave
# the cached machine code of ``linear/dense.py`` in place.
STAMP = source_stamp()


class KernelCacheFiles:
    """One file for each compiled signature of a kernel, in place of Numba's index and data files.

    A file counts only if its checksum is right, which covers the sources and Numba's version: what
    is damaged, or of another release, is compiled again. With Numba's files a truncated index
    stopped every call, a flipped bit could crash the process, and of two processes that started
    together one could load what the other had compiled for another signature. Where nothing can be
    written, kernels stay uncached. The package may bring object code of what the folder lacks.
    """

    def __init__(self, folder: str, name: str, version: str) -> None:
        self.folder, self.name = Path(folder), name
        self.seal = f"{STAMP} {version}".encode()

    def load(self, key: Any) -> Any:
        """Return what was saved for ``key``, or object code of the package, or None.

        The key is Numba's: a signature, the target that it is for, and a hash of the kernel.
        """
        signature, target, kernel = key
        found = self._read(self.folder, key)
        other = objects.stand_in(target) if found is None else None
        return found if other is None else self._read(objects.FOLDER, (signature, other, kernel))

    def _read(self, folder: Path, key: Any) -> Any:
        try:
            sealed = self._path(folder, key).read_bytes()
        except OSError:
            return None
        content = sealed[32:]
        if sealed[:32] != self._checksum(content):
            return None
        stored_key, data = pickle.loads(content)
        return data if stored_key == key else None

    def save(self, key: Any, data: Any) -> None:
        """Write a file, all of it or nothing."""
        content = dumps((key, data))
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self._checksum(content) + content)
                os.replace(temporary, self._path(self.folder, key))
            except OSError:
                os.unlink(temporary)
                raise

    def flush(self) -> None:
        """Forget everything."""
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, folder: Path, key: Any) -> Path:
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return folder / f"{self.name}.{digest}.nbc"

    def _checksum(self, content: bytes) -> bytes:
        return hashlib.sha256(self.seal + content).digest()
