"""How distributions are built. What they hold is in pyproject.toml, which names this as backend.

A wheel carries object code of the common kernels, made by Numba while the wheel is built: for the
level of x86-64 that this CPU has, or for every one with FASTSOFTMAX_OBJECTS=all, or for none with
FASTSOFTMAX_OBJECTS=none. An editable installation has none.
"""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import build_meta, setup
from setuptools.build_meta import *  # noqa: F403
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

WANTED = os.environ.get("FASTSOFTMAX_OBJECTS", "own")


class SourceDistribution(sdist):
    """The sdist with whole folders: setuptools itself adds only tests/test_*.py."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Add files that belong to the project, but not to the package."""
        others = {"CHANGELOG.md", "CONTRIBUTING.md"}
        for folder in ("tests", "bench", ".ci"):
            found = (path for path in Path(folder).rglob("*") if path.is_file())
            others |= {str(path) for path in found if path.suffix != ".pyc"}
        super().make_release_tree(base_dir, sorted({*files, *others}))


class Modules(build_py):
    """The package's modules, and object code of its kernels."""

    def run(self) -> None:
        """Copy the modules, and let the copy compile its kernels."""
        super().run()
        if self.editable_mode or WANTED == "none":
            return
        if WANTED not in ("own", "all"):
            raise ValueError(f"FASTSOFTMAX_OBJECTS: expected own, all or none, got {WANTED!r}")
        program = f"from fastsoftmax._warmup import make_object_code; make_object_code({WANTED!r})"
        here = {"PYTHONPATH": os.path.abspath(self.build_lib), "PYTHONSAFEPATH": "1"}
        subprocess.run([sys.executable, "-c", program], env=os.environ | here, check=True)


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    """Name what compiles kernels, besides what setuptools asks for."""
    numba = [] if WANTED == "none" else ["numba>=0.63,!=0.66.*"]
    return [*build_meta.get_requires_for_build_wheel(config_settings), *numba]


if __name__ == "__main__":
    setup(cmdclass={"sdist": SourceDistribution, "build_py": Modules})
