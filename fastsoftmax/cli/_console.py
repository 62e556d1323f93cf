"""What the commands print on."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# What is printed on err has names out of files in it, whose brackets are no markup.
out = Console()
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def print_table(title: str, rows: dict[str, str], head: str = "measure") -> None:
    """Print two columns: what ``head`` names, and its value."""
    table = Table(head, "value", title=printable(title))
    for row in rows.items():
        table.add_row(*map(printable, row))
    out.print(table)


def readable(label: Any, most: int) -> str:
    """Return the name of a class in one line of at most so many characters, all of them visible."""
    # Others than the first so many needn't be looked at.
    name = str(label)[: most + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def printable(text: str) -> str:
    """Return text to print on out as it is, but for escapes of what its encoding does not have."""
    return escape(text.encode(out.encoding, "backslashreplace").decode(out.encoding))


@contextlib.contextmanager
def progress_line(title: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows text in place of that before, on a terminal; elsewhere none."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda text: progress.update(task, description=text)


def seconds_left(history: Sequence[tuple[float, float]], goal: float) -> float | None:
    """Estimate how long it takes until a gradient has fallen to a goal.

    ``history`` has the time and the largest entry of the gradient at each iteration. It is taken to
    go on falling as it did in the later half of them. None where that says nothing.
    """
    if len(history) < 4 or goal <= 0:
        return None
    (then, before), (now, last) = history[len(history) // 2 - 1], history[-1]
    if not before > last > 0:
        return None
    return max((now - then) * math.log(last / goal) / math.log(before / last), 0.0)
