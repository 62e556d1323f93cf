"""How distributions are built. What they hold is in pyproject.toml, which names this as backend.

A wheel carries object code of the common kernels, made by Numba while the wheel is built: for this
CPU's level of x86-64 if it has one, with FASTSOFTMAX_OBJECTS=all for each level, and with
FASTSOFTMAX_OBJECTS=none for none. An editable installation has none.
"""

import os
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

from setuptools import build_meta, setup
from setuptools.build_meta import *  # noqa: F403
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

OBJECT_CODE = "fastsoftmax/_kernels/object_code"
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
        if self.editable_mode:
            return
        if WANTED not in ("own", "all", "none"):
            raise ValueError(f"FASTSOFTMAX_OBJECTS: expected own, all or none, got {WANTED!r}")
        shutil.rmtree(Path(self.build_lib, OBJECT_CODE), ignore_errors=True)  # of an older build
        if WANTED == "none":
            return
        program = f"from fastsoftmax._warmup import make_object_code; make_object_code({WANTED!r})"
        # In pip's isolated environment NumPy and Numba are found by PYTHONPATH alone.
        paths = [os.path.abspath(self.build_lib), os.environ.get("PYTHONPATH")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run([sys.executable, "-c", program], env=environment)
        if done.returncode != 0 and WANTED == "all":
            raise RuntimeError("the kernels could not be compiled")
        if done.returncode != 0:
            said = "a wheel without object code: kernels will be compiled on first use"
            warnings.warn(said, stacklevel=2)


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    """Name what compiles kernels, besides what setuptools asks for."""
    needed = build_meta.get_requires_for_build_wheel(config_settings)
    if WANTED != "none":
        needed += tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    return needed


if __name__ == "__main__":
    setup(cmdclass={"sdist": SourceDistribution, "build_py": Modules})
