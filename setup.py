"""For the sdist, which holds the tests and benchmarks; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


class SourceDistribution(sdist):
    """The sdist with whole folders: setuptools itself adds only tests/test_*.py."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Add files that belong to the project, but not to the package."""
        others = {"CHANGELOG.md", "CONTRIBUTING.md"}
        for folder in ("tests", "bench", ".ci"):
            found = (path for path in Path(folder).rglob("*") if path.is_file())
            others |= {str(path) for path in found if path.suffix != ".pyc"}
        super().make_release_tree(base_dir, sorted({*files, *others}))


setup(cmdclass={"sdist": SourceDistribution})
