"""Running a command line: what every command's errors look like, and the exit codes they share."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

try:
    import psycopg
except ImportError as _error:  # psycopg without a libpq
    _prog = Path(sys.argv[0]).stem
    sys.exit(f"{_prog}: {_error}\nrun `pip install 'graphile-worker[binary]'`, or install libpq")

from graphile_worker.cli import project
from graphile_worker.errors import Busy, BusyError, GraphileWorkerError

BUSY, INTERRUPTED = 4, 130


def run(parser: argparse.ArgumentParser, args: list[str] | None, *, interrupted: str) -> int:
    """Run the command that the arguments name; return its exit code.

    ``interrupted`` says what became of the work when the user stops it.
    """
    options = parser.parse_args(args)
    options.prog = parser.prog
    # Errors that psycopg ignores, such as those of a rollback on a closed connection, are no news.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):  # what is done must not fail in the telling
        sys.stdout.reconfigure(errors="backslashreplace")

    def body() -> int:
        project.apply(options)
        code: int = options.run(options)
        sys.stdout.flush()
        return code

    try:
        return guarded(body, options)
    except BrokenPipeError:  # the reader had enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED


def guarded(body: Callable[[], int], options: argparse.Namespace) -> int:
    """Return what ``body`` returns; tell of an error on stderr, as one paragraph with its causes.

    The exit code is then 1, or 4 where others were in the way.
    """
    try:
        return body()
    except (GraphileWorkerError, ValueError, psycopg.Error) as error:
        if options.verbose:
            traceback.print_exc()
        causes, cause = [" ".join(str(error).split())], error.__cause__
        while cause is not None:
            first = str(cause).strip().splitlines()[:1]
            causes += [line for line in first if line not in causes[0]]
            cause = cause.__cause__
        print(f"{options.prog}: " + "\n  because: ".join(causes), file=sys.stderr)
        return BUSY if isinstance(error, BusyError | Busy) else 1
