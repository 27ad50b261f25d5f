"""gw: operate a queue.

Connections follow libpq: a connection string or the PG* variables. Exit codes: 0 done; 1 failed,
or some of the named jobs were left out; 2 wrong usage; 3 doctor has findings; 4 busy, try
again; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from graphile_worker import __version__
from graphile_worker.cli import command, flags
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw import (
    add,
    change,
    control,
    explain,
    jobs,
    locks,
    schedule,
    stats,
)
from graphile_worker.gw.doctor import command as doctor
from graphile_worker.gw.importing import command as importing
from graphile_worker.gw.mcp import command as mcp
from graphile_worker.gw.payloads import publish
from graphile_worker.gw.queue import connects
from graphile_worker.gw.records import failed, history
from graphile_worker.gw.run import command as run
from graphile_worker.gw.top import command as top
from graphile_worker.gw.ui import command as ui

Configure = Callable[[Parser], None]
Run = Callable[[argparse.Namespace], int]


def _configure_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def _run_completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise GraphileWorkerError(
            "shtab writes completions: run `pip install 'graphile-worker[cli]'`"
        ) from error
    print(shtab.complete(build_parser(), options.shell))
    return 0


COMMANDS: dict[str, tuple[str, Configure, Run]] = {
    "add": ("add jobs", add.configure, add.run),
    "run": ("run a worker", run.configure, run.run),
    "jobs": ("list jobs", jobs.configure_jobs, jobs.run_jobs),
    "job": ("show everything about a job", jobs.names_one, jobs.run_job),
    "explain": ("explain why a job is not running", explain.configure, explain.run),
    "retry": ("retry jobs now, with all attempts", change.configure_retry, change.run_retry),
    "fail": ("fail jobs permanently", change.configure_fail, change.run_fail),
    "complete": (
        "complete jobs: delete them", change.configure_complete, change.run_complete,
    ),
    "reschedule": (
        "change when, and how many times, jobs run",
        change.configure_reschedule,
        change.run_reschedule,
    ),
    "discard": (
        "discard failed jobs: delete them", change.configure_discard, change.run_discard,
    ),
    "cancel": (
        "cancel jobs, also running ones", change.configure_cancel, change.run_cancel,
    ),
    "remove": ("remove jobs by id or key", change.configure_remove, change.run_remove),
    "tasks": ("publish and list the schemas of payloads", publish.configure, publish.run),
    "pause": (
        "pause a queue, a task or everything", control.configure_pause, control.run_pause,
    ),
    "resume": ("resume what is paused", control.configure_resume, control.run_resume),
    "pauses": ("list what is paused", connects, control.run_pauses),
    "limit": (
        "limit how many jobs run at once, or start in a time", control.configure_limit,
        control.run_limit,
    ),
    "limits": ("list the limits and what is in use", connects, control.run_limits),
    "schedule": (
        "list, set, end, pause, resume or run schedules", schedule.configure, schedule.run,
    ),
    "history": ("list ended jobs, and keep history", history.configure, history.run),
    "failed": (
        "list failed jobs, and set what becomes of them", failed.configure, failed.run,
    ),
    "export": (
        "export failed jobs, a line of JSON each", failed.configure_export, failed.run_export,
    ),
    "queues": ("list queues and what locks them", locks.configure_queues, locks.run_queues),
    "unlock": ("unlock what dead workers hold", locks.configure_unlock, locks.run_unlock),
    "cleanup": (
        "delete failed jobs and unused names", locks.configure_cleanup,
        locks.run_cleanup,
    ),
    "stats": ("count jobs by state, task and queue, and list workers", stats.configure, stats.run),
    "import": (
        "move the waiting jobs of another queue here", importing.configure, importing.run,
    ),
    "ui": ("serve the dashboard", ui.configure, ui.run),
    "mcp": ("serve assistants that speak MCP, read-only", mcp.configure, mcp.run),
    "top": ("show live statistics", top.configure, top.run),
    "completion": (
        "print what a shell needs to complete commands and flags", _configure_completion,
        _run_completion,
    ),
    "doctor": ("check the queue for problems and suggest fixes", doctor.configure, doctor.run),
}  # fmt: skip


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="gw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gw {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, configure, run_it) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run_it)
        configure(sub)
        (flags.verbose if name in ("run", "ui", "mcp", "completion") else flags.reports)(
            sub
        )  # they return nothing
    return parser


def main(args: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    return command.run(build_parser(), args, interrupted="what was not committed is undone")


if __name__ == "__main__":
    sys.exit(main())
