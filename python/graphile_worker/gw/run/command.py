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
    flags.connects(parser)
    flags.env(parser, "--listen-dsn", help="where to LISTEN, if --dsn leads to a pooler")
    flags.env(parser, "--no-listen", switch=True, help="only poll")
    flags.env(parser, "--no-prepare", switch=True, help="no prepared statements, for old poolers")
    flags.env(parser, "--once", switch=True, help="run what is due, and leave")
    flags.env(parser, "--concurrency", "-c", type=whole(1, 10000), help="jobs at once (default 10)")
    flags.env(
        parser, "--processes", type=whole(1, 1000), help="processes, each a worker (default 1)"
    )
    flags.env(parser, "--prefetch", type=whole(0, 10000), help="jobs taken ahead")
    flags.env(
        parser, "--poll-interval", type=seconds, help="seconds between two looks (default 15)"
    )
    flags.env(parser, "--grace", type=grace, help="seconds that running jobs have (default 30)")
    flags.env(parser, "--forbidden-flags", several=True, help="leave jobs with it; may be repeated")
    flags.env(parser, "--crontab", help="file of recurring jobs (default: crontab, if it is there)")
    flags.env(
        parser, "--metrics-port", type=whole(1, 65535),
        help="serve /metrics and /healthz here; further processes at the next ports",
    )  # fmt: skip
    flags.env(parser, "--metrics-host", default="127.0.0.1", help="address for that")
    flags.env(parser, "--uvloop", switch=True, help="run on uvloop")
    flags.env(parser, "--log-json", switch=True, help="log a JSON object a line")
    flags.env(parser, "--log-level", choices=LEVELS, default="info", help="what to log (info)")


def run(options: argparse.Namespace) -> int:
    """Start the worker, and return its exit code."""
    from graphile_worker.gw.run.serve import run_command  # which the other commands do not need

    configure_logging(options)
    return run_command(options)
