"""The command line: ``fastsoftmax train | predict | evaluate | coefficients | info | warmup``.

Each command is a function, in the module of its name, whose parameters are the options.
"""

import os
import signal
import sys
from typing import Any

_INTERRUPTED = 130  # what shells report after Ctrl-C, and Typer returns


def main() -> None:
    """Run the command line: an error is one line and status 2, Ctrl-C is status 130."""
    try:
        status = _run()
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(status)


def _run() -> int:
    """Run the command that the arguments name, and return the exit status."""
    stoppable = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup
    try:
        if stoppable:
            signal.signal(signal.SIGINT, _exit_at_once)
        import typer

        from fastsoftmax.cli._coefficients import coefficients
        from fastsoftmax.cli._evaluate import evaluate
        from fastsoftmax.cli._info import info, warmup
        from fastsoftmax.cli._predict import predict
        from fastsoftmax.cli._train import train
    except ImportError as error:
        return _fail(f'the command line needs pip install "fastsoftmax[train]" ({error})')
    finally:
        if stoppable:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    text = "Softmax regression on a CPU, on data of any size."
    application = typer.Typer(add_completion=False, no_args_is_help=True, help=text)
    for command in (train, predict, evaluate, coefficients, info, warmup):
        application.command()(command)
    # The base class of all usage errors lies in click, or in Typer's copy of it.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        return application(standalone_mode=False) or 0
    except typer.Abort:
        return _INTERRUPTED
    except usage_error as error:
        return _fail(error.format_message())
    except (ValueError, TypeError, OSError, ImportError, OverflowError) as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory: {error}".removesuffix(": "))


def _exit_at_once(*_: Any) -> None:
    """End the process at Ctrl-C: imports may swallow a KeyboardInterrupt, or replace it."""
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED)


def _fail(message: str) -> int:
    """Print an error in one line (nothing where help was shown instead); return its status."""
    if message:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
