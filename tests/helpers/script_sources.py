"""Scripts as one finds them, in tests/scripts: as they are, and with one import changed."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


def sources(name):
    """Return a script's text, and its text with fastsoftmax in the place of another library.

    A comment behind the import says from where it can be as well.
    """
    theirs = (FOLDER / f"{name}.py").read_text()
    place = re.compile(r"^from \S+ (import .*)  # or (from fastsoftmax\S*)$", re.MULTILINE)
    ours, count = place.subn(r"\2 \1", theirs)
    assert count == 1, f"{name}: expected one import with a comment of ours, got {count}"
    return theirs, ours
