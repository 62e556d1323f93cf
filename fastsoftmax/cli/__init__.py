"""The command line: ``fastsoftmax train | predict | evaluate | info | warmup``."""

from __future__ import annotations

import sys
from typing import Any

try:
    import typer

    from fastsoftmax.cli._kernels import info, warmup
    from fastsoftmax.cli._predict import evaluate, predict
    from fastsoftmax.cli._train import train
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None


def main() -> None:
    """Run the command line: errors are one line and exit status 2."""
    if _missing is not None:
        needed = 'pip install "fastsoftmax[train]"'
        print(f"error: the command line needs {needed} ({_missing})", file=sys.stderr)
        sys.exit(2)
    # click's own, wherever this release of typer keeps click.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        _application()(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except usage_error as error:
        if message := error.format_message():  # empty where help was shown instead
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _application() -> Any:
    summary = "Softmax regression on a CPU, on data of any size."
    application = typer.Typer(add_completion=False, no_args_is_help=True, help=summary)
    for command in (train, predict, evaluate, info, warmup):
        application.command()(command)
    return application
