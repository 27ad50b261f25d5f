"""gw run: the flags of a worker."""

from __future__ import annotations

import argparse

from graphile_worker.cli import flags
from graphile_worker.cli.flags import Parser
from graphile_worker.gw.run.settings import LEVELS, configure_logging, grace
from graphile_worker.gw.values import seconds, whole


def configure(parser: Parser) -> None:
    """Add the flags of gw run."""
    parser.add_argument(
        "tasks", nargs="*", metavar="TASKS",
        help="where the tasks are: a folder, a module, or module:name"
        " (default: the folder or module tasks)",
    )  # fmt: skip
    flags.connects(parser, several=True)
    flags.env(parser, "--listen-dsn", help="connection string for LISTEN, if --dsn is a pooler")
    flags.env(parser, "--no-listen", switch=True, help="do not LISTEN, only poll")
    flags.env(
        parser, "--no-prepare", switch=True, help="do not use prepared statements, for old poolers"
    )
    flags.env(parser, "--once", switch=True, help="run the due jobs, then exit")
    flags.env(
        parser,
        "--concurrency",
        "-c",
        type=whole(1, 10000),
        help="how many jobs to run at the same time (default 10)",
    )
    flags.env(
        parser,
        "--processes",
        type=whole(1, 1000),
        help="how many worker processes to start (default 1)",
    )
    flags.env(
        parser,
        "--prefetch",
        type=whole(0, 10000),
        help="how many jobs to fetch ahead (default: about 0.25 s of work)",
    )
    flags.env(
        parser,
        "--poll-interval",
        type=seconds,
        help="how many seconds a job may wait without a notification (default 15)",
    )
    flags.env(
        parser,
        "--grace",
        type=grace,
        help="how many seconds running jobs have to end after a stop (default 30)",
    )
    flags.env(
        parser, "--forbidden-flags", several=True, help="skip jobs with this flag; may be repeated"
    )
    flags.env(parser, "--crontab", help="file of recurring jobs (default: crontab, if it exists)")
    flags.env(
        parser, "--metrics-port", type=whole(1, 65535),
        help="port for /metrics and /healthz; further processes use the next ports",
    )  # fmt: skip
    flags.env(
        parser,
        "--metrics-host",
        default="127.0.0.1",
        help="address for --metrics-port (default 127.0.0.1)",
    )
    flags.env(
        parser, "--redact", metavar="MODULE:FUNCTION",
        help="function that leaves secrets out of results and errors before they are stored",
    )  # fmt: skip
    flags.env(
        parser, "--reload", switch=True,
        help="for development: start again when a file in the current folder, or in a folder of"
        " tasks, changes",
    )  # fmt: skip
    flags.env(parser, "--uvloop", switch=True, help="run on uvloop")
    flags.env(parser, "--log-json", switch=True, help="log one JSON object per line")
    flags.env(
        parser,
        "--log-level",
        choices=LEVELS,
        default="info",
        help="lowest level to log (default info)",
    )


def run(options: argparse.Namespace) -> int:
    """Start the worker, or several; return the exit code."""
    configure_logging(options)
    processes = options.processes or 1
    # The other commands do not need them.
    if processes > 1 or options.reload:
        from graphile_worker.gw.run.fleet import run_processes

        return run_processes(options, processes)
    from graphile_worker.gw.run.serve import run_worker

    run_worker(options)
    return 0
