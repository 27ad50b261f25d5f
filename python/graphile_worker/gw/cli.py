"""gw: operate a queue.

Connections follow libpq: a connection string or the PG* variables. Exit codes: 0 done; 1 failed,
or some of the named jobs were left out; 2 wrong usage; 3 doctor has findings; 4 busy, try
again; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

from graphile_worker import __version__

#: What each command does, and the module of its flags and its work, which is loaded when it is
#: called: ``configure`` and ``run``, or in one for several commands ``configure_NAME`` and so on.
COMMANDS: dict[str, tuple[str, str]] = {
    "add": ("add jobs", "add"),
    "run": ("run a worker", "run.command"),
    "jobs": ("list jobs", "jobs"),
    "job": ("show everything about a job", "jobs"),
    "explain": ("explain why a job is not running", "explain"),
    "retry": ("retry jobs now, with all attempts", "change"),
    "fail": ("fail jobs permanently", "change"),
    "complete": ("complete jobs: delete them", "change"),
    "reschedule": ("change when, and how many times, jobs run", "change"),
    "discard": ("discard failed jobs: delete them", "change"),
    "cancel": ("cancel jobs, also running ones", "change"),
    "remove": ("remove jobs by id or key", "change"),
    "tasks": ("publish and list the schemas of payloads", "payloads.publish"),
    "pause": ("pause a queue, a task or everything", "control"),
    "resume": ("resume what is paused", "control"),
    "pauses": ("list what is paused", "control"),
    "limit": ("limit how many jobs run at once, or start in a time", "control"),
    "limits": ("list the limits and what is in use", "control"),
    "schedule": ("list, set, end, pause, resume or run schedules", "schedule"),
    "history": ("list ended jobs, and keep history", "records.history"),
    "failed": ("list failed jobs, and set what becomes of them", "records.failed"),
    "export": ("export failed jobs, a line of JSON each", "records.failed"),
    "queues": ("list queues and what locks them", "locks"),
    "unlock": ("unlock what dead workers hold", "locks"),
    "cleanup": ("delete failed jobs and unused names", "locks"),
    "stats": ("count jobs by state, task and queue, and list workers", "stats"),
    "drain-node": ("move the waiting jobs of a node to another", "cluster.drain"),
    "import": ("move the waiting jobs of another queue here", "importing.command"),
    "ui": ("serve the dashboard", "ui.command"),
    "mcp": ("serve assistants that speak MCP, read-only", "mcp.command"),
    "top": ("show live statistics", "top.command"),
    "completion": ("print what a shell needs to complete commands and flags", "completion"),
    "conformance": ("check a worker of any language", "conformance.command"),
    "doctor": ("check the queue for problems and suggest fixes", "doctor.command"),
}

#: They print something else than results.
_NO_REPORTS = ("run", "ui", "mcp", "completion")
#: They connect to no database, or to several by themselves.
_WITHOUT_DATABASES = ("run", "completion", "conformance")


def build_parser(only: Collection[str] | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the flags of all commands or of some."""
    parser = argparse.ArgumentParser(
        prog="gw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gw {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, module) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if only is not None and name not in only:
            continue
        from graphile_worker.cli import flags
        from graphile_worker.cli.nodes import on_each

        act = _member(module, "run", name)
        sub.set_defaults(run=act if name in _WITHOUT_DATABASES else on_each(act))
        _member(module, "configure", name)(sub)
        (flags.verbose if name in _NO_REPORTS else flags.reports)(sub)
    return parser


def _member(module: str, what: str, name: str) -> Any:
    found = import_module(f"graphile_worker.gw.{module}")
    return getattr(found, f"{what}_{name}", None) or getattr(found, what)


def main(args: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    given = sys.argv[1:] if args is None else args
    if given and given[0] in COMMANDS:
        from graphile_worker.cli import command  # says what to do where there is no libpq

        parser = build_parser(only=given[:1])
        return command.run(parser, given, interrupted="what was not committed is undone")
    build_parser(only=()).parse_args(given)  # prints the help or what is wrong, and exits
    return 0


if __name__ == "__main__":
    sys.exit(main())
