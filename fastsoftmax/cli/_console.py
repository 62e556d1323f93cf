"""What the commands print on."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

out, err = Console(), Console(stderr=True, soft_wrap=True, highlight=False)


def print_table(title: str, rows: dict[str, str], head: str = "measure") -> None:
    """Print two columns: what ``head`` names, and its value."""
    table = Table(head, "value", title=escape(title))
    for row in rows.items():
        table.add_row(*map(escape, row))
    out.print(table)


@contextlib.contextmanager
def progress_line(title: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a line, on a terminal in place of the one before."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        task = progress.add_task(title, total=None)
        yield lambda text: progress.update(task, description=text)
